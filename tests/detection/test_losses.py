"""Losses by hand, against float64 numpy, and against fixtures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.detection.losses import (
    detection_loss,
    distance_iou_loss,
    sigmoid_focal_loss,
)
from losa_jax.detection.targets import Targets


def test_focal_loss_by_hand():
    # p = 1/2: alpha (1 - 1/2)^2 log 2 on a positive, (1 - alpha) else.
    np.testing.assert_allclose(
        sigmoid_focal_loss(jnp.zeros(3), jnp.array([1.0, 0.0, 0.5])),
        [math.log(2) / 16, 3 * math.log(2) / 16, 2 * math.log(2) / 16],
        rtol=1e-6)
    # p = 3/4, another alpha and gamma.
    np.testing.assert_allclose(
        sigmoid_focal_loss(jnp.full(2, jnp.log(3.0)), jnp.array([1.0, 0.0]),
                           alpha=0.4, gamma=1.0),
        [0.4 / 4 * math.log(4 / 3), 0.6 * 3 / 4 * math.log(4)], rtol=1e-6)


def test_focal_loss_is_stable():
    logits = jnp.array([-200.0, -30.0, 30.0, 200.0])
    for target in (0.0, 1.0, 0.1):
        value, gradient = jax.value_and_grad(
            lambda x, y=target: sigmoid_focal_loss(x, jnp.full(4, y)).sum()
        )(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(
        sigmoid_focal_loss(logits, jnp.ones(4))[:2], [50, 7.5], rtol=1e-6)


def test_distance_iou_by_hand():
    predicted = jnp.array([[1.0, 1.0], [1.0, 3.0], [2.0, 5.0], [0.0, 0.0]])
    target = jnp.array([[2.0, 2.0], [2.0, 2.0], [2.0, 5.0], [1.0, 1.0]])
    # Row 1: overlap 3 of union 5, centers 1 apart, enclosing 5.
    np.testing.assert_allclose(
        distance_iou_loss(predicted, target),
        [0.5, 0.4 + 1 / 25, 0, 1], atol=1e-7)


def test_distance_iou_gradient_is_finite_everywhere():
    values = [0.0, 1e-12, 1e-6, 1.0, 1e4]
    pairs = jnp.array([[a, b] for a in values for b in values])
    predicted = jnp.repeat(pairs, len(pairs), axis=0)
    target = jnp.tile(pairs, (len(pairs), 1))
    loss, gradient = jax.value_and_grad(
        lambda x: distance_iou_loss(x, target).sum())(predicted)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def in_float64(logits, offsets, classes, target_offsets, valid, normalizer,
               smoothing=0.0, weight=1.0, momentum=0.9):
    """The loss, element by element: total, classification, regression."""
    num_positive = sum(valid[i] and classes[i].any()
                       for i in np.ndindex(valid.shape))
    normalizer = momentum * normalizer + (1 - momentum) * max(num_positive,
                                                              1)
    classification = regression = 0.0
    for i in np.ndindex(valid.shape):
        if not valid[i]:
            continue
        for logit, label in zip(logits[i], classes[i], strict=True):
            y = label * (1 - smoothing) + smoothing / (len(classes[i]) + 1)
            p = 1 / (1 + math.exp(-logit))
            entropy = -y * math.log(p) - (1 - y) * math.log(1 - p)
            p_target = p * y + (1 - p) * (1 - y)
            classification += ((0.25 * y + 0.75 * (1 - y))
                               * (1 - p_target)**2 * entropy)
        if classes[i].any():
            # As segments around a point at 0.
            start, end = -offsets[i][0], offsets[i][1]
            true_start, true_end = -target_offsets[i][0], target_offsets[i][1]
            overlap = min(end, true_end) - max(start, true_start)
            union = (end - start) + (true_end - true_start) - overlap
            enclosing = max(end, true_end) - min(start, true_start)
            centers = (start + end) / 2 - (true_start + true_end) / 2
            regression += 1 - overlap / union + (centers / enclosing)**2
    classification, regression = (classification / normalizer,
                                  regression / normalizer)
    if weight < 0:
        weight = classification / max(regression, 0.01)
    return classification + weight * regression, classification, regression


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    classes = (rng.random((2, 7, 3)) < 0.25).astype(np.float64)
    return {
        "logits": rng.normal(size=(2, 7, 3)) * 3,
        "offsets": rng.exponential(size=(2, 7, 2)),
        "classes": classes,
        "target_offsets": rng.exponential(size=(2, 7, 2)),
        "valid": rng.random((2, 7)) < 0.8,
    }


def ours(case, normalizer, **options):
    classes = jnp.asarray(case["classes"], jnp.float32)
    targets = Targets(classes, jnp.asarray(case["target_offsets"],
                                           jnp.float32),
                      classes.any(axis=-1))
    return detection_loss(
        jnp.asarray(case["logits"], jnp.float32),
        jnp.asarray(case["offsets"], jnp.float32), targets,
        jnp.asarray(case["valid"]), jnp.float32(normalizer), **options)


@pytest.mark.parametrize("smoothing, weight, momentum", [
    (0.0, 1.0, 0.9), (0.1, 2.0, 0.9), (0.1, -1.0, 0.5)])
def test_detection_loss_against_float64(smoothing, weight, momentum):
    case = random_case()
    num_positive = (case["classes"].any(-1) & case["valid"]).sum()
    assert 2 < num_positive < case["classes"].any(-1).sum()
    loss, parts = ours(case, 5.0, label_smoothing=smoothing,
                       regression_weight=weight, momentum=momentum)
    expected = in_float64(**case, normalizer=5.0, smoothing=smoothing,
                          weight=weight, momentum=momentum)
    np.testing.assert_allclose(
        [loss, parts.classification, parts.regression], expected, rtol=2e-6)
    assert float(parts.num_positive) == num_positive
    np.testing.assert_allclose(
        parts.normalizer, momentum * 5 + (1 - momentum) * num_positive,
        rtol=1e-6)


@pytest.mark.parametrize("name", ["logits", "offsets"])
def test_gradients_against_differences_in_float64(name):
    case = random_case(1)
    gradient = jax.grad(lambda x: ours(
        case | {name: x}, 5.0, label_smoothing=0.1, regression_weight=2.0
    )[0])(jnp.asarray(case[name], jnp.float32))
    expected = np.zeros_like(case[name])
    for i in np.ndindex(expected.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = case[name].copy()
            moved[i] += step
            ends.append(in_float64(**(case | {name: moved}), normalizer=5.0,
                                   smoothing=0.1, weight=2.0)[0])
        expected[i] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=1e-6)
    assert not np.asarray(gradient)[~case["valid"]].any()


def test_automatic_weight_has_no_gradient():
    case = random_case(2)
    _, parts = ours(case, 5.0)
    weight = float(parts.classification / parts.regression)

    def gradient(regression_weight):
        return jax.grad(lambda x: ours(
            case | {"logits": x}, 5.0,
            regression_weight=regression_weight)[0])(
                jnp.asarray(case["logits"], jnp.float32))

    np.testing.assert_allclose(gradient(-1.0), gradient(weight), rtol=1e-5)


def test_automatic_weight_of_a_tiny_regression():
    case = random_case(3)
    case["target_offsets"] = case["offsets"] * (1 + 1e-3)
    loss, parts = ours(case, 5.0, regression_weight=-1.0)
    assert float(parts.regression) < 0.01
    np.testing.assert_allclose(
        loss, parts.classification * (1 + parts.regression / 0.01),
        rtol=1e-6)


def test_values_on_padding_do_not_matter():
    case = random_case(4)
    loss, _ = ours(case, 5.0)
    other = {name: np.where(
        case["valid"][..., None], case[name], 77.0)
        for name in ("logits", "offsets", "classes", "target_offsets")}
    np.testing.assert_array_equal(
        ours(case | other, 5.0)[0], loss)


def test_no_action_at_all():
    case = random_case(5)
    case["classes"] = np.zeros_like(case["classes"])
    case["target_offsets"] = np.zeros_like(case["target_offsets"])
    case["offsets"] = np.zeros_like(case["offsets"])
    loss, parts = ours(case, 5.0)
    assert float(parts.regression) == 0 and float(parts.num_positive) == 0
    assert float(parts.normalizer) == pytest.approx(4.6)
    gradient = jax.grad(lambda x: ours(case | {"offsets": x}, 5.0)[0])(
        jnp.asarray(case["offsets"], jnp.float32))
    assert np.isfinite(loss) and not np.asarray(gradient).any()


def test_bfloat16_outputs_are_summed_in_float32():
    case = random_case(6)
    targets = Targets(jnp.asarray(case["classes"], jnp.float32),
                      jnp.asarray(case["target_offsets"], jnp.float32),
                      jnp.asarray(case["classes"].any(-1)))
    logits = jnp.asarray(case["logits"], jnp.bfloat16)
    offsets = jnp.asarray(case["offsets"], jnp.bfloat16)
    loss, _ = detection_loss(logits, offsets, targets,
                             jnp.asarray(case["valid"]), jnp.float32(5))
    expected = in_float64(**(case | {
        "logits": np.asarray(logits, np.float64),
        "offsets": np.asarray(offsets, np.float64)}), normalizer=5.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected[0], rtol=2e-6)


def fixture(shared_dir):
    """Outputs, targets and mask of ActionFormer's training step."""
    data = np.load(shared_dir / "data/parity/actionformer_tiny.npz")

    def joined(name):
        return jnp.concatenate([jnp.asarray(data[f"train/{name}/{level}"])
                                for level in range(4)], axis=1)

    classes, offsets = (
        jnp.stack([jnp.asarray(data[f"train/{name}/{video}"])
                   for video in range(2)])
        for name in ("gt_cls_labels", "gt_offsets"))
    targets = Targets(classes, offsets, classes.any(axis=-1))
    return (data, joined("out_cls_logits"), joined("out_offsets"), targets,
            joined("fpn_masks"))


@pytest.mark.shared
def test_reference_losses(shared_dir):
    data, logits, offsets, targets, valid = fixture(shared_dir)
    loss, parts = jax.jit(detection_loss)(
        logits, offsets, targets, valid,
        jnp.float32(data["loss/normalizer_before"]))
    assert int(parts.num_positive) == data["loss/num_pos"]
    np.testing.assert_allclose(
        [loss, parts.classification, parts.regression, parts.normalizer],
        [data["loss/final_loss"], data["loss/cls_loss"],
         data["loss/reg_loss"], data["loss/normalizer_after"]], rtol=2e-5)


@pytest.mark.shared
def test_reference_gradients(shared_dir):
    """Through the last layers only, whose gradients are short sums.

    The class bias is added to every valid logit; the scale s of a level
    multiplies what becomes offset = ReLU(s x), so s dL/ds = sum of
    offset dL/doffset.
    """
    data, logits, offsets, targets, valid = fixture(shared_dir)
    to_logits, to_offsets = jax.grad(
        lambda logits, offsets: detection_loss(
            logits, offsets, targets, valid,
            jnp.float32(data["loss/normalizer_before"]))[0],
        argnums=(0, 1))(logits, offsets)
    expected = data["grad/cls_head.cls_head.conv.bias"]
    np.testing.assert_allclose(to_logits.sum(axis=(0, 1)), expected,
                               atol=2e-5 * np.abs(expected).max())

    products = np.asarray(to_offsets * offsets).sum(axis=(0, 2))
    level_ends = np.cumsum([192, 96, 48, 24])[:-1]
    ours_by_level = [level.sum() for level in np.split(products, level_ends)]
    expected = [float(data[f"param/reg_head.scale.{level}.scale"]
                      * data[f"grad/reg_head.scale.{level}.scale"])
                for level in range(4)]
    np.testing.assert_allclose(ours_by_level, expected,
                               atol=2e-5 * np.abs(expected).max())
