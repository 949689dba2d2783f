"""--mode=plan: memory, FLOPs and best-case time on chips that are not here.

The train and evaluation step of a config are compiled for a described
topology. Nothing is allocated, no weights are read.
"""

import dataclasses
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.load import load_class_names
from losa_jax.errors import InputError
from losa_jax.jobs.fit_config import fit_sizes
from losa_jax.jobs.setup import check_config, write_json
from losa_jax.models.backbones import SIZES
from losa_jax.planning.estimate import Need, estimate, trace_steps
from losa_jax.planning.topology import describe_devices
from losa_jax.training import build

# THUMOS' number, for configs without data.class_names.
DEFAULT_CLASSES = 20
_GIB, _TERA = 2**30, 1e12


@dataclasses.dataclass(frozen=True)
class Plan:
    """The result of `plan`."""

    topology: str
    mesh: dict[str, int]  # {axis: devices}
    chip_memory_bytes: float | None  # None if there is no limit
    fits: bool  # whether both steps do
    train: Need
    evaluate: Need


def plan(config: Any, topology: str, *, workdir: Path,
         output: Path | None = None) -> Plan:
    """Prints what a chip of a topology ("v5e:4x8") needs, and whether it fits.

    The config needs a backbone's name or sizes, because no checkpoint is
    read. `workdir` may hold the sizes of a run; `output` is a JSON file to
    write.

    Raises:
      InputError: values that cannot be, or no such topology.
    """
    check_config(config, keys=())
    _check_backbone(config.backbone)
    fit_sizes(config, workdir, None)
    chip, devices = describe_devices(topology)
    mesh = build.build_mesh(config, devices)
    names = config.data.class_names
    steps = trace_steps(
        config, len(load_class_names(names)) if names else DEFAULT_CLASSES,
        mesh)
    train, evaluate = (
        estimate(step, chip, len(devices), batch_bytes=batch_bytes)
        for step, batch_bytes in (
            (steps.train, steps.train_batch_bytes),
            (steps.evaluate, steps.evaluate_batch_bytes)))
    result = Plan(topology, dict(mesh.shape), chip.memory_bytes,
                  train.fits and evaluate.fits, train, evaluate)
    print(format_plan(config, result))
    if output is not None:
        write_json(output, dataclasses.asdict(result))
    return result


def _check_backbone(backbone: Any) -> None:
    missing = [key for key in ("width", "depth", "heads") if not backbone[key]]
    if missing and not backbone.name:
        raise InputError(
            "--mode=plan reads no checkpoint: set --config.backbone.name=NAME "
            f"(one of {', '.join(SIZES)}), or, for another size, also "
            + " ".join(f"--config.backbone.{key}=N" for key in missing))


def format_plan(config: Any, result: Plan) -> str:
    """Returns the text that the job prints."""
    memory = result.chip_memory_bytes
    mesh = " x ".join(f"{axis} {size}" for axis, size in result.mesh.items())
    limit = "" if memory is None else f", {memory / _GIB:.1f} GiB a chip"
    lines = [f"{result.topology}: mesh {mesh}{limit}; windows of "
             f"{config.window.samples} frames at {config.augment.size} pixels, "
             f"clip_overlap={config.window.clip_overlap}, "
             f"adapter.kind={config.adapter.kind}, chunk_clips="
             f"{config.backbone.chunk_clips}, {config.backbone.dtype}"]
    for title, need, windows in (
            ("train step", result.train, config.train.batch_windows),
            ("evaluation step", result.evaluate,
             build.evaluation_windows(config, result.mesh))):
        lines += [f"{title}, {windows} windows (compiled in "
                  f"{need.compile_seconds:.0f} s):", *_need_lines(need)]
    lines.append("fits" if result.fits
                 else "does NOT fit: " + _advice(config))
    return "\n".join(lines)


def _need_lines(need: Need) -> list[str]:
    lines = [f"  matrix products: {need.total_flops / _TERA:.3g} TFLOP a "
             f"step, {need.attention_flops / _TERA:.3g} of them attention; "
             f"{need.chip_flops / _TERA:.3g} a chip"]
    if need.best_seconds is not None:
        lines.append(f"  best case: {need.best_seconds:.3g} s a step, if a "
                     "chip reaches its rated FLOP/s and waits for nothing")
    sizes = need.argument_bytes, need.temporary_bytes, need.peak_bytes
    gib = [f"{size / _GIB:.2f}" for size in sizes if size is not None]
    if len(gib) < len(sizes):
        return [*lines, "  the compiler ran out of memory:",
                *(f"    {line[:150]}" for line in need.message.splitlines())]
    return [*lines, f"  memory of a chip: arguments {gib[0]} GiB, temporary "
            f"{gib[1]}, peak {gib[2]}"
            " (with the next batch)"
            + ("" if need.fits else ": more than it has")]


def _advice(config: Any) -> str:
    """Returns what to change, in the order of what it costs."""
    tips = []
    if config.backbone.dtype != "bfloat16":
        tips.append("--config.backbone.dtype=bfloat16")
    if config.backbone.chunk_clips != 1:
        tips.append("a smaller --config.backbone.chunk_clips")
    if config.adapter.kind in ("tia", "full"):
        if not config.adapter.remat_blocks:
            tips.append("--config.adapter.remat_blocks=True")
        tips.append("fewer --config.adapter.top_blocks, or adapter.kind=losa")
    if config.train.batch_windows > 1:
        tips.append("fewer --config.train.batch_windows and "
                    "--config.evaluate.batch_windows")
    tips.append("a larger --config.mesh.fsdp, or more chips")
    return "try " + "; ".join(tips)
