"""As test_more_recipes: HACS, Ego4D, FineAction, EPIC-SOUNDS."""

import importlib

import pytest

from tests.test_more_recipes import (
    EIGHT,
    EPIC,
    FIFTHS,
    _has_the_size_by_hand,
    _joined,
    _ranges,
)
from tests.test_published_recipes import (
    AUGMENTED,
    FEATURES,
    TSP,
    _adapters_are,
    _holds,
    _rate,
    _recipe,
    _variants,
)

# --- HACS Segments ---------------------------------------------------------

HACS = {
    "data": {"train_subset": "training", "test_subset": "validation"},
    "features": {"width": 2304, "stride_frames": 8.0, "clip_frames": 32.0,
                 "fps": 15.0},
    "window": {"tokens": 960, "test_whole": True, "min_action_kept": 0.5,
               "short_crop_ratio": (0.9, 1.0)},
    "adapter": {"kind": "none", "standardize_last": False},
    "loss": {"initial_normalizer": 400.0, "label_smoothing": 0.1,
             "regression_weight": 1.0},
    "train": {"batch_windows": 16, "learning_rate": 1e-3,
              "weight_decay": 0.03},
    "evaluate": {"top_k": 2000, "nms": "soft", "nms_sigma": 0.75,
                 "nms_min_score": 0.001, "nms_per_class": True,
                 "tiou_thresholds": tuple(
                     round(0.5 + 0.05 * i, 2) for i in range(10))}}
# TriDet's hacs_*.yaml.
HACS_TRIDET = {
    "data": {"class_agnostic": False},
    "head": {"kind": "tridet", "width": 1024, "head_width": 0,
             "neck_width": 0, "sgp_mlp_width": 1024, "sgp_k": 1.2,
             "sgp_init_deviation": 0.1, "head_kernel": 5,
             "boundary_kernel": 1, "absolute_positions": True},
    "loss": {"iou_power": 1.0},
    "evaluate": {"score_threshold": 0.001, "top_k_per_level": True,
                 "min_length_tokens": 0.05, "max_detections": 250}}
HACS_VARIANTS = {
    "slowfast_tridet": (HACS_TRIDET, {
        "head": {"num_levels": 6, "sgp_window": (3,), "num_bins": 14,
                 "input_noise": 0.2},
        "train": {"epochs": 11, "schedule_epochs": 11, "warmup_epochs": 7.0,
                  "final_learning_rate": 5e-4, "gradient_clip": 0.5}}),
    "i3d_tridet": (HACS_TRIDET, {
        "features": {"width": 2048, "stride_frames": 1.0, "clip_frames": 1.0,
                     "fps": 2.0},
        "window": {"tokens": 512},
        "head": {"num_levels": 7, "sgp_window": (15,), "num_bins": 12,
                 "input_noise": 0.0},
        "train": {"epochs": 13, "schedule_epochs": 13, "warmup_epochs": 10.0,
                  "final_learning_rate": 2e-4, "gradient_clip": 1.0}}),
    # OpenTAD's configs/actionformer/hacs_slowfast.py.
    "slowfast_proposals": ({}, {
        "data": {"class_agnostic": True, "min_action_share": 0.01},
        "head": {"kind": "actionformer", "width": 256, "num_levels": 6,
                 "attention_window": (13, 13, 13, 13, 13, -1),
                 "input_dropout": 0.1, "opentad": True,
                 "absolute_positions": True},
        "train": {"epochs": 15, "schedule_epochs": 15, "warmup_epochs": 5.0,
                  "final_learning_rate": 1e-8, "gradient_clip": 1.0},
        "evaluate": {"score_threshold": 0.0, "top_k_per_level": False,
                     "min_length_tokens": 0.0, "max_detections": 100,
                     "video_scores_top": 3,
                     "video_scores_fusion": "product"}})}


@pytest.mark.parametrize("variant", HACS_VARIANTS)
def test_hacs_has_the_published_recipes(variant):
    config = _recipe("hacs_features", variant)
    _holds(config, **_joined(HACS, *HACS_VARIANTS[variant]))
    levels = config.head.num_levels
    assert _ranges(config) == (*EIGHT[:levels - 1],
                               (4 * 2 ** (levels - 2), 10000))
    _has_the_size_by_hand(config, 1 if config.data.class_agnostic else 200)


# --- Ego4D Moment Queries --------------------------------------------------

EGO4D = {
    "data": {"train_subset": "training", "test_subset": "validation"},
    "window": {"min_action_kept": 0.3, "short_crop_ratio": (0.9, 1.0)},
    "adapter": {"kind": "none", "standardize_last": False},
    "head": {"kind": "actionformer", "absolute_positions": True,
             "dropout": 0.1, "drop_path": 0.1, "num_embedding_convs": 2,
             "num_stem_blocks": 2},
    "loss": {"initial_normalizer": 100.0, "label_smoothing": 0.0,
             "regression_weight": 1.0, "center_radius": 1.5},
    "train": {"batch_windows": 2, "learning_rate": 1e-4,
              "weight_decay": 0.05, "gradient_clip": 1.0,
              "warmup_epochs": 5.0},
    "evaluate": {"score_threshold": 0.001, "top_k": 5000, "nms": "soft",
                 "nms_min_score": 0.001, "nms_per_class": True,
                 "max_detections": 2000, "tiou_thresholds": FIFTHS,
                 "ego4d_recall": True}}
# Channels, stride, frames, width, heads, levels.
EGO4D_VARIANTS = {
    "slowfast": (2304, 16, 32, 512, 4, 7),
    "omnivore": (1536, 16, 32, 512, 4, 8),
    "egovlp": (256, 16, 16, 384, 4, 8),
    "slowfast_egovlp": (2560, 16, 32, 768, 12, 8),
    "omnivore_egovlp": (1792, 16, 32, 768, 12, 8),
    "slowfast_omnivore_egovlp": (4096, 16, 32, 1024, 16, 8),
    "slowfast_opentad": (2304, 16, 32, 512, 4, 9),
    "egovlp_opentad": (256, 16, 16, 384, 4, 9),
    # An offset of 4 frames.
    "internvideo_opentad": (1024, 8, 8, 512, 4, 10)}
OVERLAPPING_TEN = ((0, 4), *((4 * 2 ** level / 2, 4 * 2 ** (level + 1))
                             for level in range(9)))


@pytest.mark.parametrize("variant", EGO4D_VARIANTS)
def test_ego4d_has_the_published_recipes(variant):
    channels, stride, frames, width, heads, levels = EGO4D_VARIANTS[variant]
    config = _recipe("ego4d_features", variant)
    of_opentad = variant.endswith("_opentad")
    tokens = 2048 if levels == 10 else 1024
    window = (17,) * 7 + (-1,) * 3 if levels == 10 else (9,) * 6 + (-1,) * 3
    _holds(config, **_joined(EGO4D, {
        "features": {"width": channels, "stride_frames": float(stride),
                     "clip_frames": float(frames), "fps": 30.0},
        "window": {"tokens": tokens, "test_whole": not of_opentad},
        "head": {"width": width, "attention_heads": heads,
                 "num_levels": levels, "opentad": of_opentad,
                 "attention_window": window if of_opentad else (9,),
                 "input_dropout": 0.2 if of_opentad else 0.0},
        "loss": {"every_class": of_opentad},
        "train": ({"epochs": 20, "schedule_epochs": 25} if of_opentad
                  else {"epochs": 15, "schedule_epochs": 15}),
        "evaluate": {"nms_sigma": 2.0 if of_opentad else 0.9,
                     "top_k_per_level": not of_opentad,
                     "min_length_tokens": 0.0 if of_opentad else 0.05}}))
    if of_opentad:
        assert config.window.overlap == 0.0
    if variant == "slowfast_omnivore_egovlp":
        _holds(config, head={"input_widths": (2304, 1536, 256),
                             "input_projections": (256, 384, 384)})
    assert _ranges(config) == (*OVERLAPPING_TEN[:levels - 1], (
        OVERLAPPING_TEN[levels - 1][0], 10000))
    _has_the_size_by_hand(config, 110)


def test_ego4d_has_adatads_recipe():
    config = _recipe("ego4d", "l_tia")
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(4e-4))
    _adapters_are(config, 256, 12, 23)
    _holds(config, **_joined(EGO4D, {
        # 7,200 frames of a clip of 480 s, padded to 2,048 tokens.
        "window": {"sampling": "fps", "sample_fps": 15.0, "samples": 8192,
                   "tokens": 2048, "overlap": 0.0, "clip_samples": 16},
        "augment": {"size": 192, **AUGMENTED},
        "adapter": {"kind": "tia", "drop_path": 0.1,
                    "standardize_last": True},
        "head": {"width": 512, "attention_heads": 4, "num_levels": 10,
                 "opentad": True, "input_dropout": 0.2,
                 "attention_window": (17,) * 7 + (-1,) * 3},
        "loss": {"every_class": True},
        "train": {"epochs": 20, "schedule_epochs": 25},
        "evaluate": {"nms_sigma": 2.0, "top_k_per_level": False,
                     "min_length_tokens": 0.0}}))
    assert _ranges(config) == (*OVERLAPPING_TEN[:9], (512, 10000))


# --- FineAction, EPIC-SOUNDS -----------------------------------------------

@pytest.mark.parametrize("variant, width, epochs", [
    ("videomaev2", 1408, 15), ("videomae", 1280, 20)])
def test_fineaction_has_opentads_recipe(variant, width, epochs):
    """Like OpenTAD's for ActivityNet's TSP features but for input dropout."""
    config = _recipe("fineaction_features", variant)
    expected = _joined(TSP, FEATURES["activitynet_features", "tsp_opentad"][1],
                       {"features": {"width": width, "fps": 0.0,
                                     "prefix": "", "resize": "average"},
                        "data": {"train_subset": "training",
                                 "test_subset": "validation"},
                        "head": {"input_dropout": 0.0},
                        "train": {"epochs": epochs,
                                  "schedule_epochs": epochs},
                        "evaluate": {"video_scores_top": 2,
                                     "video_scores_fusion": "sqrt",
                                     "tiou_thresholds": HACS["evaluate"][
                                         "tiou_thresholds"]}})
    _holds(config, **expected)
    _has_the_size_by_hand(config, 1)


def test_epic_sounds_has_the_settings_of_causaltad():
    config = importlib.import_module(
        "configs.epic_sounds_features").get_config()
    _holds(config, **_joined(EPIC, {
        "features": {"width": 2304, "stride_frames": 6.0, "clip_frames": 32.0,
                     "fps": 30.0},
        "window": {"tokens": 6144, "overlap": 0.5, "test_whole": False,
                   "min_action_kept": 0.3},
        "head": {"num_levels": 7, "absolute_positions": True,
                 "input_dropout": 0.2, "opentad": True},
        "loss": {"initial_normalizer": 250.0, "label_smoothing": 0.1,
                 "regression_weight": 0.5},
        "train": {"epochs": 25, "schedule_epochs": 30},
        "evaluate": {"top_k_per_level": False, "min_length_tokens": 0.0}}))
    assert _ranges(config) == (*OVERLAPPING_TEN[:6], (64, 10000))


def test_every_variant_is_compared():
    assert _variants("hacs_features") == set(HACS_VARIANTS)
    assert _variants("fineaction_features") == {"videomaev2", "videomae"}
    assert _variants("ego4d_features") == set(EGO4D_VARIANTS)
    assert _variants("ego4d") == {"l"}
