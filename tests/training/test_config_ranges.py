"""Numbers that cannot be are refused with their key before anything is read."""

import importlib
import math
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training import fitted_sizes
from losa_jax.training.config_ranges import check_ranges, doubts
from losa_jax.training.specs import check_clip_overlap, check_window
from losa_jax.utils import recipes

# Keys that the specs of models and of NMS check, some under conditions.
_OF_SPECS = {
    "adapter": {"short_kernel", "short_grid", "long_grid", "long_kernel",
                "long_key_pool", "attention_heads", "mlp_ratio", "drop_path",
                "pool_queries"},
    "evaluate": {"score_threshold", "top_k", "min_length_tokens", "nms_sigma",
                 "nms_iou_threshold", "nms_min_score", "max_detections",
                 "voting_threshold"},
    "loss": {"center_radius", "label_smoothing", "regression_weight",
             "normalizer_momentum", "iou_power"},
}
# Of these 0 is a value, or switches something off.
_ZERO = {"seed", "num_threads", "cache_copies", "frame_cache_gib",
         "sample_fps", "overlap", "clip_overlap",
         "min_action_kept", "flip_probability", "color_jitter", "hue_jitter",
         "random_operations", "min_action_share", "final_learning_rate",
         "chunk_clips",
         "num_taps", "top_blocks", "width", "depth", "heads", "mlp_width",
         "patch", "warmup_epochs", "weight_decay", "gradient_clip",
         "ema_decay", "evaluate_from_epoch", "data", "clip", "fsdp",
         "learning_rate_factor", "gate_learning_rate_factor",
         "weight_decay_factor", "backbone_learning_rate_factor",
         "stride_frames", "clip_frames", "fps", "hard_negative_weight",
         "deep_supervision",
         *(key.split(".")[1] for key in fitted_sizes.KEYS)}


def _numbers():
    """Returns (section, key) of every number that is not of a spec."""
    pairs = [("", "seed")]
    for section, part in common.get_config().items():
        if not isinstance(part, ConfigDict) or section in (
                "head", "synthetic"):  # whose specs check every number
            continue
        pairs += [(section, key) for key, value in part.items()
                  if type(value) in (int, float)
                  and key not in _OF_SPECS.get(section, ())]
    return pairs


@pytest.mark.parametrize("section, key", _numbers())
def test_every_number_is_checked(section, key):
    config = common.get_config()
    check_ranges(config)
    part = config[section] if section else config
    name = f"config.{section}.{key}" if section else f"config.{key}"
    wrong = [-1] if isinstance(part[key], int) else [
        -1.0, math.nan, math.inf, -math.inf]
    if key not in _ZERO:
        wrong.append(type(part[key])(0))
    for value in wrong:
        part[key] = value
        with pytest.raises(InputError, match=rf"^{name}={value}: must be"):
            check_ranges(config)
    if key in _ZERO:
        part[key] = type(part[key])(0)
        check_ranges(config)


@pytest.mark.parametrize("section, key, value", [
    ("window", "short_crop_ratio", (0.9,)),
    ("window", "short_crop_ratio", (0.0, 1.0)),
    ("window", "short_crop_ratio", (0.5, 1.5)),
    ("augment", "crop_area", ()),
    ("augment", "crop_area", (1.0, 0.1)),
    ("augment", "crop_area", (math.nan, 1.0)),
    ("augment", "crop_ratio", (0.5, math.inf)),
    ("augment", "per", "frame"),
    ("evaluate", "per_frame", "thumos"),
    ("features", "channels", (0, 1024)),  # width is 0
    ("features", "channels", (3, 3)),
    ("features", "resize", "cubic"),
    ("evaluate", "tiou_thresholds", ()),
    ("evaluate", "tiou_thresholds", (0.5, 1.5)),
    ("evaluate", "tiou_thresholds", (math.nan,)),
    ("window", "overlap", 1.0),
    ("augment", "random_operations", 16),
    ("data", "num_threads", 100_000),
    ("data", "min_action_share", 1.0),
    ("train", "ema_decay", 1.0),
])
def test_other_values_that_cannot_be_are_refused(section, key, value):
    config = common.get_config()
    config[section][key] = value
    with pytest.raises(InputError, match=rf"^config.{section}.{key}="):
        check_ranges(config)


def test_numbers_of_another_head_or_adapter_are_finite_too():
    config = common.get_config()
    config.head.sgp_k = math.nan
    with pytest.raises(InputError, match="^config.head.sgp_k=nan: must be a"):
        check_ranges(config)


def test_all_are_named_at_once():
    config = common.get_config()
    config.train.batch_windows, config.seed = 0, -1
    config.window.short_crop_ratio = ()
    with pytest.raises(InputError) as caught:
        check_ranges(config)
    assert str(caught.value).splitlines() == [
        "2 values cannot be:", "  config.seed=-1: must be at least 0",
        "  config.train.batch_windows=0: must be at least 1"]


@pytest.mark.parametrize("keys, message", [
    ({"data.train_subset": "Training", "data.test_subset": "training"},
     "train_subset and config.data.test_subset are both 'Training': the mAP"),
    ({"train.warmup_epochs": 30.0, "train.epochs": 20},
     "config.train.warmup_epochs=30 is not less than config.train.epochs=20"),
    ({"train.warmup_epochs": 2.5, "train.epochs": 9,
      "train.schedule_epochs": 2}, "warmup_epochs=2.5 is not less than "
     "config.train.schedule_epochs=2"),
    ({"train.epochs": 60, "train.schedule_epochs": 40},
     "epochs=60 is more than config.train.schedule_epochs=40: in the last 20 "
     "epochs the learning rate is almost 0"),
    ({"train.final_learning_rate": 1e-3}, "final_learning_rate=0.001 is above "
     "config.train.learning_rate=0.0001: the learning rate rises")])
def test_values_that_are_rarely_meant_are_reported(keys, message):
    config = common.get_config()
    config.update_from_flattened_dict(keys)
    check_ranges(config)
    line, = doubts(config)
    assert message in line


def test_no_recipe_is_in_doubt():
    for name, variants in recipes.variants().items():
        module = importlib.import_module(f"configs.{Path(name).stem}")
        for variant in variants or [None]:
            config = module.get_config(*filter(None, [variant]))
            assert doubts(config) == []
    assert doubts(common.get_config()) == []


@pytest.mark.parametrize("keys, tubelet, message", [
    ({"clip_overlap": 7}, 2, "clip_overlap=7: clips of 16 .* divides 16 .* a "
     "multiple of .* tubelet of 2, so the overlap can be 0, 8, 12, 14: set it "
     "to 8$"),
    ({"clip_overlap": 13}, 2, "set it to 14$"),
    ({"clip_overlap": 15}, 2, "set it to 14$"),
    ({"clip_overlap": 16}, 1, "can be 0, 8, 12, 14, 15: set it to 15$"),
    ({"clip_overlap": 3}, 2, "set it to 0$"),
    ({"clip_overlap": 8, "samples": 16}, 2, "can be 0: set it to 0$"),
    ({"clip_overlap": 1, "clip_samples": 1}, 1, "can be 0: set it to 0$")])
def test_overlaps_that_cannot_be_are_refused_with_the_nearest(
        keys, tubelet, message):
    config = common.get_config()
    for value in (0, 8, 12, 14):
        config.window.clip_overlap = value
        check_clip_overlap(config, 2)
    config.window.update(keys)
    with pytest.raises(InputError, match=f"config.window.{message}" if
                       message.startswith("clip_overlap") else message):
        check_clip_overlap(config, tubelet)


def test_a_frame_in_several_clips_has_one_view():
    config = common.get_config()
    config.augment.per = "clip"
    check_clip_overlap(config, 2)
    config.window.clip_overlap = 8
    with pytest.raises(InputError, match="set config.augment.per=window, or"):
        check_clip_overlap(config, 2)


@pytest.mark.parametrize("size, patch, lost", [
    (100, 16, "the last 4 rows and columns of every frame are not seen; 96 or "
     "112 loses none"), (225, 14, "the last 1 rows"), (224, 14, ""),
    (96, 16, "")])
def test_pixels_that_no_patch_covers_are_reported(size, patch, lost, caplog):
    config = common.get_config()
    config.augment.size = size
    check_window(config, VideoMaeSpec(
        width=16, depth=2, heads=2, mlp_width=32, patch=patch,
        clip_frames=config.window.clip_samples, image_size=(size, size)))
    assert lost in caplog.text and bool(caplog.records) == bool(lost)
