"""Tokens of overlapping clips are means over the clips that see them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.distributed import sharding
from losa_jax.models.backbones import backbone_template
from losa_jax.models.backbones.clip_overlap import mean_over_clips
from losa_jax.models.backbones.encode_windows import (
    WindowFeatures,
    encode_windows,
)
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.backbones.videoprism import VideoPrism, VideoPrismSpec
from losa_jax.models.backbones.vjepa2 import VJepa2, VJepa2Spec
from losa_jax.models.ops.params import parameters

SIZES = dict(width=24, depth=3, heads=2, patch=8, image_size=(16, 16),
             mlp_width=40)
SPECS = {
    "videomae": VideoMaeSpec(clip_frames=8, **SIZES),
    "vjepa2": VJepa2Spec(clip_frames=8, **SIZES),
    # Clips of an odd number of frames, each of which is a token.
    "videoprism": VideoPrismSpec(clip_frames=9, temporal_depth=1,
                                 position_frames=4, **SIZES)}
MODULES = {"videomae": VideoMae, "vjepa2": VJepa2, "videoprism": VideoPrism}
CLIPS = 8  # of a window without overlap


def _setup(family, seed=0):
    spec = SPECS[family]
    frames = np.random.default_rng(seed).integers(
        0, 256, (2, CLIPS * spec.clip_frames, 16, 16, 3), np.uint8)
    return spec, parameters(MODULES[family](spec, rngs=nnx.Rngs(0))), frames


def _encode(spec, params, frames, valid, step, *, dtype=jnp.float32,
            **settings):
    features = encode_windows(
        backbone_template(spec).bind(params), frames, taps=(0, 2),
        tap_grid=(1, 2), dtype=dtype, clip_step=step, **settings)

    def mean(x):
        return mean_over_clips(x, jnp.asarray(valid), spec.clip_frames,
                               step)

    return WindowFeatures(mean(features.last),
                          jax.lax.map(mean, features.taps))


def _one_by_one(spec, params, frames, valid, step):
    """Returns last [b, t, c] and taps [k, b, t, h, w, c] of plain loops."""
    clip, tubelet = spec.clip_frames, spec.tubelet

    @jax.jit
    def features(clip):
        one = backbone_template(spec).bind(params).features(
            clip[None], taps=(0, 2), tap_grid=(1, 2))
        return one.last[0], one.taps[:, 0]

    b, tokens = len(frames), frames.shape[1] // tubelet
    last = np.zeros((b, tokens, 24))
    taps, seen = np.zeros((2, b, tokens, 1, 2, 24)), np.zeros((b, tokens))
    for row, num_valid in enumerate(valid):
        end = max(clip, -(-num_valid // step) * step)
        for start in range(0, end - clip + 1, step):
            place = slice(start // tubelet, (start + clip) // tubelet)
            one, tapped = features(frames[row, start:start + clip])
            last[row, place] += one
            taps[:, row, place] += tapped
            seen[row, place] += 1
    seen = np.maximum(seen, 1)
    return last / seen[..., None], taps / seen[..., None, None, None]


@pytest.mark.parametrize("family, step", [
    ("videomae", 4), ("videomae", 2), ("vjepa2", 4), ("videoprism", 3),
    ("videoprism", 1)])
def test_tokens_are_means_over_clips_that_are_encoded_alone(family, step):
    spec, params, frames = _setup(family)
    samples = frames.shape[1]
    for valid in ((samples, samples - 2 * spec.clip_frames - 1),
                  (spec.clip_frames - 1, spec.clip_frames + 1), (1, 0)):
        got = jax.jit(lambda valid: _encode(
            spec, params, jnp.asarray(frames), valid, step, chunk_clips=4))(
                np.array(valid, np.int32))
        tokens = CLIPS, spec.clip_tokens
        assert got.last.shape == (2, *tokens, 24)
        assert got.taps.shape == (2, 2, *tokens, 1, 2, 24)
        want = _one_by_one(spec, params, frames, valid, step)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(np.reshape(one, other.shape), other,
                                       atol=1e-5)


def test_a_short_video_has_the_same_features_in_a_window_of_any_length():
    spec, params, frames = _setup("videomae")
    valid = np.array([23, 23], np.int32)
    long = _encode(spec, params, jnp.asarray(frames), valid, 4, chunk_clips=0)
    short = _encode(spec, params, jnp.asarray(frames[:, :24]), valid, 4,
                    chunk_clips=0)
    np.testing.assert_allclose(long.last[:, :3], short.last, atol=1e-5)
    np.testing.assert_allclose(long.taps[:, :, :3], short.taps, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 8, 1), (2, 1, 4), (2, 2, 2),
                                   (1, 1, 3)])
def test_devices_and_chunks_do_not_change_the_means(shape):
    spec, params, frames = _setup("vjepa2")
    valid = np.array([64, 27], np.int32)
    mesh = sharding.make_mesh(shape, jax.devices()[:np.prod(shape)])
    shards, place = sharding.clip_placement(mesh, CLIPS)
    batch = {"frames": frames, "valid_samples": valid}
    batch = sharding.put(batch, sharding.batch_shardings(batch, mesh))
    want = jax.jit(lambda: _encode(
        spec, params, jnp.asarray(frames), valid, 4, chunk_clips=0))()
    compiled = jax.jit(lambda params, batch: _encode(
        spec, params, batch["frames"], batch["valid_samples"], 4,
        chunk_clips=3, shards=shards, clip_sharding=place)).lower(
            params, batch).compile()
    got = compiled(params, batch)
    # Neighbors exchange what they share; nothing is gathered.
    for name in ("all-gather(", "all-to-all(", "all-reduce("):
        assert shape == (1, 1, 3) or name not in compiled.as_text()
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_means_are_float32_and_taps_have_the_compute_dtype():
    # Four clips of 4 samples see token 3; a sum in bfloat16 would lose the
    # ones beside 256.
    x = jnp.asarray([1.0, 256.0, 1.0, 2.0], jnp.bfloat16)
    x = jnp.zeros((1, 8, 4, 1), jnp.bfloat16).at[0, :4].set(x[:, None, None])
    mean = mean_over_clips(x, jnp.array([8]), 4, 1)
    assert mean.dtype == jnp.bfloat16 and mean.shape == (1, 2, 4, 1)
    assert float(mean.reshape(-1)[3]) == 65.0
    spec, params, frames = _setup("videomae")
    half = _encode(spec, params, jnp.asarray(frames),
                   np.array([64, 64], np.int32), 4, chunk_clips=0,
                   dtype=jnp.bfloat16)
    assert (half.last.dtype, half.taps.dtype) == (jnp.float32, jnp.bfloat16)


def test_no_gradient_enters_the_backbone():
    spec, params, frames = _setup("videomae")
    valid = np.array([64, 64], np.int32)

    def total(params):
        features = _encode(spec, params, jnp.asarray(frames), valid, 4,
                           chunk_clips=3)
        return features.last.sum() + features.taps.sum()

    assert not any(leaf.any() for leaf in jax.tree.leaves(
        jax.grad(total)(params)))


def test_without_overlap_the_program_is_that_of_clips_side_by_side():
    spec, params, frames = _setup("videomae")

    def program(**settings):
        return str(jax.make_jaxpr(lambda params, frames: encode_windows(
            backbone_template(spec).bind(params), frames, taps=(0, 2),
            tap_grid=None, chunk_clips=3, **settings))(params, frames))

    assert program(clip_step=8) == program(clip_step=0) == program()
    assert program(clip_step=4) != program()
