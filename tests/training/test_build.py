"""Values of a config that do not fit the model are refused."""

import numpy as np
import pytest

from configs import quick, thumos
from losa_jax.errors import InputError
from losa_jax.inference.run_windows import nms_settings
from losa_jax.models.backbones import SIZES
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training.build import build_mesh, build_model
from losa_jax.training.specs import (
    check_backbone,
    check_tokens,
    choose_tap_layers,
    configured_backbone,
    decode_settings,
    inside_backbone_spec,
    make_adapter_spec,
    make_head_spec,
    tap_grid,
    window_clips,
)
from tests.custom_recipe import custom_config


@pytest.mark.parametrize("variant", ["", "ablation", "hard"])
def test_the_rendered_sets_have_their_backbone_in_the_package(variant):
    config = quick.get_config(variant)
    spec, flat, _ = configured_backbone(config)
    assert spec.num_classes == 12 and spec.depth == config.backbone.depth
    assert all(np.isfinite(leaf).all() for leaf in flat.values())


def test_a_backbone_of_another_name_is_refused():
    config = thumos.get_config("b")
    check_backbone(config.backbone, VideoMaeSpec(**SIZES["vit_b"]))
    with pytest.raises(InputError, match=(
            r"asks for width=768 \(vit_b\).*has width=384.*backbone\.name")):
        check_backbone(config.backbone, VideoMaeSpec(**SIZES["vit_s"]))


def test_a_backbone_of_another_size_is_refused():
    config = custom_config()
    spec = VideoMaeSpec(**{**SIZES["vit_s"], "patch": 14})
    check_backbone(config.backbone, spec)
    config.backbone.patch = 16
    with pytest.raises(InputError, match="patch=16.*has patch=14"):
        check_backbone(config.backbone, spec)


def test_an_unknown_backbone_name_is_refused():
    config = custom_config()
    config.backbone.name = "vit_giant"
    with pytest.raises(InputError, match="'vit_giant': choose one of vit_s"):
        check_backbone(config.backbone, VideoMaeSpec(**SIZES["vit_g"]))


def test_the_ladder_is_a_quarter_as_wide():
    config = custom_config()
    config.adapter.kind = "ladder"
    spec = make_adapter_spec(config, VideoMaeSpec(**SIZES["vit_b"]), (6, 11))
    assert (spec.in_width, spec.width, spec.num_taps) == (768, 192, 2)


@pytest.mark.parametrize("backbone, width", [
    ("vit_s", 64), ("vit_b", 128), ("vit_l", 160), ("vit_h", 224),
    ("vit_g", 224)])
def test_losa_is_a_sixth_as_wide_and_divides_among_devices(backbone, width):
    config = custom_config()
    spec = make_adapter_spec(config, VideoMaeSpec(**SIZES[backbone]), (6, 11))
    assert spec.width == width


@pytest.mark.parametrize("depth, num_taps, layers", [
    (12, 0, (6, 7, 8, 9, 10, 11)), (12, 1, (11,)), (12, 3, (7, 9, 11)),
    (40, 4, (24, 29, 34, 39)), (3, 0, (2,))])
def test_taps_are_spread_over_the_last_half(depth, num_taps, layers):
    adapter = custom_config().adapter
    adapter.tap_layers, adapter.num_taps = (), num_taps
    assert choose_tap_layers(adapter, depth) == layers


@pytest.mark.parametrize("layers, blocks", [
    ((3, 7), (3, 7)), ((-1,), (11,)), ((3, -1), (3, 11)),
    ((-1, -1, -1), (11, 11, 11))])
def test_tap_layers_may_be_counted_from_the_end_and_repeated(layers, blocks):
    adapter = custom_config().adapter
    adapter.tap_layers = layers
    assert choose_tap_layers(adapter, 12) == blocks


@pytest.mark.parametrize("layers", [(3, 12), (-1, 3), (5, 3), (-13,)])
def test_tap_layers_outside_the_backbone_are_refused(layers):
    adapter = custom_config().adapter
    adapter.tap_layers = layers
    with pytest.raises(InputError, match=r"not descend.*0 \.\. 11, .*-12"):
        choose_tap_layers(adapter, 12)


def test_a_grid_of_taps_has_rows_and_columns():
    config, spec = custom_config(), VideoMaeSpec(**SIZES["vit_s"])
    config.adapter.tap_grid = (4, 9)
    assert tap_grid(config, spec) == (4, 7)  # no finer than 112 / 16 patches
    config.adapter.tap_grid = ()
    assert tap_grid(config, spec) == ()
    for wrong in ((4,), (2, 2, 2), (0, 4)):
        config.adapter.tap_grid = wrong
        with pytest.raises(InputError, match="give rows and columns"):
            tap_grid(config, spec)


@pytest.mark.parametrize("key, value, made", [
    ("head.head_kernel", 2, make_head_spec),
    ("head.input_noise", -1.0, make_head_spec),
    ("loss.label_smoothing", 2.0, make_head_spec),
    ("window.tokens", 0, make_head_spec),
    ("adapter.long_kernel", 2, make_adapter_spec),
    ("adapter.mlp_ratio", 0.0, make_adapter_spec),
    ("adapter.long_kernel", 2, inside_backbone_spec),
    ("adapter.drop_path", 1.0, inside_backbone_spec),
    ("evaluate.top_k", 0, decode_settings),
    ("evaluate.score_threshold", 2.0, decode_settings),
    ("evaluate.nms", "sotf", nms_settings),
    ("evaluate.nms_sigma", 0.0, nms_settings),
    ("evaluate.nms_iou_threshold", 2.0, nms_settings),
    ("evaluate.nms_min_score", -1.0, nms_settings),
    ("evaluate.max_detections", 0, nms_settings),
    ("evaluate.voting_threshold", 2.0, nms_settings)])
def test_a_refused_value_is_reported_by_its_config_key(key, value, made):
    config = custom_config()
    if made is inside_backbone_spec:
        config.adapter.kind = "tia"
    section, name = key.split(".")
    config[section][name] = value
    backbone = VideoMaeSpec(**SIZES["vit_s"])
    with pytest.raises(InputError, match=f"^config.{key}={value!r}: "):
        if made is make_head_spec:
            made(config, in_width=384, num_classes=3)
        elif made is make_adapter_spec:
            made(config, backbone, (6, 11))
        elif made is inside_backbone_spec:
            made(config.adapter, backbone)
        else:
            made(config.evaluate)


def test_a_window_must_hold_whole_clips():
    config = custom_config()
    config.window.clip_samples, config.window.samples = 16, 48
    assert window_clips(config) == 3
    config.window.samples = 50
    with pytest.raises(InputError, match="samples=50 .* take 48 or 64"):
        window_clips(config)


def test_windows_that_do_not_fit_the_head_are_refused():
    config = custom_config()
    config.window.tokens, config.head.num_levels = 48, 6
    spec = make_head_spec(config, in_width=8, num_classes=2)
    with pytest.raises(InputError, match="tokens=48 is no multiple of 32"):
        check_tokens(config, spec)
    check_tokens(config, object())  # a head without levels
    config.window.tokens = 64
    check_tokens(config, spec)


@pytest.mark.parametrize("key, value, message", [
    ("augment.size", 8, r"config.augment.size=\(8, 8\) is below the patch"),
    ("window.clip_samples", 15, "config.window.clip_samples=15 cannot be cut")])
def test_errors_of_a_described_backbone_name_the_config_keys(
        key, value, message):
    config = thumos.get_config("b")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        build_model(config, 2, build_mesh(custom_config()),
                    abstract=True)
