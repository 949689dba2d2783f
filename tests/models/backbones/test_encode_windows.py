"""Windows are encoded in chunks, and taps take their memory once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.distributed import sharding
from losa_jax.models.backbones import backbone_template
from losa_jax.models.backbones.encode_windows import encode_windows
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import parameters

SPEC = VideoMaeSpec(width=24, depth=3, heads=2, mlp_width=40, patch=8,
                    clip_frames=4, image_size=(16, 16))


def _parameters():
    return parameters(VideoMae(SPEC, rngs=nnx.Rngs(0)))


def _encode(params, frames, **settings):
    return encode_windows(
        backbone_template(SPEC).bind(params), frames, taps=(0, 2),
        tap_grid=None, **settings)


@pytest.mark.parametrize("chunk_clips", [0, 1, 3, 6])
@pytest.mark.parametrize("shape", [None, (2, 1, 1), (2, 3, 1), (1, 2, 3)])
def test_chunks_and_devices_do_not_change_the_features(chunk_clips, shape):
    frames = jnp.array(np.random.default_rng(0).integers(
        0, 256, (2, 4 * 6, 16, 16, 3), np.uint8))
    params = _parameters()
    whole = jax.jit(lambda: _encode(params, frames, chunk_clips=0))()
    settings = {}
    if shape is not None:
        mesh = sharding.make_mesh(shape, jax.devices()[:np.prod(shape)])
        settings["shards"], settings["clip_sharding"] = (
            sharding.clip_placement(mesh, 6))
    got = jax.jit(lambda: _encode(params, frames, chunk_clips=chunk_clips,
                                  **settings))()
    for one, other in zip(got, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_taps_are_held_once():
    """The compiler needs less room than the taps, beside the taps."""
    frames = jax.ShapeDtypeStruct((2, 4 * 256, 16, 16, 3), np.uint8)
    program = jax.jit(lambda params, frames: _encode(
        params, frames, chunk_clips=4, dtype=jnp.bfloat16))
    taps = jax.eval_shape(program, _parameters(), frames).taps
    memory = program.lower(_parameters(), frames).compile().memory_analysis()
    assert taps.dtype == jnp.bfloat16
    assert memory.output_size_in_bytes > taps.size * 2
    assert memory.temp_size_in_bytes < taps.size * 2
