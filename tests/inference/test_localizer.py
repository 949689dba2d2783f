"""Arguments of a `Localizer` are checked before any video is read."""

import pytest

from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.inference.localizer import Localizer

NAN = float("nan")


@pytest.fixture
def model():
    return Localizer(None, ("a", "b"), {"a": 0.3}, "", 1, None)


@pytest.mark.parametrize("limits, message", [
    ({"top_k": 0}, "top_k=0: give a whole number from 1 on"),
    ({"top_k": -1}, "top_k=-1"), ({"top_k": 1.5}, "top_k=1.5"),
    ({"threshold": -0.1}, "threshold=-0.1: must be a score from 0 to 1"),
    ({"threshold": 50}, "threshold=50"), ({"threshold": NAN}, "threshold=nan")])
def test_limits_out_of_range_are_refused(model, limits, message):
    with pytest.raises(InputError, match=message):
        model("video.mp4", **limits)
    with pytest.raises(InputError, match=message):
        if "top_k" in limits:
            next(model.many([], **limits))
        model.shown([], **limits)


def test_a_class_without_a_threshold_has_one_half(model):
    rows = [Detection(0.0, 1.0, label, score) for label, score in (
        ("a", 0.3), ("b", 0.5), ("b", 0.4), ("a", 0.2))]
    assert model.shown(rows) == rows[:2]
    assert model.shown(rows, 0.4) == [rows[1], rows[2]]
    assert model.shown(rows, 0) == rows
