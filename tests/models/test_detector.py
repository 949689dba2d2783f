"""The whole model on tiny sizes: chunks, shards, padding, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec
from losa_jax.models.backbones.encode_windows import (
    WindowFeatures,
    encode_windows,
)
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.detector import (
    Detector,
    FeatureStatistics,
    resize_valid_time,
    valid_steps,
)
from losa_jax.models.heads.actionformer import (
    ActionFormer,
    ActionFormerSpec,
)
from losa_jax.models.ops.params import Template, flatten, nest, parameters

SPEC = VideoMaeSpec(width=24, depth=4, heads=2, mlp_width=48, patch=8,
                    clip_frames=4, image_size=(16, 16))


@pytest.fixture(scope="module")
def backbone():
    model = VideoMae(SPEC, rngs=nnx.Rngs(0))
    # Features of order one, for which the tolerances are meant.
    model.blocks.attn.proj.kernel[...] *= 0.5
    model.blocks.mlp.fc2.kernel[...] *= 0.5
    return model


def _frames(b=2, f=16):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (b, f, 16, 16, 3), np.uint8)


def _encode(backbone, frames, **changes):
    arguments = dict(taps=(1, 3), tap_grid=(2, 2), chunk_clips=0)
    return encode_windows(backbone, jnp.asarray(frames),
                          **{**arguments, **changes})


@pytest.mark.parametrize("chunk_clips", [1, 2, 3, 8])
@pytest.mark.parametrize("shards", [(1, 1), (1, 2), (2, 2)])
def test_chunks_and_shards_change_nothing(backbone, chunk_clips, shards):
    frames = _frames()
    whole = _encode(backbone, frames)
    parts = _encode(backbone, frames, chunk_clips=chunk_clips, shards=shards)
    assert whole.last.shape == (2, 4, 2, 24)
    assert whole.taps.shape == (2, 2, 4, 2, 2, 2, 24)
    np.testing.assert_allclose(parts.last, whole.last, atol=2e-6)
    np.testing.assert_allclose(parts.taps, whole.taps, atol=2e-6)


def test_each_clip_is_seen_alone(backbone):
    frames = _frames()
    changed = frames.copy()
    changed[1, 8:12] = 0  # the third clip of the second window
    difference = np.abs(_encode(backbone, frames).last
                        - _encode(backbone, changed).last).max((2, 3))
    assert difference[1, 2] > 1e-3
    difference[1, 2] = 0
    np.testing.assert_array_equal(difference, 0)


def test_no_gradient_enters_the_backbone(backbone):
    template = Template(lambda: VideoMae(SPEC, rngs=nnx.Rngs(0)))
    tree = parameters(backbone)

    def total(tree):
        features = _encode(template.bind(tree), _frames())
        return features.last.sum() + features.taps.sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(tree)):
        np.testing.assert_array_equal(leaf, 0)


def _detector(kind="losa", tokens=16):
    adapter = LosaSpec(in_width=24, width=8, num_taps=2, clip_tokens=2,
                       tap_grid=(2, 2), attention_heads=2)
    head = ActionFormerSpec(in_width=24, num_classes=3, width=16,
                            num_levels=3, attention_window=(5,),
                            max_tokens=tokens)

    def build():
        rngs = nnx.Rngs(3)
        return Detector(
            LosaAdapter(adapter, rngs=rngs) if kind == "losa" else None,
            ActionFormer(head, rngs=rngs), samples_per_token=16 / tokens,
            tubelet=2)

    return build


def _statistics():
    return FeatureStatistics(jnp.full(24, 0.1), jnp.full(24, 2.0))


@pytest.mark.parametrize("tokens", [8, 16])
def test_step_zero_of_losa_is_the_head_only_model(backbone, tokens):
    features = _encode(backbone, _frames())
    samples = jnp.asarray([16, 11])
    losa = _detector("losa", tokens)()
    head_only = Template(_detector("none", tokens)).bind(
        {"head": parameters(losa)["head"]})
    got = losa(features, _statistics(), samples)
    want = head_only(features, _statistics(), samples)
    np.testing.assert_array_equal(got.class_logits, want.class_logits)
    np.testing.assert_array_equal(got.offsets, want.offsets)


def test_statistics_standardize_the_head_input(backbone):
    features = _encode(backbone, _frames())
    detector = _detector("none")()
    scaled = WindowFeatures(features.last * 2.0 + 0.1, features.taps)
    plain = FeatureStatistics(jnp.zeros(24), jnp.ones(24))
    samples = jnp.asarray([16, 16])
    got = detector(scaled, _statistics(), samples)
    want = detector(features, plain, samples)
    np.testing.assert_allclose(got.class_logits, want.class_logits,
                               atol=1e-5)


@pytest.mark.parametrize("tokens", [8, 16])
def test_outputs_do_not_depend_on_the_pad_length(backbone, tokens):
    flat = flatten(parameters(_detector("losa", tokens)()))
    rng = np.random.default_rng(1)
    tree = nest({name: leaf + 0.2 * rng.normal(size=leaf.shape).astype(
        np.float32) for name, leaf in flat.items()})
    frames = _frames(1, 16)
    frames[:, 6:] = frames[:, 5:6]  # padding repeats the last real frame
    results = []
    for clips in (2, 3, 4):
        features = _encode(backbone, frames[:, :clips * 4])
        length = clips * 4 * tokens // 16
        head_tokens = -(-length // 4) * 4
        model = Template(_detector("losa", tokens)).bind(tree)
        model.window_tokens = head_tokens
        if head_tokens != length:
            continue
        output = jax.jit(model)(features, _statistics(), jnp.asarray([6]))
        valid = np.asarray(output.valid[0])
        results.append((np.asarray(output.class_logits[0])[valid],
                        np.asarray(output.offsets[0])[valid]))
    assert len(results) >= 2
    for logits, offsets in results[1:]:
        np.testing.assert_allclose(logits, results[0][0], atol=3e-6)
        np.testing.assert_allclose(offsets, results[0][1], atol=3e-6)


class _Input(nnx.Module):
    """A head whose outputs are what it reads."""

    def __call__(self, x, valid, key=None):
        return x, valid


@pytest.mark.parametrize("samples", [7, 12, 13, 16])
def test_the_input_of_a_head_is_zero_after_the_last_real_sample(samples):
    # 4 backbone tokens of 4 samples to 8 of the head's, of 2 samples.
    last = jnp.ones((1, 2, 2, 3))
    detector = Detector(None, _Input(), samples_per_token=2.0, tubelet=4)
    x, valid = detector(
        WindowFeatures(last, jnp.zeros((0, 1, 2, 2, 0, 0, 3))),
        FeatureStatistics(jnp.zeros(3), jnp.ones(3)), jnp.array([samples]))
    assert x.shape == (1, 8, 3) and int(valid.sum()) == -(-samples // 2)
    np.testing.assert_array_equal(x[..., 0] != 0, valid)


def test_valid_steps_by_hand():
    got = valid_steps(jnp.asarray([0, 1, 4, 5]), 3, 2)
    np.testing.assert_array_equal(got, [
        [False, False, False], [True, False, False],
        [True, True, False], [True, True, True]])


def test_resizing_ignores_padding():
    x = jnp.asarray([[[1.0], [3.0], [99.0], [99.0]]])
    valid = jnp.asarray([[[True, True, False, False]]])
    got = resize_valid_time(x, valid, 8)[0, :4, 0]
    np.testing.assert_allclose(got, [1.0, 1.5, 2.5, 3.0], atol=1e-5)


@pytest.mark.parametrize("tap_pool, grid", [
    ("grid", (1, 1)), ("attention", (2, 2))])
def test_train_memory_is_that_of_the_forward_pass(tap_pool, grid):
    """The claim of the paper, on the compiled program: a deeper frozen
    backbone adds nothing to the temporary memory of a train step."""
    def temporary_bytes(depth, with_gradient):
        spec = VideoMaeSpec(width=64, depth=depth, heads=2, mlp_width=256,
                            patch=8, clip_frames=4, image_size=(64, 64))
        template = Template(
            lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
        adapter = LosaSpec(in_width=64, width=8, num_taps=2, clip_tokens=2,
                           tap_grid=grid, attention_heads=2,
                           tap_pool=tap_pool)
        head = ActionFormerSpec(in_width=64, num_classes=3, width=16,
                                num_levels=2, attention_window=(5,),
                                max_tokens=64)
        detector = Template(lambda: Detector(
            LosaAdapter(adapter, rngs=nnx.Rngs(0)),
            ActionFormer(head, rngs=nnx.Rngs(1)), samples_per_token=1,
            tubelet=2))
        statistics = FeatureStatistics(jnp.zeros(64), jnp.ones(64))

        def loss(trained, frozen, frames):
            features = encode_windows(
                template.bind(frozen), frames,
                taps=(depth - 2, depth - 1), tap_grid=grid,
                chunk_clips=16)
            output = detector.bind(trained)(features, statistics,
                                            jnp.asarray([64]))
            return output.class_logits.sum() + output.offsets.sum()

        function = jax.grad(loss) if with_gradient else loss
        compiled = jax.jit(function).lower(
            detector.shapes, template.shapes,
            jax.ShapeDtypeStruct((1, 64, 64, 64, 3), np.uint8)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    forward, training = (temporary_bytes(8, grad) for grad in (False, True))
    assert training <= 1.25 * forward
    assert temporary_bytes(24, True) <= 1.02 * training
