"""Whether this machine's accelerator computes what a CPU computes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.common.made_up import make_batch, random_parameters
from configs import thumos
from losa_jax.detection.segments import iou_of_rows
from losa_jax.distributed import sharding
from losa_jax.models.ops.attention import attention
from losa_jax.training import build, specs
from losa_jax.training.encoder import encoder_inputs
from losa_jax.training.restore import fresh_state
from losa_jax.training.step import make_predict_step, make_train_step
from losa_jax.utils.xla_options import compiler_options

NUM_CLASSES = 20
# Largest differences relative to the largest value; of losses, relative. In
# bfloat16 both sides round, each in its own order.
ATTENTION_BOUNDS = {"float32": 5e-5, "bfloat16": 2e-2}
MODEL_BOUNDS = {"float32": {"features": 1e-4, "loss": 1e-4,
                            "gradients": 1e-3},
                "bfloat16": {"features": 5e-2, "loss": 5e-2,
                             "gradients": 2e-1}}
# Share of the CPU's detections that the accelerator has too, in float32.
LEAST_DETECTIONS = 0.98
# What XLA calls the kernels in a compiled program.
KERNELS = {"tpu_custom_call": "Pallas flash attention",
           "__cudnn$fmha": "cuDNN flash attention"}


def compare_attention(*, tokens: int, heads: int, channels: int, dtype: str,
                      clips: int = 2) -> dict[str, Any]:
    """Compares the model's attention, and its gradient, with the plain
    formula in float32 on the same device."""
    rng = np.random.default_rng(0)
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    place = NamedSharding(mesh, PartitionSpec())
    inputs = [jax.device_put(jnp.asarray(
        rng.normal(size=(clips, tokens, heads, channels)), dtype), place)
        for _ in range(4)]

    def ours(query, key, value):
        return attention(query, key, value, place=place)

    def with_gradients(function):
        def run(query, key, value, weight):
            out, back = jax.vjp(function, query, key, value)
            return out, back(weight.astype(out.dtype))
        return jax.jit(run)

    with jax.default_matmul_precision("highest"):
        compiled = with_gradients(ours).lower(*inputs).compile()
        expected = with_gradients(plain_attention)(
            *(one.astype(jnp.float32) for one in inputs))
    out, gradients = compiled(*inputs)
    text = compiled.as_text()
    kernel = next((name for mark, name in KERNELS.items() if mark in text),
                  "no kernel of its own")
    errors = {"output": relative_error(out, expected[0]),
              "gradients": max(map(relative_error, gradients, expected[1]))}
    return {"kernel": kernel, "errors": errors,
            "passed": max(errors.values()) <= ATTENTION_BOUNDS[dtype]}


def plain_attention(query: jax.Array, key: jax.Array, value: jax.Array
                    ) -> jax.Array:
    """Returns softmax attention by its formula."""
    scores = jnp.einsum("bqhd,bthd->bhqt", query, key)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("bhqt,bthd->bqhd", weights, value)


def compare_model(config: Any, dtype: str, adapter_type: str
                  ) -> dict[str, Any]:
    """Compares a train step and a prediction on all devices with one CPU."""
    config = config.copy_and_resolve_references()
    config.backbone.dtype, config.adapter.kind = dtype, adapter_type
    cpu = sharding.make_mesh((1, 1, 1), jax.devices("cpu")[:1])
    # The same numbers on both sides, from the CPU.
    parameters, batch = (jax.device_get(tree) for tree in (
        _parameters(config, cpu), make_batch(
            config, NUM_CLASSES, np.random.default_rng(0))))
    with jax.default_matmul_precision("highest"):
        expected = _results(config, cpu, parameters, batch)
        given = _results(config, build.build_mesh(config), parameters, batch)
    errors = {
        "features": max(map(relative_error, given["features"],
                            expected["features"])),
        "loss": relative_error(given["loss"], expected["loss"]),
        "gradients": max(map(relative_error,
                             jax.tree.leaves(given["gradients"]),
                             jax.tree.leaves(expected["gradients"])))}
    detections = shared_detections(given["segments"], expected["segments"])
    bounds = MODEL_BOUNDS[dtype]
    return {"errors": errors, "detections": detections, "passed": all(
        errors[name] <= bound for name, bound in bounds.items()) and (
        dtype != "float32" or detections >= LEAST_DETECTIONS)}


def parity_config(is_tiny: bool) -> Any:
    """Returns THUMOS's recipe of ViT-S with a short window."""
    config = thumos.get_config("s")
    config.window.samples = config.window.tokens = 64
    config.head.num_levels = 4
    if is_tiny:
        make_tiny(config)
    return config


def make_tiny(config: Any) -> None:
    """Makes the model of a recipe small enough for a test."""
    config.backbone.name = ""
    config.backbone.width, config.backbone.depth = 32, 2
    config.backbone.heads = 2
    config.augment.size = 32
    config.window.samples = config.window.tokens = 64
    config.adapter.width, config.adapter.tap_grid = 8, (2, 2)
    config.head.width, config.head.num_levels = 16, 2
    config.head.num_stem_blocks = config.head.head_layers = 1


def relative_error(given: Any, expected: Any) -> float:
    """Returns the largest difference relative to the largest value."""
    given, expected = (np.asarray(one, np.float32) for one in (given, expected))
    if not expected.size:
        return 0.0
    return float(np.abs(given - expected).max()
                 / max(np.abs(expected).max(), 1e-9))


def shared_detections(given: Any, expected: Any) -> float:
    """Returns the share of the expected detections that are given, too: of
    the same class and window, with a tIoU of 0.99 and a score within 1 %."""
    matched = total = 0
    for row in range(len(expected.scores)):
        theirs, ours = ([(*times, label, score) for times, label, score, valid
                         in zip(one.segments[row].tolist(),
                                one.labels[row].tolist(),
                                one.scores[row].tolist(),
                                one.valid[row].tolist(), strict=True) if valid]
                        for one in (expected, given))
        overlaps = iou_of_rows(theirs, ours)
        labels, scores = (
            [np.array([one[column] for one in rows]) for rows in (theirs, ours)]
            for column in (2, 3))
        near = np.abs(scores[0][:, None] - scores[1]) <= (
            0.01 * scores[0][:, None])
        same = labels[0][:, None] == labels[1]
        matched += int(((overlaps >= 0.99) & same & near).any(axis=1).sum())
        total += len(theirs)
    return matched / max(total, 1)


def _parameters(config: Any, mesh: Mesh) -> Any:
    model = build.build_model(config, NUM_CLASSES, mesh, abstract=True)
    return random_parameters(model.frozen), random_parameters(model.trained)


def _results(config: Any, mesh: Mesh, parameters: Any, batch: Any
             ) -> dict[str, Any]:
    """Returns features, loss, gradients and segments on the devices of a
    mesh, on the host."""
    model = build.build_model(config, NUM_CLASSES, mesh, abstract=True)
    frozen, trained = (sharding.put(tree, sharding.of_leaves(like))
                       for tree, like in zip(parameters, (
                           model.frozen, model.trained), strict=True))
    state, _ = fresh_state(config, dataclasses.replace(
        model, frozen=frozen, trained=trained), mesh, steps_per_epoch=1)
    # Its state after a step is the gradient.
    collector = optax.GradientTransformation(
        lambda tree: jax.tree.map(jnp.zeros_like, tree),
        lambda gradients, state, tree=None: (
            jax.tree.map(jnp.zeros_like, gradients), gradients))
    state = dataclasses.replace(state, optimizer=trained)
    batch = sharding.put_batch(batch, mesh, config.train.batch_windows)
    options = compiler_options(mesh)
    step = jax.jit(make_train_step(model.encode, model.detector, collector,
                                   ema_decay=0.999, ema_warmup=False),
                   compiler_options=options)
    predict = jax.jit(make_predict_step(
        model.encode, model.detector, specs.decode_settings(config.evaluate)),
        compiler_options=options)
    encode = jax.jit(lambda frozen, trained, batch: model.encode(
        frozen, trained, encoder_inputs(batch), batch["valid_samples"], None),
        compiler_options=options)
    key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
    stepped, metrics = step(state, frozen, batch, key)
    return jax.device_get({
        "features": jax.tree.leaves(encode(frozen, trained, batch)),
        "loss": metrics["loss"], "gradients": stepped.optimizer,
        "segments": predict(trained, state.statistics, frozen, batch)})
