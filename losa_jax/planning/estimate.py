"""Memory, FLOPs and best-case time of steps that are compiled but not run.

FLOPs are counted in the jaxpr, because `jax.experimental.roofline` (jax 0.10)
and a compiled program's `cost_analysis()` count the body of a loop only once.
"""

import dataclasses
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from losa_jax.distributed import sharding
from losa_jax.planning.topology import Chip
from losa_jax.training import build
from losa_jax.training.restore import fresh_state

_STEPS_PER_EPOCH = 100  # the schedule's length changes no shape
_MAX_ACTIONS = 64  # slots for the actions of a window
MAX_MESSAGE_LINES = 40  # of the compiler where memory does not suffice
# Triton's tile sizes can only be chosen on a GPU, so the library's matrix
# products are compiled. Memory is the same but for their small workspaces.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}


class Steps(NamedTuple):
    """The two functions of a run, ready to lower and compile; of the batch
    of each, the bytes on a chip."""

    train: jax.stages.Traced  # the update of train.batch_windows windows
    evaluate: jax.stages.Traced  # candidates of `evaluation_windows`
    train_batch_bytes: int
    evaluate_batch_bytes: int
    trained_count: int  # number of trained parameters


def trace_steps(config: Any, num_classes: int, mesh: Mesh) -> Steps:
    """Traces the train and the evaluation step for the devices of a mesh.

    No checkpoint is read, so the config needs the backbone's name or sizes.
    """
    model = build.build_model(config, num_classes, mesh, abstract=True)
    state, optimizer = fresh_state(config, model, mesh, _STEPS_PER_EPOCH)
    size = config.augment.size

    def batch(b, *names):
        shapes = {
            "frames": ((b, config.window.samples, size, size, 3), jnp.uint8),
            "valid_samples": ((b,), jnp.int32),
            "readable": ((b, mesh.shape["clip"] * mesh.shape["fsdp"]),
                         jnp.bool_),
            "segments": ((b, _MAX_ACTIONS, 2), jnp.float32),
            "labels": ((b, _MAX_ACTIONS), jnp.int32),
            "action_valid": ((b, _MAX_ACTIONS), jnp.bool_),
        }
        return {name: jax.ShapeDtypeStruct(
            *shapes[name], sharding=sharding.batch_sharding(
                name, shapes[name][0], mesh)) for name in names or shapes}

    key = jax.eval_shape(lambda: jax.random.key(0))
    key = key.update(sharding=sharding.replicated(mesh))
    train_batch = batch(config.train.batch_windows)
    evaluate_batch = batch(build.evaluation_windows(config, mesh.shape),
                           "frames", "valid_samples")
    train = build.jit_train_step(
        config, model, optimizer, state, mesh).trace(
            state, model.frozen, train_batch, key)
    evaluate = build.jit_predict_step(config, model, mesh).trace(
        state.ema, state.statistics, model.frozen, evaluate_batch)
    return Steps(train, evaluate, _bytes_on_chip(train_batch),
                 _bytes_on_chip(evaluate_batch), sum(
        leaf.size for leaf in jax.tree.leaves(state.trained)))


def _bytes_on_chip(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape))
               * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class Need:
    """What a step needs of a chip."""

    fits: bool  # in the chip's memory
    total_flops: int  # of matrix products, on all chips together
    attention_flops: int  # the part of them in softmax attention
    chip_flops: float  # of one chip, if they are spread evenly
    best_seconds: float | None  # for these at the rated FLOP/s, if known
    compile_seconds: float  # also of a failed compilation
    # Of one chip, the peak with the batch that is copied there for the next
    # step; None where the compiler ran out of memory, with its message.
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    message: str = ""


def estimate(traced: jax.stages.Traced, chip: Chip, num_devices: int, *,
             batch_bytes: int = 0) -> Need:
    """Compiles a traced step for devices that share the work.

    Running out of memory is a result, not an error. `batch_bytes` are those
    of the next batch on a chip.
    """
    total = matmul_flops(traced.jaxpr)
    on_chip = total / num_devices
    flops = (total, matmul_flops(traced.jaxpr, "attention"), on_chip,
             on_chip / chip.flops if chip.flops else None)
    started = time.perf_counter()
    try:
        memory = traced.lower().compile(
            compiler_options=GPU_OPTIONS if chip.gpu else None
            ).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Need(False, *flops, time.perf_counter() - started,
                    message="\n".join(lines[:MAX_MESSAGE_LINES]))
    peak = peak_bytes(memory) + batch_bytes
    fits = chip.memory_bytes is None or peak <= chip.memory_bytes
    return Need(fits, *flops, time.perf_counter() - started,
                memory.argument_size_in_bytes, memory.temp_size_in_bytes, peak)


def peak_bytes(memory: Any) -> int:
    """Returns the peak of a `compiled.memory_analysis()`.

    The CPU backend leaves temporary memory out of its own figure, in part or
    whole. Where that shows, the peak is all that the program touches, donated
    arguments once.
    """
    arrays = (memory.argument_size_in_bytes + memory.output_size_in_bytes
              - memory.alias_size_in_bytes)
    peak = memory.peak_memory_in_bytes
    temporary = memory.temp_size_in_bytes
    return peak if peak > max(arrays, temporary) else arrays + temporary


def matmul_flops(jaxpr: Any, scope: str = "") -> int:
    """Returns the FLOPs of matrix products and convolutions of all devices.

    A multiply-add is 2. Element-wise work, some percent of a transformer, is
    not counted. A scan counts `length` times, a Pallas kernel once a grid
    cell, the body of a `shard_map` once a shard. Of a `cond` the most
    expensive branch counts, of a `while` one iteration. With a `scope`, only
    the content of this `jax.named_scope` counts.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        # An inner jaxpr does not repeat the names of its outer scopes.
        inside = scope in str(equation.source_info.name_stack)
        name = equation.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            total += inside * _product_flops(equation)
        else:
            counts = [matmul_flops(inner, "" if inside else scope)
                      for inner in _inner_jaxprs(equation)]
            total += _repetitions(equation) * (
                max(counts) if name == "cond" else sum(counts))
    return total


def _product_flops(equation: Any) -> int:
    left, right = (operand.aval.shape for operand in equation.invars[:2])
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        depth = math.prod(left[axis] for axis in contracted)
    else:
        depth = math.prod(right) // right[numbers.rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * depth


def _inner_jaxprs(equation: Any) -> list[Any]:
    values: list[Any] = []
    for value in equation.params.values():
        values += value if isinstance(value, (tuple, list)) else (value,)
    return [value for value in values
            if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def _repetitions(equation: Any) -> int:
    """Returns how often the inner jaxpr runs, on all devices together."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        axes = {axis for spec in params["in_specs"] for part in spec if part
                for axis in ((part,) if isinstance(part, str) else part)}
        return math.prod(params["mesh"].shape[axis] for axis in axes)
    return 1
