"""VideoPrism against numbers of the public code, and its own contract."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import losa_jax
from losa_jax.errors import InputError
from losa_jax.models.backbones import backbone_size, size_name, videoprism
from losa_jax.models.ops.params import Template
from losa_jax.weights import backbone_folder
from tests.models.backbones.contract import check_family

TOLERANCE = 2e-5  # of an array's largest value
SPEC = videoprism.VideoPrismSpec(
    width=24, depth=5, heads=3, mlp_width=40, patch=8, clip_frames=4,
    image_size=(16, 24), temporal_depth=2, position_frames=5)
LVT = dataclasses.replace(SPEC, auxiliary_depth=1)
CASES = ("base", "more_frames", "fewer_frames", "larger", "smaller_wide")


def _close(got, want):
    assert got.shape == want.shape
    atol = TOLERANCE * np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def _converted(shared_dir, folder, name):
    source = shared_dir / f"data/parity/videoprism_{name}_ckpt.npz"
    backbone_folder.convert_backbone(source, folder)
    expected = np.load(
        shared_dir / f"data/parity/videoprism_{name}_expected.npz")
    return losa_jax.load_backbone(folder), expected


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_every_block_equals_the_public_model(shared_dir, tmp_path, case):
    backbone, expected = _converted(shared_dir, tmp_path / "out", "tiny")
    want = {key.removeprefix(f"{case}/out/"): expected[key]
            for key in expected if key.startswith(f"{case}/out/")}
    clips = jnp.asarray(expected[f"{case}/in/frames"])
    n, u, height, width, _ = clips.shape
    sizes = dict(n=n, u=u, h=height // 6, w=width // 6)
    _close(rearrange(backbone.encoder.embed(clips),
                     "n u h w c -> (n u) (h w) c"), want["patch"])
    tokens, _ = backbone.tokens(clips)
    _close(rearrange(tokens, "n u h w c -> n (u h w) c"), want["features"])
    features = backbone.features(clips, taps=(0, 1, 2, 3, 4), tap_norm=False)
    for tap, name in zip(features.taps, (
            "spatial_block0", "spatial_block1", "spatial_block2",
            "temporal_block0", "temporal_block1"), strict=True):
        layout = "(n u) (h w)" if "spatial" in name else "(n h w) u"
        _close(tap, rearrange(want[name], f"{layout} c -> n u h w c", **sizes))
    frames = rearrange(want["features"], "n (u s) c -> n u s c", u=u)
    _close(features.last, frames.mean(axis=2))
    _close(backbone.mean_features(clips), want["features"].mean(axis=1))


@pytest.mark.shared
def test_text_aligned_embeddings_equal_the_public_model(shared_dir, tmp_path):
    backbone, expected = _converted(shared_dir, tmp_path / "out", "tiny_lvt")
    want = {key.removeprefix("base/out/"): expected[key] for key in expected}
    clips = jnp.asarray(expected["base/in/frames"])
    features = backbone.features(clips, taps=(3, 4), tap_norm=False)
    for tap, name in zip(features.taps, ("auxiliary_block0",
                                         "auxiliary_block1"), strict=True):
        _close(rearrange(tap, "n u h w c -> n (u h w) c"), want[name])
    tokens, _ = backbone.tokens(clips)
    _close(backbone.pooled_frames(tokens), want["frame_pooled"])
    _close(backbone.pooled_clips(tokens), want["pooled"])
    _close(features.last, want["frame_embeddings"])
    _close(backbone.mean_features(clips), want["video_embeddings"])
    # Its video encoder alone, whose features are those before these blocks.
    encoder = videoprism.VideoPrism(dataclasses.replace(
        backbone.spec, depth=3, auxiliary_depth=0), rngs=nnx.Rngs(0))
    encoder.encoder = backbone.vision_encoder
    tokens, _ = encoder.tokens(clips)
    _close(rearrange(tokens, "n u h w c -> n (u h w) c"), want["features"])


@pytest.mark.shared
def test_half_precision_stays_near_the_public_model(shared_dir, tmp_path):
    backbone, expected = _converted(shared_dir, tmp_path / "out", "tiny")
    want = expected["base/out/features"].reshape(2, 4, 16, 32).mean(axis=2)
    got = backbone.features(jnp.asarray(expected["base/in/frames"]),
                            dtype="bfloat16").last
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize("spec", [SPEC, LVT])
def test_the_contract(spec, tmp_path):
    check_family(spec, tmp_path)


def _model(spec, seed=0):
    return videoprism.VideoPrism(spec, rngs=nnx.Rngs(seed))


def _clips(n=2, frames=4, height=16, width=24):
    return jnp.asarray(np.random.default_rng(0).integers(
        0, 256, (n, frames, height, width, 3), np.uint8))


@pytest.mark.parametrize("taps", [(0,), (2, 3), (1, 4), (3, 4), (2, 5),
                                  (0, 1, 2, 3, 4, 5)])
def test_taps_of_any_stack_keep_their_order(taps):
    model = _model(dataclasses.replace(LVT, depth=6, auxiliary_depth=1))
    every = model.features(_clips(), taps=tuple(range(6))).taps
    got = model.features(_clips(), taps=taps).taps
    np.testing.assert_allclose(got, every[np.array(taps)], atol=1e-5)


def test_spatial_blocks_see_one_frame_and_temporal_blocks_all():
    model = _model(SPEC)
    clips = _clips(1)
    other = clips.at[:, 3].set(255 - clips[:, 3])
    taps = (SPEC.spatial_depth - 1, SPEC.spatial_depth)
    before, after = (model.features(x, taps=taps).taps for x in (clips, other))
    np.testing.assert_array_equal(before[0, :, :3], after[0, :, :3])
    assert np.abs(before[1, :, :3] - after[1, :, :3]).max() > 1e-5


def test_pixels_that_no_patch_covers_are_left_out():
    model = _model(SPEC)
    clips = _clips(1, 4, 23, 31)
    np.testing.assert_array_equal(
        model.features(clips).last,
        model.features(clips[:, :, :16, :24]).last)


def test_stored_scales_of_norms_are_offsets_from_one():
    norm = videoprism.OffsetNorm(3, 1e-6)
    x = jnp.asarray([[1.0, 2.0, 6.0]])
    deviation = np.std([1, 2, 6])
    norm.scale[...] = jnp.asarray([0.0, 1.0, -1.0])
    norm.bias[...] = jnp.asarray([0.0, 0.0, 0.5])
    np.testing.assert_allclose(norm(x), [[-2 / deviation, -2 / deviation, 0.5]],
                               rtol=1e-5)


def test_clips_stay_on_their_devices():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    place = NamedSharding(mesh, PartitionSpec("data"))
    template = Template(lambda: _model(LVT))
    clips = jax.ShapeDtypeStruct((4, 4, 16, 24, 3), np.uint8, sharding=place)
    tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype,
        sharding=NamedSharding(mesh, PartitionSpec())), template.shapes)
    program = jax.jit(lambda tree, clips: template.bind(tree).features(
        clips, taps=(1, 4), place=place)).lower(tree, clips).compile()
    assert "all-" not in program.as_text()
    model = _model(LVT)
    want = model.features(_clips(4), taps=(1, 4))
    got = jax.jit(lambda clips: model.features(
        clips, taps=(1, 4), place=place))(jax.device_put(_clips(4), place))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
                 got, want)


def test_only_requested_taps_are_stored():
    """Compiled memory does not grow with the depth."""
    def bytes_of(depth, taps):
        spec = dataclasses.replace(SPEC, width=48, depth=depth)
        template = Template(lambda: _model(spec))
        return jax.jit(lambda tree, clips: template.bind(tree).features(
            clips, taps=taps)).lower(
            template.shapes, jax.ShapeDtypeStruct((4, 4, 64, 64, 3), "uint8")
        ).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(16, (14, 15)) <= 1.02 * bytes_of(4, (2, 3))


def test_public_sizes_have_the_published_parameters():
    counts = {}
    for name in videoprism.SIZES:
        spec = videoprism.VideoPrismSpec(**backbone_size(name))
        assert size_name(spec) == name
        shapes = Template(lambda spec=spec: _model(spec)).shapes
        counts[name] = sum(np.prod(leaf.shape)
                           for leaf in jax.tree.leaves(shapes))
    assert counts["videoprism_b"] == 114_365_184
    assert counts["videoprism_l"] == 353_965_056


def test_a_depth_without_spatial_blocks_is_refused():
    with pytest.raises(InputError, match="depth=2 leaves no spatial block"):
        dataclasses.replace(SPEC, depth=2)
    with pytest.raises(InputError, match="tubelet"):
        dataclasses.replace(SPEC, tubelet=2)
