"""A complete tiny model and a batch, for tests of the step.

Cached: compiling the step is most of these tests' time.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.distributed import sharding
from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec
from losa_jax.models.backbones.encode_windows import encode_windows
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.detector import Detector, FeatureStatistics
from losa_jax.models.heads.actionformer import (
    ActionFormer,
    ActionFormerSpec,
)
from losa_jax.models.ops.params import Template, parameters
from losa_jax.training import optimizer
from losa_jax.training.step import create_state, make_train_step


@functools.cache
def _tiny(mesh=None, deep_supervision=0.0):
    spec = VideoMaeSpec(width=64, depth=3, heads=2, mlp_width=128, patch=8,
                        clip_frames=4, image_size=(16, 16))
    backbone = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    # Jitted: hundreds of small arrays in one program.
    frozen = jax.jit(lambda: parameters(
        VideoMae(spec, rngs=nnx.Rngs(0))))()
    adapter = LosaSpec(in_width=64, width=8, num_taps=2, clip_tokens=2,
                       tap_grid=(2, 2), attention_heads=2)
    head = ActionFormerSpec(
        in_width=64, num_classes=3, width=16, num_levels=2,
        num_stem_blocks=1, num_embedding_convs=1, head_layers=2,
        attention_window=(5,), max_tokens=32, remat=True,
        regression_edges=(6.0,))

    def build():
        rngs = nnx.Rngs(1)
        return Detector(LosaAdapter(adapter, rngs=rngs),
                        ActionFormer(head, rngs=rngs), samples_per_token=1,
                        tubelet=2)

    # Windows of 32 frames are eight clips.
    shards, place = (((1, 1), None) if mesh is None
                     else sharding.clip_placement(mesh, 8))

    def encode(frozen, trained, inputs, valid_samples, key):
        return encode_windows(
            backbone.bind(frozen), inputs["frames"], taps=(1, 2),
            tap_grid=(2, 2), chunk_clips=2, shards=shards,
            clip_sharding=place)

    trained = jax.jit(lambda: parameters(build()))()
    transformation = optimizer.make_optimizer(
        lambda step: 1e-2, trained, weight_decay=0.05, gradient_clip=1.0,
        rate_factors={"^adapter/": 0.5})
    step = make_train_step(encode, Template(build), transformation,
                           ema_decay=0.9, ema_warmup=True,
                           deep_supervision=deep_supervision)
    statistics = FeatureStatistics(jnp.zeros(64), jnp.ones(64))
    state = create_state(trained, transformation, 10.0, statistics)
    return types.SimpleNamespace(
        encode=encode, step=jax.jit(step), state=state, frozen=frozen,
        detector=Template(build))


@pytest.fixture(scope="session")
def tiny_model():
    return _tiny


@pytest.fixture(scope="session")
def tiny_batch():
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(0, 256, (2, 32, 16, 16, 3), np.uint8),
        "valid_samples": np.array([32, 21], np.int32),
        "segments": np.array([[[3, 9], [12, 26]], [[2, 6], [0, 0]]],
                             np.float32),
        "labels": np.array([[0, 2], [1, 0]], np.int32),
        "action_valid": np.array([[True, True], [True, False]]),
    }


@pytest.fixture(scope="session")
def run_key():
    return jax.random.key(7)
