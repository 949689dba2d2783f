"""The recipes hold the values that are published.

The tables below are read from the public configurations, not from ours:
OpenTAD (github.com/sming256/OpenTAD, configs/adatad and configs/actionformer),
ActionFormer (github.com/happyharrycn/actionformer_release, configs) and TriDet
(github.com/dingfengshi/TriDet, configs). docs/method.md lists what differs on
purpose. An adapter type or a size without a public file is not here.
"""

import importlib

import pytest

from configs.common import OTHER_FAMILIES
from losa_jax.models.backbones import SIZES
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training.specs import (
    choose_tap_layers,
    inside_backbone_spec,
    make_adapter_spec,
)

# mmaction2: RandomResizedCrop, Flip, ImgAug and ColorJitter by default.
AUGMENTED = {
    "random_crop": True, "crop_area": (0.08, 1.0),
    "crop_ratio": (0.75, 1.3333), "flip_probability": 0.5,
    "random_operations": 2, "color_jitter": 0.5, "hue_jitter": 0.139}
# The frozen baselines: the center of a frame.
PLAIN = {"random_crop": False, "flip_probability": 0.0,
         "random_operations": 0, "color_jitter": 0.0, "hue_jitter": 0.0}
SIZE_NAMES = ("s", "b", "l", "h", "g768", "g1536")


def _recipe(name, variant):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def _variants(name):
    return set(importlib.import_module(f"configs.{name}").VARIANTS)


def _holds(config, **sections):
    wrong = {f"{section}.{key}": (config[section][key], value)
             for section, values in sections.items()
             for key, value in values.items()
             if config[section][key] != value}
    assert not wrong


def _backbone(config):
    return VideoMaeSpec(**{**SIZES[config.backbone.name],
                           "clip_frames": config.window.clip_samples})


def _rate(config, section, key):
    return config.train.learning_rate * config[section][key]


# --- THUMOS-14, AdaTAD ----------------------------------------------------

# Size: frames, source frames to the next, pixels, adapters' rate, epochs.
THUMOS = {"s": (768, 4, 160, 2e-4, 60), "b": (768, 4, 160, 1e-4, 60),
          "l": (768, 4, 160, 1e-4, 60), "h": (768, 4, 160, 1e-4, 60),
          "g768": (768, 4, 160, 1e-4, 60), "g1536": (1536, 2, 224, 2e-4, 50)}
# Adapter type and size: hidden channels, first and last block; *_adapter.py,
# *_side*.py. Of the ladder, other sizes are not published.
TIA = {"s": (96, 0, 11), "b": (192, 0, 11), "l": (256, 0, 23),
       "h": (320, 0, 31), "g768": (352, 0, 39), "g1536": (352, 20, 39)}
LADDER = {"s": (96, 6, 11), "g768": (352, 20, 39), "g1536": (176, 20, 39)}


@pytest.mark.parametrize("kind", ["losa", "none", "ladder", "tia", "full"])
@pytest.mark.parametrize("size", SIZE_NAMES)
def test_thumos_has_adatads_recipe(size, kind):
    config = _recipe("thumos", size if kind == "losa" else f"{size}_{kind}")
    frames, stride, pixels, rate, epochs = THUMOS[size]
    frozen = kind == "none"
    assert config.adapter.kind == kind
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(rate))
    assert _rate(config, "adapter", "backbone_learning_rate_factor") == (
        pytest.approx(1e-5))
    _holds(
        config,
        window={"samples": frames, "frame_stride": stride, "tokens": 768,
                "overlap": 0.5, "short_crop_ratio": (0.9, 1.0),
                "min_action_kept": 0.75, "clip_samples": 16},
        augment={"size": pixels, "test_resize": "short_crop", "per": "window",
                 **(PLAIN if frozen else AUGMENTED)},
        data={"min_action_share": 0.0},
        adapter={"drop_path": 0.1, "weight_decay_factor": 1.0},
        head={"kind": "actionformer", "width": 512, "attention_window": (-1,),
              "absolute_positions": False, "drop_path": 0.1, "opentad": True,
              "input_dropout": {"none": 0.2, "ladder": 0.1}.get(kind, 0.0)},
        loss={"initial_normalizer": 100.0, "label_smoothing": 0.0,
              "regression_weight": 1.0, "center_radius": 1.5},
        train={"batch_windows": 2, "learning_rate": 1e-4,
               "final_learning_rate": 1e-8, "weight_decay": 0.05,
               "gradient_clip": 1.0, "ema_decay": 0.999, "ema_warmup": False,
               "warmup_epochs": 5.0, "schedule_epochs": 100, "epochs": epochs},
        evaluate={"score_threshold": 0.001, "top_k": 2000,
                  "top_k_per_level": False, "min_length_tokens": 0.0,
                  "nms": "soft", "nms_per_class": True,
                  "nms_sigma": 0.5 if frozen else 0.7,
                  "nms_min_score": 0.001 if frozen else 0.0,
                  "max_detections": 2000,
                  "tiou_thresholds": (0.3, 0.4, 0.5, 0.6, 0.7)})


def _adapters_are(config, width, first, last):
    spec = _backbone(config)
    if config.adapter.kind == "tia":
        inside = inside_backbone_spec(config.adapter, spec)
        assert inside.width == width
        assert spec.depth - inside.top_blocks == first
        assert spec.depth - 1 == last
        return
    layers = choose_tap_layers(config.adapter, spec.depth)
    assert layers == tuple(range(first, last + 1))
    assert make_adapter_spec(config, spec, layers).width == width


@pytest.mark.parametrize("variant, adapters", [
    *((f"{size}_tia", adapters) for size, adapters in TIA.items()),
    *((f"{size}_ladder", adapters) for size, adapters in LADDER.items())])
def test_adatads_adapters_have_their_width_and_blocks(variant, adapters):
    _adapters_are(_recipe("thumos", variant), *adapters)


# --- ActivityNet-v1.3, AdaTAD ---------------------------------------------

@pytest.mark.parametrize("kind", ["losa", "none", "tia", "full"])
@pytest.mark.parametrize("size", SIZE_NAMES)
def test_activitynet_has_adatads_recipe_for_proposals(size, kind):
    name = f"{size}_proposals"
    config = _recipe("activitynet", name if kind == "losa"
                     else f"{name}_{kind}")
    _is_activitynet(config, kind)
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(1e-4))
    _holds(
        config,
        data={"class_agnostic": True},
        augment={"size": 224 if size == "g1536" else 160},
        head={"width": 256},
        loss={"regression_weight": 2.0},
        train={"schedule_epochs": 15},
        # One class: no threshold, and 378 points are fewer than top_k.
        evaluate={"score_threshold": 0.0, "nms_sigma": 0.7,
                  "nms_per_class": False, "voting_threshold": 0.9,
                  "voting": "tridet", "video_scores_top": 2})


def test_activitynet_has_adatads_recipe_for_200_classes():
    config = _recipe("activitynet", "l_tia")
    _is_activitynet(config, "tia")
    assert _rate(config, "adapter", "learning_rate_factor") == (
        pytest.approx(8e-5))
    _adapters_are(config, 256, 0, 23)
    _holds(
        config,
        data={"class_agnostic": False},
        window={"samples": 768},
        augment={"size": 224},
        head={"width": 512},
        loss={"regression_weight": 1.0},
        train={"schedule_epochs": 20},
        evaluate={"score_threshold": 0.001, "nms_sigma": 0.75,
                  "nms_per_class": True})


def _is_activitynet(config, kind):
    assert config.adapter.kind == kind
    # configs/adatad/anet/*_fullft.py.
    assert _rate(config, "adapter", "backbone_learning_rate_factor") == (
        pytest.approx(1e-5))
    _holds(
        config,
        data={"min_action_share": 0.01},
        window={"sampling": "resize", "tokens": 192},
        augment=PLAIN if kind == "none" else AUGMENTED,
        adapter={"drop_path": 0.1},
        head={"attention_window": (-1,), "absolute_positions": True,
              "drop_path": 0.1, "opentad": True,
              "input_dropout": 0.2 if kind in ("none", "full") else 0.0},
        loss={"initial_normalizer": 200.0, "label_smoothing": 0.1},
        train={"batch_windows": 16, "learning_rate": 1e-3,
               "weight_decay": 0.05, "gradient_clip": 1.0, "ema_decay": 0.999,
               "warmup_epochs": 5.0, "epochs": 15},
        evaluate={"min_length_tokens": 0.0, "nms": "soft",
                  "nms_min_score": 0.001, "max_detections": 100})


@pytest.mark.parametrize("variant, adapters", [
    ("s_proposals_tia", (96, 0, 11)), ("g768_proposals_tia", (352, 0, 39)),
    ("g1536_proposals_tia", (352, 20, 39))])
def test_adatads_adapters_on_activitynet(variant, adapters):
    _adapters_are(_recipe("activitynet", variant), *adapters)


# --- Features -------------------------------------------------------------

# ActionFormer's thumos_i3d.yaml.
I3D = {
    "features": {"width": 2048, "stride_frames": 4.0, "clip_frames": 16.0},
    "window": {"tokens": 2304, "min_action_kept": 0.5,
               "short_crop_ratio": (0.9, 1.0)},
    "adapter": {"kind": "none", "standardize_last": False},
    "head": {"kind": "actionformer", "width": 512, "attention_window": (19,),
             "absolute_positions": False, "drop_path": 0.1,
             "input_dropout": 0.0, "input_noise": 0.0, "opentad": False},
    "loss": {"initial_normalizer": 100.0, "label_smoothing": 0.0,
             "regression_weight": 1.0},
    "train": {"batch_windows": 2, "epochs": 35, "schedule_epochs": 35,
              "warmup_epochs": 5.0, "learning_rate": 1e-4,
              "final_learning_rate": 1e-8, "weight_decay": 0.05,
              "gradient_clip": 1.0, "ema_decay": 0.999},
    "evaluate": {"score_threshold": 0.001, "top_k": 2000,
                 "top_k_per_level": True, "min_length_tokens": 0.05,
                 "nms_sigma": 0.5, "nms_min_score": 0.001,
                 "nms_per_class": True, "max_detections": 200}}
# ActionFormer's anet_tsp.yaml.
TSP = {
    "data": {"min_action_share": 0.0, "class_agnostic": True},
    "features": {"width": 512, "stride_frames": 16.0, "clip_frames": 16.0,
                 "fps": 15.0, "resize": "linear"},
    "window": {"sampling": "resize", "tokens": 192, "min_action_kept": 0.5,
               "short_crop_ratio": (0.9, 1.0)},
    "head": {"kind": "actionformer", "width": 256, "absolute_positions": True,
             "attention_window": (7, 7, 7, 7, 7, -1), "drop_path": 0.1,
             "input_dropout": 0.0, "input_noise": 0.0, "opentad": False},
    "loss": {"initial_normalizer": 200.0, "label_smoothing": 0.1,
             "regression_weight": 2.0},
    "train": {"batch_windows": 16, "epochs": 15, "schedule_epochs": 15,
              "warmup_epochs": 5.0, "learning_rate": 1e-3,
              "final_learning_rate": 1e-8, "weight_decay": 0.05,
              "gradient_clip": 1.0},
    "evaluate": {"score_threshold": 0.001, "top_k": 2000,
                 "top_k_per_level": True, "min_length_tokens": 0.001,
                 "nms_sigma": 0.75, "nms_min_score": 0.001,
                 "nms_per_class": False, "voting_threshold": 0.9,
                 "voting": "actionformer", "max_detections": 100}}
# Recipe: what it is based on, and what it changes.
FEATURES = {
    ("thumos_features", "i3d"): (I3D, {}),
    # OpenTAD's configs/actionformer/thumos_i3d.py.
    ("thumos_features", "i3d_opentad"): (I3D, {
        "head": {"input_dropout": 0.2, "opentad": True},
        "evaluate": {"top_k_per_level": False, "min_length_tokens": 0.0,
                     "max_detections": 2000}}),
    # TriDet's thumos_i3d.yaml.
    ("thumos_features", "i3d_tridet"): (I3D, {
        "head": {"kind": "tridet", "input_noise": 0.0005, "num_bins": 16,
                 "sgp_window": (1,), "sgp_k": 5.0, "sgp_mlp_width": 768},
        "loss": {"iou_power": 0.2},
        "train": {"epochs": 40, "schedule_epochs": 40, "warmup_epochs": 20.0,
                  "weight_decay": 0.025},
        "evaluate": {"max_detections": 2000}}),
    # InternVideo's, with VideoMAEv2's width.
    ("thumos_features", "videomaev2"): (I3D, {
        "features": {"width": 1408},
        "train": {"epochs": 50, "schedule_epochs": 50}}),
    ("activitynet_features", "tsp"): (TSP, {}),
    # OpenTAD's configs/actionformer/anet_tsp.py.
    ("activitynet_features", "tsp_opentad"): (TSP, {
        "data": {"min_action_share": 0.01},
        "features": {"resize": "average"},
        "head": {"input_dropout": 0.2, "opentad": True},
        "evaluate": {"score_threshold": 0.0, "min_length_tokens": 0.0,
                     "voting": "tridet"}}),
    # TriDet's anet_tsp.yaml.
    ("activitynet_features", "tsp_tridet"): (TSP, {
        "window": {"sampling": "stride", "tokens": 768},
        "head": {"kind": "tridet", "head_width": 512, "input_noise": 0.5,
                 "num_bins": 12, "sgp_window": (15,), "sgp_k": 1.3,
                 "sgp_mlp_width": 2048, "sgp_init_deviation": 0.2},
        "loss": {"initial_normalizer": 400.0, "regression_weight": 1.0,
                 "iou_power": 1.0},
        "train": {"warmup_epochs": 10.0, "final_learning_rate": 5e-5,
                  "weight_decay": 0.04, "gradient_clip": 0.4},
        "evaluate": {"min_length_tokens": 0.1, "nms_sigma": 0.7,
                     "voting_threshold": 0.95, "voting": "tridet",
                     "max_detections": 200}}),
}


@pytest.mark.parametrize("name, variant", FEATURES)
def test_feature_recipes_are_the_published_ones(name, variant):
    base, changes = FEATURES[name, variant]
    expected = {
        section: base.get(section, {}) | changes.get(section, {})
        for section in base | changes}
    if expected["head"]["kind"] == "tridet":
        # The windows of attention are ActionFormer's.
        expected["head"] = {**expected["head"]}
        del expected["head"]["attention_window"]
    _holds(_recipe(name, variant), **expected)


def test_every_variant_is_compared():
    """Of VideoMAEv2's features with TriDet and of other families' frames there
    is no public file."""
    assert {(name, variant)
            for name in ("thumos_features", "activitynet_features")
            for variant in _variants(name)} - set(FEATURES) == {
        ("thumos_features", "videomaev2_tridet")}
    names = {*SIZE_NAMES, *OTHER_FAMILIES}
    assert _variants("thumos") == names
    assert _variants("activitynet") == names | {
        f"{name}_proposals" for name in names}
