"""Recipes of more data sets hold the values that are published.

As in test_published_recipes, the tables are read from the public
configurations (OpenTAD's configs/adatad and configs/actionformer, ActionFormer,
TriDet), not from ours.
"""

import pytest

from losa_jax.training.specs import make_head_spec
from tests.head_sizes import (
    actionformer_size,
    num_parameters,
    size_by_hand,
    tridet_size,
)
from tests.test_published_recipes import (
    AUGMENTED,
    I3D,
    _adapters_are,
    _holds,
    _rate,
    _recipe,
    _variants,
)

TENTHS = tuple(round(0.1 * i, 1) for i in range(1, 10))


def test_the_counts_by_hand_are_those_of_the_public_recipes():
    assert actionformer_size(2048, 20) == 29_251_612
    assert tridet_size(2048, 20) == 15_989_604
    assert tridet_size(1408, 20) == 15_006_564
    assert tridet_size(512, 1, width=256, head_width=512, window=15, k=1.3,
                       mlp=2048, bins=12) == 12_811_555


def _has_the_size_by_hand(config, num_classes):
    """The recipe's values, from which it is counted, were compared before."""
    width = config.features.width
    assert num_parameters(config, width, num_classes) == size_by_hand(
        config, width, num_classes)


# --- MultiTHUMOS ----------------------------------------------------------

# Frames, source frames to the next, pixels, rate, first block, width.
MULTITHUMOS = {"s": (768, 4, 160, 4e-4, 0, 96, 11),
               "b": (768, 4, 160, 4e-4, 0, 192, 11),
               "l": (768, 4, 160, 4e-4, 0, 256, 23),
               "h": (768, 4, 160, 1e-4, 0, 320, 31),
               "g768": (768, 4, 160, 1e-4, 0, 352, 39),
               "g1536": (1536, 2, 224, 1e-4, 20, 352, 39)}


@pytest.mark.parametrize("size", MULTITHUMOS)
def test_multithumos_has_adatads_recipe(size):
    frames, stride, pixels, rate, first, width, last = MULTITHUMOS[size]
    config = _recipe("multithumos", f"{size}_tia")
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(rate))
    _adapters_are(config, width, first, last)
    _holds(
        config,
        data={"train_subset": "training", "test_subset": "testing",
              "min_action_share": 0.0},
        window={"samples": frames, "frame_stride": stride, "tokens": 768,
                "overlap": 0.5, "short_crop_ratio": (0.9, 1.0),
                "min_action_kept": 0.75, "clip_samples": 16},
        augment={"size": pixels, "per": "window", **AUGMENTED},
        adapter={"drop_path": 0.1},
        head={"kind": "actionformer", "num_embedding_convs": 3,
              "num_stem_blocks": 0, "num_levels": 6,
              "attention_window": (-1,), "absolute_positions": False,
              "input_dropout": 0.0, "opentad": True},
        loss={"initial_normalizer": 100.0, "label_smoothing": 0.0,
              "regression_weight": 1.0, "center_radius": 1.5},
        train={"batch_windows": 2, "learning_rate": 1e-4,
               "weight_decay": 0.05, "gradient_clip": 1.0,
               "warmup_epochs": 5.0, "schedule_epochs": 100, "epochs": 80,
               "evaluate_from_epoch": 49, "ema_decay": 0.999},
        evaluate={"score_threshold": 0.001, "top_k": 8000,
                  "top_k_per_level": False, "nms": "soft",
                  "nms_per_class": True, "nms_sigma": 0.5,
                  "nms_min_score": 0.0, "max_detections": 8000,
                  "tiou_thresholds": TENTHS, "per_frame": "multithumos"})


@pytest.mark.parametrize("variant, width, channels", [
    ("i3d", 2048, ()), ("i3d_rgb", 1024, (0, 1024))])
def test_multithumos_has_opentads_recipe_for_features(variant, width,
                                                      channels):
    config = _recipe("multithumos_features", variant)
    _holds(
        config,
        data={"train_subset": "training", "test_subset": "testing"},
        features={**I3D["features"], "width": width, "channels": channels},
        window=I3D["window"],
        adapter=I3D["adapter"],
        head={**I3D["head"], "opentad": True, "num_embedding_convs": 3,
              "num_stem_blocks": 0},
        loss=I3D["loss"],
        train={**I3D["train"], "epochs": 45, "schedule_epochs": 65,
               "evaluate_from_epoch": 35},
        evaluate={**I3D["evaluate"], "top_k": 8000, "top_k_per_level": False,
                  "min_length_tokens": 0.0, "max_detections": 8000,
                  "tiou_thresholds": TENTHS, "per_frame": "multithumos"})
    _has_the_size_by_hand(config, 65)


# --- EPIC-KITCHENS-100 -----------------------------------------------------

FIFTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
OVERLAPPING = ((0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, 10000))
EPIC = {
    "data": {"train_subset": "training", "test_subset": "validation"},
    "head": {"kind": "actionformer", "width": 512, "num_levels": 6,
             "attention_window": (9,), "absolute_positions": False,
             "num_embedding_convs": 2, "num_stem_blocks": 2,
             "drop_path": 0.1},
    "train": {"batch_windows": 2, "learning_rate": 1e-4,
              "weight_decay": 0.05, "gradient_clip": 1.0,
              "warmup_epochs": 5.0, "ema_decay": 0.999},
    "evaluate": {"score_threshold": 0.001, "top_k": 5000, "nms": "soft",
                 "nms_sigma": 0.4, "nms_min_score": 0.001,
                 "nms_per_class": True, "max_detections": 2000,
                 "tiou_thresholds": FIFTHS}}
# ActionFormer's epic_slowfast_*.yaml.
SLOWFAST = {
    "features": {"width": 2304, "stride_frames": 16.0, "clip_frames": 32.0,
                 "fps": 30.0},
    "window": {"tokens": 2304, "min_action_kept": 0.3,
               "short_crop_ratio": (0.9, 1.0)},
    "adapter": {"kind": "none", "standardize_last": False}}
# Code: changes, and what of verbs and of nouns.
EPIC_CODES = {
    "": ({"evaluate": {"top_k_per_level": True, "min_length_tokens": 0.05},
          "head": {"opentad": False, "input_dropout": 0.0}},
         {"train": {"epochs": 21, "final_learning_rate": 1e-8}},
         {"train": {"epochs": 21, "final_learning_rate": 1e-8}}),
    "opentad": (
        {"evaluate": {"top_k_per_level": False, "min_length_tokens": 0.0},
         "head": {"opentad": True, "input_dropout": 0.0}},
        {"train": {"epochs": 20}}, {"train": {"epochs": 20}}),
    "tridet": (
        {"evaluate": {"top_k_per_level": True, "min_length_tokens": 0.05},
         "head": {"kind": "tridet", "num_bins": 16, "sgp_mlp_width": 1024,
                  "head_width": 0, "input_noise": 0.0},
         "loss": {"iou_power": 0.25}},
        {"head": {"sgp_window": (5,), "sgp_k": 2.0},
         "train": {"epochs": 27, "final_learning_rate": 5e-5}},
        {"head": {"sgp_window": (1,), "sgp_k": 4.0},
         "train": {"epochs": 19, "final_learning_rate": 1e-8}})}


def _joined(*tables):
    return {section: {key: value for table in tables
                      for key, value in table.get(section, {}).items()}
            for section in {name for table in tables for name in table}}


def _ranges(config, num_classes=97):
    return make_head_spec(config, in_width=config.features.width or 16,
                          num_classes=num_classes
                          ).regression_ranges


@pytest.mark.parametrize("target", ["verb", "noun"])
@pytest.mark.parametrize("code", EPIC_CODES)
def test_epic_has_the_recipes_for_slowfast(code, target):
    config = _recipe("epic_features", f"{target}_{code}" if code else target)
    common, verb, noun = EPIC_CODES[code]
    changes = verb if target == "verb" else noun
    changes["train"]["schedule_epochs"] = changes["train"]["epochs"]
    loss = {"initial_normalizer": 250.0, "regression_weight": 1.0,
            "label_smoothing": 0.0 if target == "verb" else 0.1,
            "center_radius": 1.5}
    expected = _joined(EPIC, SLOWFAST, {"loss": loss}, common, changes)
    if code == "tridet":
        del expected["head"]["attention_window"]
    _holds(config, **expected)
    assert _ranges(config) == OVERLAPPING
    _has_the_size_by_hand(config, 97 if target == "verb" else 300)


@pytest.mark.parametrize("target", ["verb", "noun"])
def test_epic_has_adatads_recipe(target):
    config = _recipe("epic", f"{target}_tia")
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(8e-5))
    _adapters_are(config, 256, 0, 23)
    _holds(config, **_joined(EPIC, {
        "window": {"sampling": "fps", "sample_fps": 15.0, "samples": 6144,
                   "tokens": 768, "overlap": 0.5, "min_action_kept": 0.3,
                   "short_crop_ratio": (0.9, 1.0), "clip_samples": 16},
        "augment": {"size": 160, **AUGMENTED},
        "adapter": {"kind": "tia", "drop_path": 0.1},
        "head": {"input_dropout": 0.2, "opentad": True},
        "loss": {"initial_normalizer": 250.0, "regression_weight": 0.5,
                 "label_smoothing": 0.0 if target == "verb" else 0.1},
        "train": {"epochs": 35, "schedule_epochs": 250,
                  "evaluate_from_epoch": 19},
        "evaluate": {"top_k_per_level": False, "min_length_tokens": 0.0}}))
    assert _ranges(config) == OVERLAPPING


# --- Charades --------------------------------------------------------------

CHARADES = {
    "data": {"train_subset": "training", "test_subset": "testing"},
    "window": {"tokens": 512, "samples": 512, "overlap": 0.5,
               "min_action_kept": 0.5, "short_crop_ratio": (0.9, 1.0),
               "test_whole": False},
    "head": {"kind": "actionformer", "num_embedding_convs": 2,
             "num_stem_blocks": 2, "num_levels": 8, "attention_window": (-1,),
             "absolute_positions": True, "input_dropout": 0.3,
             "opentad": True, "drop_path": 0.1},
    "loss": {"initial_normalizer": 100.0, "label_smoothing": 0.0,
             "regression_weight": 1.0, "center_radius": 1.5},
    "train": {"batch_windows": 16, "learning_rate": 1e-4,
              "weight_decay": 0.05, "gradient_clip": 1.0, "ema_decay": 0.999,
              "warmup_epochs": 5.0, "schedule_epochs": 20, "epochs": 20},
    "evaluate": {"score_threshold": 0.001, "top_k": 2000,
                 "top_k_per_level": False, "nms": "soft", "nms_sigma": 0.3,
                 "nms_per_class": True, "max_detections": 1000,
                 "tiou_thresholds": TENTHS, "per_frame": "charades"}}
EIGHT = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256),
         (256, 10000))


@pytest.mark.parametrize("size, rate, width, last", [
    ("s", 4e-4, 96, 11), ("b", 4e-4, 192, 11), ("l", 2e-4, 256, 23),
    ("h", 1e-4, 320, 31), ("g", 8e-5, 352, 39)])
def test_charades_has_adatads_recipe(size, rate, width, last):
    config = _recipe("charades", f"{size}_tia")
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(rate))
    _adapters_are(config, width, 0, last)
    _holds(config, **_joined(CHARADES, {
        # Every fourth frame of 30 a second.
        "window": {"sampling": "fps", "sample_fps": 7.5, "clip_samples": 16},
        "augment": {"size": 160, **AUGMENTED},
        "adapter": {"kind": "tia", "drop_path": 0.1},
        "evaluate": {"nms_min_score": 0.0}}))
    assert _ranges(config) == EIGHT


@pytest.mark.parametrize("variant, changes", [
    ("i3d", {
        "features": {"width": 1024, "stride_frames": 8.0, "fps": 24.0},
        "window": {"tokens": 768, "samples": 768, "test_whole": True},
        "head": {"num_levels": 7}, "train": {"epochs": 15}}),
    # An offset of 2 frames is half of clip_frames.
    ("videomae", {"features": {"width": 1024, "stride_frames": 4.0,
                               "clip_frames": 4.0, "fps": 30.0}})])
def test_charades_has_opentads_recipes_for_features(variant, changes):
    config = _recipe("charades_features", variant)
    _holds(config, **_joined(CHARADES, {
        "adapter": I3D["adapter"], "evaluate": {"nms_min_score": 0.001}},
        changes))
    levels = config.head.num_levels
    assert _ranges(config) == (*EIGHT[:levels - 1],
                               (4 * 2 ** (levels - 2), 10000))
    _has_the_size_by_hand(config, 157)


def test_every_variant_is_compared():
    assert _variants("multithumos") == set(MULTITHUMOS)
    assert _variants("multithumos_features") == {"i3d", "i3d_rgb"}
    assert _variants("epic") == {"verb", "noun"}
    assert _variants("epic_features") == {
        f"{target}_{code}".rstrip("_") for target in ("verb", "noun")
        for code in EPIC_CODES}
    assert _variants("charades") == {"s", "b", "l", "h", "g"}
    assert _variants("charades_features") == {"i3d", "videomae"}
