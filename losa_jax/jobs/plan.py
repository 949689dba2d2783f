"""--mode=plan: does a config fit chips that are not here, and how fast?

Compiles the very train and evaluation step of the config for a described
topology. Nothing is allocated, no weights are read.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from losa_jax import timeline
from losa_jax.data.annotations.load import load_class_names
from losa_jax.distributed import sharding
from losa_jax.jobs.setup import write_json
from losa_jax.planning.abstract_steps import trace_steps
from losa_jax.planning.estimate import USUAL_SHARE, Need, estimate
from losa_jax.planning.topology import Chip, describe_devices

# Where the config names no classes: THUMOS' number.
DEFAULT_CLASSES = 20
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found.

    Attributes:
      topology: as asked.
      mesh: {axis: devices}.
      chip_memory_bytes: of one chip.
      fits: both steps do.
      train, evaluate: the steps; None for one that was not asked for.
    """

    topology: str
    mesh: dict[str, int]
    chip_memory_bytes: float
    fits: bool
    train: Need
    evaluate: Need | None


def plan(config: Any, topology: str, *, output: Path | None = None) -> Plan:
    """The job: prints what a chip needs, and whether it has it.

    Args:
      config: with a backbone's name or sizes; no checkpoint is read.
      topology: as "v5e:4x8" or "h100:8".
      output: JSON file to write; None writes none.

    Raises:
      InputError: a config that does not fit the topology.
    """
    chip, devices = describe_devices(topology)
    found = make_plan(config, topology, chip, devices)
    print(format_plan(config, found))
    if output is not None:
        write_json(output, plain_plan(found))
    return found


def plain_plan(found: Plan) -> dict[str, Any]:
    """For JSON, which has no infinity and no NaN."""
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if hasattr(value, "_asdict"):
            return plain(value._asdict())
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return plain(dataclasses.asdict(found))


def make_plan(config: Any, topology: str, chip: Chip, devices: list[Any], *,
              with_evaluation: bool = True) -> Plan:
    """Compiles the steps; arguments as `plan`."""
    mesh = sharding.make_mesh(sharding.mesh_shape(
        len(devices), shared_batch(config), window_clips(config),
        data=config.mesh.data, clip=config.mesh.clip,
        fsdp=config.mesh.fsdp), devices)
    names = config.data.class_names
    num_classes = len(load_class_names(names)) if names else DEFAULT_CLASSES
    steps = trace_steps(config, num_classes, mesh)
    needs = [estimate(one, chip, len(devices)) for one in (
        (steps.train, steps.evaluate) if with_evaluation
        else (steps.train,))]
    return Plan(topology, dict(mesh.shape), chip.memory_bytes,
                all(need.fits for need in needs), needs[0],
                needs[1] if with_evaluation else None)


def window_clips(config: Any) -> int:
    """Clips in a window."""
    return len(timeline.clip_edges(config.window.samples,
                                   config.window.clip_samples))


def shared_batch(config: Any) -> int:
    """Windows that both steps divide among `data`."""
    return math.gcd(config.train.batch_windows,
                    config.evaluate.batch_windows)


def format_plan(config: Any, found: Plan) -> str:
    """For people."""
    memory = found.chip_memory_bytes
    lines = [f"{found.topology}: mesh "
             + " x ".join(f"{axis} {size}"
                          for axis, size in found.mesh.items())
             + ("" if math.isinf(memory)
                else f", {memory / _GIB:.1f} GiB a chip")
             + f"; windows of {config.window.samples} frames at "
             f"{config.augment.size} pixels, adapter.kind="
             f"{config.adapter.kind}, chunk_clips="
             f"{config.backbone.chunk_clips}, {config.backbone.dtype}"]
    for title, need, windows in (
            ("train step", found.train, config.train.batch_windows),
            ("evaluation step", found.evaluate,
             config.evaluate.batch_windows)):
        if need is not None:
            lines += [f"{title}, {windows} windows, a chip (compiled in "
                      f"{need.compile_seconds:.0f} s):", *_need_lines(need)]
    lines.append("fits" if found.fits else "does NOT fit: " + _advice(config))
    return "\n".join(lines)


def _need_lines(need: Need) -> list[str]:
    sizes = need.argument_bytes, need.temporary_bytes, need.peak_bytes
    gib = [size / _GIB for size in sizes if size is not None]
    if len(gib) < len(sizes):
        lines = [f"  out of memory: {need.why_not}"]
    else:
        lines = [f"  memory: arguments {gib[0]:.2f} GiB, temporary "
                 f"{gib[1]:.2f}, peak {gib[2]:.2f}"
                 + ("" if need.fits else ": more than it has")]
    if need.largest:
        lines += ["  largest buffers:",
                  *(f"    {one[:150]}" for one in need.largest)]
    lines.append(f"  work: {need.flops / 1e12:.3g} TFLOP of matrix products")
    if need.peak_bytes is None:
        return lines
    lines[-1] += f", {need.memory_traffic / 1e9:.3g} GB to and from memory"
    lines += [f"  {kind}: {one.num_calls} of together "
              f"{one.total_bytes / 2**20:,.1f} MiB, largest "
              f"{one.largest_bytes / 2**20:,.1f} MiB"
              for kind, one in need.collectives.items()]
    if not math.isnan(need.best_seconds):
        lines.append(
            f"  roofline: {need.compute_seconds:.3g} s of products, "
            f"{need.memory_seconds:.3g} s of memory, "
            f"{need.link_seconds:.3g} s of links at the data sheet's figures;"
            f" {need.best_seconds:.3g} s if all overlap, "
            f"{need.cautious_seconds:.3g} s if nothing does and products "
            f"reach {100 * USUAL_SHARE:.0f} %")
    return lines


def _advice(config: Any) -> str:
    """What to change, what costs least first."""
    tips = []
    if config.backbone.dtype != "bfloat16":
        tips.append("--config.backbone.dtype=bfloat16")
    if config.backbone.chunk_clips != 1:
        tips.append("a smaller --config.backbone.chunk_clips")
    if config.adapter.kind in ("tia", "full"):
        if not config.adapter.remat_blocks:
            tips.append("--config.adapter.remat_blocks=True")
        tips.append("fewer --config.adapter.top_blocks, or adapter.kind=losa")
    if shared_batch(config) > 1:
        tips.append("fewer --config.train.batch_windows and "
                    "--config.evaluate.batch_windows")
    tips.append("a larger --config.mesh.fsdp, or more chips")
    return "try " + "; ".join(tips)
