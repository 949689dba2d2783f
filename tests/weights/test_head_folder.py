"""ActionFormer and TriDet against numbers of the public code.

Whole training steps and detections: targets and masks equal, activations and
losses within 2e-5 of the largest value, gradients within 1e-4.
"""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.nms import NmsSettings, suppress
from losa_jax.detection.segments import take
from losa_jax.detection.targets import level_points
from losa_jax.models.heads import HEADS, TriDetSpec
from losa_jax.models.ops.params import Template, flatten, nest
from losa_jax.training.optimizer import make_optimizer
from losa_jax.weights.head_names import from_public
from losa_jax.weights.head_settings import head_settings
from tests.detection.same_list import assert_same_list, stored_list

pytestmark = pytest.mark.shared
ACTIVATIONS, GRADIENTS = 2e-5, 1e-4


@pytest.fixture(scope="module", params=["actionformer_tiny", "tridet_tiny"])
def case(request, shared_dir):
    folder = shared_dir / "data/parity"
    data = np.load(folder / f"{request.param}.npz")
    config = json.loads((folder / f"{request.param}_config.json").read_text())
    settings = head_settings(config)
    head = HEADS[settings["kind"]]
    train = config["train_cfg"]
    edges = [high for _, high in config["model"]["regression_range"][:-1]]
    fields = {field.name for field in dataclasses.fields(head.spec)}
    spec = head.spec(**{
        name: value for name, value in {
            **settings, "reference_masking": True,
            "regression_edges": tuple(edges),
            "center_radius": (train["center_sample_radius"]
                              if train["center_sample"] == "radius"
                              else None),
            "label_smoothing": train["label_smoothing"],
            "regression_weight": train["loss_weight"],
            "iou_power": config["model"].get("iou_weight_power", 0.0),
        }.items() if name in fields})
    template = Template(lambda: head.module(spec, rngs=nnx.Rngs(0)))
    tree = nest(from_public({
        key.removeprefix("param/"): data[key] for key in data
        if key.startswith("param/")}))
    assert ({name: leaf.shape for name, leaf in flatten(tree).items()}
            == {name: leaf.shape for name, leaf
                in flatten(template.shapes).items()})
    return types.SimpleNamespace(data=data, config=config, spec=spec,
                                 settings=settings, template=template,
                                 tree=tree)


def _batch(case):
    data, tokens = case.data, case.spec.max_tokens
    count = sum(key.endswith("/feats") and key.startswith("in/")
                for key in data)
    x = np.zeros((count, tokens, case.spec.in_width), np.float32)
    valid = np.zeros((count, tokens), bool)
    most = max(len(data[f"in/{i}/labels"]) for i in range(count))
    segments = np.zeros((count, most, 2), np.float32)
    labels = np.zeros((count, most), np.int32)
    action_valid = np.zeros((count, most), bool)
    for i in range(count):
        features = data[f"in/{i}/feats"].T
        x[i, :len(features)], valid[i, :len(features)] = features, True
        number = len(data[f"in/{i}/labels"])
        segments[i, :number] = data[f"in/{i}/segments"]
        labels[i, :number] = data[f"in/{i}/labels"]
        action_valid[i, :number] = True
    return x, valid, segments, labels, action_valid


def _loss(case, tree, x, valid, actions, normalizer):
    head = case.template.bind(tree)
    outputs = head(x, valid)
    targets = head.targets(outputs, *actions)
    loss = head.loss(outputs, targets, normalizer)
    return loss.total, (loss, outputs, targets)


def _joined(data, prefix, levels, axis=1):
    return np.concatenate([data[f"{prefix}/{i}"] for i in range(levels)],
                          axis)


def _close(got, want, tolerance):
    np.testing.assert_allclose(got, want, rtol=0,
                               atol=tolerance * np.abs(want).max())


def test_levels_of_pyramid_and_neck(case):
    x, valid, *_ = _batch(case)

    def run(tree, x, valid):
        head = case.template.bind(tree)
        levels = head.pyramid(x, valid, None)
        return levels, head.neck(levels)

    levels, neck = jax.jit(run)(case.tree, x, valid)
    for i, ((one, mask), (two, _)) in enumerate(zip(levels, neck,
                                                    strict=True)):
        np.testing.assert_array_equal(mask,
                                      case.data[f"train/fpn_masks/{i}"])
        _close(np.swapaxes(one, 1, 2), case.data[f"train/backbone_feats/{i}"],
               ACTIVATIONS)
        _close(np.swapaxes(two, 1, 2), case.data[f"train/neck_feats/{i}"],
               ACTIVATIONS)


def test_raw_outputs_of_the_trident(case):
    if not isinstance(case.spec, TriDetSpec):
        pytest.skip("ActionFormer has no boundary heads")
    x, valid, *_ = _batch(case)

    @jax.jit
    def raw_outputs(tree, x, valid):
        head = case.template.bind(tree)
        levels, logits, offsets = head.raw_outputs(x, valid)
        return logits, offsets, *(
            [jnp.swapaxes(level, 1, 2) for level in boundary]
            for boundary in head.boundary_logits(levels))

    for name, levels in zip(("cls_logits", "offsets", "start_logits",
                             "end_logits"),
                            raw_outputs(case.tree, x, valid), strict=True):
        for i, got in enumerate(levels):
            _close(got, case.data[f"train/out_{name}/{i}"], ACTIVATIONS)


def test_a_training_step(case):
    data, count = case.data, case.spec.num_levels
    x, valid, *actions = map(jnp.asarray, _batch(case))

    @jax.jit
    def step(tree, x, normalizer):
        return jax.value_and_grad(
            lambda tree, x: _loss(case, tree, x, valid, actions, normalizer),
            argnums=(0, 1), has_aux=True)(tree, x)

    before = float(data["loss/normalizer_before"])
    (total, (loss, outputs, targets)), (gradient, input_gradient) = (
        step(case.tree, x, before))
    logits, offsets, mask = outputs
    for i in range(len(x)):
        np.testing.assert_array_equal(targets.classes[i],
                                      data[f"train/gt_cls_labels/{i}"])
        rows = np.asarray(targets.positive[i])
        _close(targets.offsets[i][rows], data[f"train/gt_offsets/{i}"][rows],
               1e-6)
    np.testing.assert_array_equal(mask & targets.positive,
                                  data["train/pos_mask"])
    assert mask.sum() == data["loss/num_valid"]
    assert loss.metrics["positive_points"] == data["loss/num_pos"]
    _close(logits, _joined(data, "train/out_cls_logits", count), ACTIVATIONS)
    decoded = ("train/decoded_offsets" if "train/decoded_offsets" in data
               else "train/out_offsets")
    want = (data[decoded] if decoded in data
            else _joined(data, decoded, count))
    _close(offsets, want, ACTIVATIONS)
    for name, got in (("cls_loss", loss.metrics["classification_loss"]),
                      ("reg_loss", loss.metrics["regression_loss"]),
                      ("final_loss", total),
                      ("normalizer_after", loss.normalizer)):
        _close(np.asarray(got), data[f"loss/{name}"], ACTIVATIONS)

    _close(np.swapaxes(input_gradient, 1, 2), data["grad_in"], GRADIENTS)
    wanted = flatten(nest(from_public({
        **{key.removeprefix("param/"): np.zeros_like(data[key])
           for key in data if key.startswith("param/")},
        **{key.removeprefix("grad/"): data[key] for key in data
           if key.startswith("grad/")}})))
    largest = max(np.abs(leaf).max() for leaf in wanted.values())
    for name, got in flatten(gradient).items():
        # The softmax does not see a bias of all keys: rounding alone.
        np.testing.assert_allclose(
            got, wanted[name], rtol=0, err_msg=name,
            atol=GRADIENTS * np.abs(wanted[name]).max() + 1e-6 * largest)
    norm = float(jax.jit(optax.tree.norm)(gradient))
    assert norm == pytest.approx(float(data["grad_norm"]), rel=1e-4)

    # One optimizer step.
    options = case.config["optimizer"]
    optimizer = make_optimizer(
        lambda step: options["learning_rate"], case.tree,
        weight_decay=options["weight_decay"],
        gradient_clip=options["clip_grad_l2norm"], rate_factors={})

    @jax.jit
    def updated(tree, gradient):
        updates, _ = optimizer.update(gradient, optimizer.init(tree), tree)
        return optax.apply_updates(tree, updates)

    after = updated(case.tree, gradient)
    # Adam divides by the gradient's own size: where that is rounding, the
    # step's sign is too; compared where it is not.
    stored = {key.removeprefix("param_after/"): data[key] for key in data
              if key.startswith("param_after/")}
    public = {key.removeprefix("param/"): data[key] for key in data
              if key.startswith("param/")}
    want_after = flatten(nest(from_public({**public, **stored})))
    touched = [name for name, leaf in want_after.items()
               if np.abs(leaf - flatten(case.tree)[name]).max() > 0]
    assert touched
    for name in touched:
        np.testing.assert_allclose(flatten(after)[name], want_after[name],
                                   atol=2e-6, rtol=0)
    (total, (loss, *_)), _ = step(after, x, loss.normalizer)
    for name, got in (("cls_loss", loss.metrics["classification_loss"]),
                      ("reg_loss", loss.metrics["regression_loss"]),
                      ("final_loss", total),
                      ("normalizer_after", loss.normalizer)):
        _close(np.asarray(got), data[f"step2/{name}"], ACTIVATIONS)


@pytest.mark.parametrize("which", ["infer", "infer_long"])
def test_detections(case, which):
    data, settings = case.data, case.config["test_cfg"]
    if f"{which}/padded_length" not in data:
        pytest.skip("the public code has no longer video here")
    source = (f"in/{int(data['infer/video'])}" if which == "infer"
              else "infer_long/in")
    features = data[f"{source}/feats"].T
    tokens = int(data[f"{which}/padded_length"])
    x = np.zeros((1, tokens, features.shape[1]), np.float32)
    x[0, :len(features)] = features
    valid = np.arange(tokens)[None] < len(features)
    decoding = DecodeSettings(
        score_threshold=settings["pre_nms_thresh"],
        top_k=settings["pre_nms_topk"], top_k_per_level=True,
        min_length_tokens=settings["duration_thresh"])

    @jax.jit
    def run(tree, x, valid):
        head = case.template.bind(tree)
        outputs = head(x, valid)
        return outputs, head.decode(outputs, decoding)

    outputs, window = jax.device_get(run(case.tree, x, valid))
    _close(outputs.class_logits[0],
           _joined(data, f"{which}/out_cls_logits", case.spec.num_levels, 0),
           ACTIVATIONS)
    window = take(jax.tree.map(lambda leaf: leaf[0], window), window.valid[0])
    before = stored_list(data, f"{which}/prenms")
    # Level after level, by descending score: the very order of the file.
    np.testing.assert_allclose(window.segments, before["segments"], rtol=1e-5,
                               atol=1e-4)
    np.testing.assert_allclose(window.scores, before["scores"], rtol=2e-5)
    np.testing.assert_array_equal(window.labels, before["labels"])
    kept, _ = suppress(window, case.spec.num_classes, NmsSettings(
        method=settings["nms_method"], per_class=settings["multiclass_nms"],
        sigma=settings["nms_sigma"], iou_threshold=settings["iou_threshold"],
        min_score=settings["min_score"], max_kept=settings["max_seg_num"],
        voting_threshold=settings["voting_thresh"],
        voting=("tridet" if isinstance(case.spec, TriDetSpec)
                else "actionformer")))
    assert_same_list(kept[:3], stored_list(data, f"{which}/nms"))
    fps, duration, stride, frames = data[f"{source}/meta"]
    seconds = np.clip((kept[0] * stride + 0.5 * frames) / fps, 0, duration)
    assert_same_list((seconds, *kept[1:3]),
                     stored_list(data, f"{which}/final"),
                     tolerance=0.02 * stride / fps)


def test_targets_use_the_same_points(case):
    for i, stride in enumerate(case.spec.strides):
        points = level_points(case.spec.max_tokens, case.spec.strides,
                              case.spec.regression_ranges)
        rows = np.flatnonzero(points.stride == stride)
        want = case.data[f"train/points/{i}"]
        got = np.stack([jnp.asarray(part)[rows] for part in points], 1)
        np.testing.assert_array_equal(got, want)
