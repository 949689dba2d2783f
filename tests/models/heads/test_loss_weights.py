"""Both heads multiply the class loss of each point by its token's weight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.detection.losses import detection_loss, sigmoid_focal_loss
from losa_jax.detection.targets import Targets
from losa_jax.models.heads.actionformer import ActionFormer, ActionFormerSpec
from losa_jax.models.heads.tridet import TriDet, TriDetSpec

T, K, STRIDES = 32, 3, (1, 2, 4)
SEGMENTS = np.array([[[3, 9], [12, 30]], [[2, 6], [0, 0]]], np.float32)
LABELS = np.array([[0, 2], [1, 0]])
VALID = np.array([[True, True], [True, False]])


@functools.cache
def _head(name):
    if name == "actionformer":
        return ActionFormer(ActionFormerSpec(
            in_width=6, num_classes=K, width=16, num_levels=3,
            num_stem_blocks=1, num_embedding_convs=1, head_layers=2,
            attention_window=(5,), max_tokens=64), rngs=nnx.Rngs(0))
    return TriDet(TriDetSpec(
        in_width=6, num_classes=K, width=16, num_levels=3, sgp_window=(3,),
        sgp_k=1.5, sgp_mlp_width=24, num_bins=4, max_tokens=64),
        rngs=nnx.Rngs(0))


@functools.cache
def _outputs(name):
    x = np.random.default_rng(0).normal(size=(2, T, 6)).astype(np.float32)
    valid = np.arange(T)[None] < np.array([[T], [21]])
    return _head(name)(jnp.asarray(x * valid[..., None]), jnp.asarray(valid))


def _loss(name, weights, logits=None):
    head, outputs = _head(name), _outputs(name)
    if logits is not None:
        outputs = outputs._replace(class_logits=logits)
    targets = head.targets(outputs, *map(jnp.asarray, (
        SEGMENTS, LABELS, VALID)), None if weights is None
        else jnp.asarray(weights))
    return head.loss(outputs, targets, jnp.float32(20.0)), targets


@pytest.mark.parametrize("name", ["actionformer", "tridet"])
def test_the_loss_is_that_of_a_loop_over_points(name):
    weights = np.random.default_rng(1).choice(
        [0, 1, 3], (2, T, K)).astype(np.float32)
    loss, targets = _loss(name, weights)
    plain, without = _loss(name, None)
    assert without.weights is None
    logits, valid = (np.asarray(part, np.float64) for part in (
        _outputs(name).class_logits, _outputs(name).valid))
    iou = _class_iou(name, targets)
    total = 0.0
    for row in range(2):
        point = 0
        for stride in STRIDES:
            for token in range(0, T, stride):
                for label in range(K):
                    y = float(targets.classes[row, point, label])
                    p = 1 / (1 + np.exp(-logits[row, point, label]))
                    focal = (-0.25 * (1 - p) ** 2 * np.log(p) if y else
                             -0.75 * p ** 2 * np.log(1 - p))
                    total += (valid[row, point] * weights[row, token, label]
                              * focal * iou[row, point, label])
                point += 1
    np.testing.assert_allclose(
        float(loss.metrics["classification_loss"]),
        total / float(loss.normalizer), rtol=1e-4)
    # Boundaries and the number of positive points do not depend on weights.
    for key in ("regression_loss", "positive_points"):
        assert loss.metrics[key] == plain.metrics[key]
    assert loss.normalizer == plain.normalizer


def _class_iou(name, targets):
    """Returns the factor of TriDet's class loss, which is 1 elsewhere."""
    outputs = _outputs(name)
    if outputs.offsets.ndim == 3:
        return np.ones(outputs.class_logits.shape)
    predicted = np.asarray(outputs.offsets, np.float64)
    wanted = np.asarray(targets.offsets, np.float64)[:, :, None]
    shared = np.minimum(predicted, wanted).sum(-1)
    iou = shared / np.maximum((predicted + wanted).sum(-1) - shared, 1e-8)
    own = np.asarray(targets.classes > 0) & np.asarray(
        outputs.valid)[..., None]
    return np.where(own, np.maximum(iou, 1e-6) ** 0.2, 1.0)


@pytest.mark.parametrize("name", ["actionformer", "tridet"])
def test_weights_of_one_change_nothing(name):
    one, _ = _loss(name, np.ones((2, T, K), np.float32))
    other, _ = _loss(name, None)
    np.testing.assert_allclose(float(one.total), float(other.total), rtol=1e-6)


@pytest.mark.parametrize("name", ["actionformer", "tridet"])
def test_an_unknown_stretch_has_no_gradient_at_all(name):
    weights = np.ones((2, T, K), np.float32)
    weights[0, 16:28], weights[1, :, 0] = 0, 0
    logits = _outputs(name).class_logits

    gradient = np.asarray(jax.grad(
        lambda logits: _loss(name, weights, logits)[0].total)(logits))
    times = np.concatenate([np.arange(0, T, stride) for stride in STRIDES])
    unknown = (times >= 16) & (times < 28)
    assert not gradient[0, unknown].any()
    assert not gradient[1, :, 0].any()
    valid = np.asarray(_outputs(name).valid)
    assert gradient[0, ~unknown].all()
    assert gradient[1, valid[1], 1:].all()


def test_a_rejected_stretch_pulls_three_times_as_much():
    logits = jnp.zeros((1, 2, 1))
    targets = Targets(
        jnp.zeros((1, 2, 1)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2), bool),
        jnp.array([[[1.0], [3.0]]]))
    gradient = jax.grad(lambda logits: detection_loss(
        logits, jnp.zeros((1, 2, 2)), targets, jnp.ones((1, 2), bool),
        jnp.float32(1.0))[0])(logits).ravel()
    assert gradient[0] > 0
    np.testing.assert_allclose(gradient[1], 3 * gradient[0], rtol=1e-6)
    np.testing.assert_allclose(
        gradient[0], jax.grad(sigmoid_focal_loss)(
            jnp.float32(0.0), jnp.float32(0.0)),
        rtol=1e-6)
