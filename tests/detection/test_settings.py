"""Settings of decoding and NMS refuse wrong values and name the field."""

import pytest

from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.nms import NmsSettings
from losa_jax.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize("wrong, message", [
    ({"top_k": 0}, "top_k=0: must be at least 1"),
    ({"top_k": 2.5}, "top_k=2.5: .* a whole number"),
    ({"score_threshold": NAN}, "score_threshold=nan"),
    ({"score_threshold": 1.5}, "score_threshold=1.5: .* at most 1"),
    ({"min_length_tokens": NAN}, "min_length_tokens=nan: .* finite number"),
    ({"keep_all_scores": "no"}, "keep_all_scores='no'"),
    ({"top_k_per_level": "no"}, "top_k_per_level='no'")])
def test_decoding(wrong, message):
    with pytest.raises(InputError, match=f"DecodeSettings.{message}"):
        DecodeSettings(**wrong)
    DecodeSettings(min_length_tokens=-1.0)


@pytest.mark.parametrize("wrong, message", [
    ({"method": "sotf"}, "method='sotf': choose one of soft, hard, none"),
    ({"voting": "none"}, "voting='none'"),
    ({"per_class": "no"}, "per_class='no'"),
    ({"sigma": 0.0}, "sigma=0.0: must be above 0"),
    ({"sigma": NAN}, "sigma=nan"),
    ({"iou_threshold": NAN}, "iou_threshold=nan"),
    ({"iou_threshold": 1.1}, "iou_threshold=1.1: must be at least 0 and at "
                             "most 1"),
    ({"min_score": -0.1}, "min_score=-0.1"),
    ({"max_kept": 0}, "max_kept=0: must be at least 1"),
    ({"voting_threshold": 2.0}, "voting_threshold=2.0")])
def test_nms(wrong, message):
    with pytest.raises(InputError, match=f"NmsSettings.{message}"):
        NmsSettings(**wrong)
