"""The measured start against its definition."""

import jax
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template, parameters
from losa_jax.training.calibrate import PATCH_DEVIATION, calibrate

SPEC = VideoMaeSpec(width=16, depth=2, heads=2, mlp_width=32, patch=8,
                    clip_frames=4, image_size=(16, 16), num_classes=3)


def _build():
    return VideoMae(SPEC, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def started():
    template = Template(_build)
    params = jax.jit(lambda: parameters(_build()))()
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (8, 4, 16, 16, 3), np.uint8)
               for _ in range(4)]
    return template, params, calibrate(template, params, batches), batches


def test_channels_have_the_requested_deviation(started):
    template, _, params, batches = started
    module = template.bind(params)
    clips = np.concatenate(batches)
    tokens = np.asarray(module.patch_tokens(clips)).reshape(-1, 16)
    np.testing.assert_allclose(tokens.std(0), PATCH_DEVIATION, rtol=1e-3)
    features = np.asarray(module.clip_features(clips))
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0), 1, rtol=1e-3)


def test_nothing_else_changes(started):
    _, before, after, _ = started
    jax.tree.map(np.testing.assert_array_equal,
                 {k: before[k] for k in ("blocks", "classifier")},
                 {k: after[k] for k in ("blocks", "classifier")})
    # The argument itself is as it was.
    np.testing.assert_array_equal(before["fc_norm"]["scale"], np.ones(16))
