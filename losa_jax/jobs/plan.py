"""--mode=plan: does a config fit chips that are not here, and how fast?

Compiles the very train step and prediction of the config for a described
topology. Nothing is allocated, no weights are read.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax

from losa_jax import timeline
from losa_jax.data.annotations import load_class_names
from losa_jax.errors import InputError
from losa_jax.jobs.setup import write_json
from losa_jax.training import sharding
from losa_jax.training.cost import collectives
from losa_jax.training.describe import lower_steps
from losa_jax.training.topology import Chip, describe_devices

# Where the config names no classes: THUMOS' number.
DEFAULT_CLASSES = 20
# What large matrix products reach of the data sheet's FLOP/s in practice.
USUAL_SHARE = 0.4
# Lines of the compiler's list of buffers that are shown.
MAX_BUFFERS = 8


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program on one chip; None where it does not fit.

    Attributes:
      argument_bytes, temporary_bytes, peak_bytes: memory.
      collectives: {kind: (count, bytes, largest)}, loops counted once.
      why_not: the compiler's words where it ran out of memory.
    """

    argument_bytes: int | None
    temporary_bytes: int | None
    peak_bytes: int | None
    collectives: dict[str, tuple[int, int, int]]
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found.

    Attributes:
      topology: as asked.
      mesh: {axis: devices}.
      chip_memory_bytes: of one chip.
      fits: both programs do.
      flops_a_chip: of a train step, matrix products.
      seconds_at_best, seconds_usual: of a train step by FLOPs alone, at all
        and at `USUAL_SHARE` of the data sheet's FLOP/s.
      train, predict: the programs.
    """

    topology: str
    mesh: dict[str, int]
    chip_memory_bytes: float
    fits: bool
    flops_a_chip: float
    seconds_at_best: float
    seconds_usual: float
    train: Program
    predict: Program


def plan(config: Any, topology: str, *, output: Path | None = None) -> Plan:
    """The job: prints what a chip needs, and whether it has it.

    Args:
      config: with a backbone's name or sizes; no checkpoint is read.
      topology: as "v5e:4x8".
      output: JSON file to write; None writes none.

    Raises:
      InputError: a config that does not fit the topology.
    """
    chip, devices = describe_devices(topology)
    found = make_plan(config, topology, chip, devices)
    print(format_plan(config, found))
    if output is not None:
        write_json(output, dataclasses.asdict(found))
    return found


def make_plan(config: Any, topology: str, chip: Chip, devices: list[Any]
              ) -> Plan:
    """Compiles both programs; arguments as `plan`."""
    clips = len(timeline.clip_edges(config.window.frames,
                                    config.window.clip_frames))
    mesh = sharding.make_mesh(sharding.mesh_shape(
        len(devices), config.train.batch_windows, clips,
        data=config.mesh.data, clip=config.mesh.clip,
        fsdp=config.mesh.fsdp), devices)
    names = config.data.class_names
    num_classes = len(load_class_names(names)) if names else DEFAULT_CLASSES
    lowered = lower_steps(config, num_classes, mesh)
    programs = [_compile(one) for one in (lowered.train_step,
                                          lowered.forward)]
    fits = all(program.peak_bytes is not None
               and program.peak_bytes <= chip.memory_bytes
               for program in programs)
    flops = lowered.train_flops / len(devices)
    return Plan(topology, dict(mesh.shape), chip.memory_bytes, fits, flops,
                flops / chip.flops, flops / chip.flops / USUAL_SHARE,
                *programs)


def _compile(lowered: jax.stages.Lowered) -> Program:
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Program(None, None, None, {}, str(error))
    memory = compiled.memory_analysis()
    print(f"compiled in {time.perf_counter() - started:.0f} s", flush=True)
    return Program(memory.argument_size_in_bytes, memory.temp_size_in_bytes,
                   memory.peak_memory_in_bytes,
                   {kind: tuple(one) for kind, one
                    in collectives(compiled.as_text()).items()})


def format_plan(config: Any, found: Plan) -> str:
    """For people."""
    lines = [f"{found.topology}: mesh {found.mesh}, "
             f"{found.chip_memory_bytes / 2**30:.1f} GiB a chip; batch "
             f"{config.train.batch_windows} windows of "
             f"{config.window.frames} frames, chunk_clips "
             f"{config.backbone.chunk_clips}, {config.backbone.dtype}"]
    for name, program in (("train step", found.train),
                          ("prediction", found.predict)):
        if program.peak_bytes is None:
            lines += [f"{name}: does not fit", *_buffers(program.why_not)]
            continue
        lines.append(
            f"{name}, a chip: arguments "
            f"{program.argument_bytes / 2**30:.2f} GiB, temporary "
            f"{program.temporary_bytes / 2**30:.2f}, peak "
            f"{program.peak_bytes / 2**30:.2f}")
        lines += [f"  {kind}: {count}, {total / 2**20:.1f} MiB, largest "
                  f"{largest / 2**20:.1f} MiB (inside loops counted once)"
                  for kind, (count, total, largest)
                  in program.collectives.items()]
    lines.append(
        f"train step: {found.flops_a_chip / 1e12:.2f} TFLOP a chip "
        f"(matrix products), {found.seconds_at_best:.3g} s at the data "
        f"sheet's bfloat16 FLOP/s, {found.seconds_usual:.3g} s at "
        f"{100 * USUAL_SHARE:.0f} % of it; memory and links not counted")
    lines.append("fits" if found.fits else "does NOT fit: " + _advice(config))
    return "\n".join(lines)


def _buffers(message: str) -> list[str]:
    """The compiler's total and its largest buffers."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    shown = [line for line in lines if "exceed" in line.lower()
             or line.startswith(("Size:", "Shape:", "Operator:"))]
    return [f"  {line[:160]}" for line in (shown or lines)[:MAX_BUFFERS]]


def _advice(config: Any) -> str:
    tips = []
    if config.backbone.chunk_clips != 1:
        tips.append("a smaller --config.backbone.chunk_clips")
    if config.adapter.kind in ("tia", "full"):
        if not config.adapter.checkpoint_blocks:
            tips.append("--config.adapter.checkpoint_blocks=True")
        tips.append("fewer --config.adapter.top_blocks, or adapter.kind=losa")
    if config.backbone.dtype != "bfloat16":
        tips.append("--config.backbone.dtype=bfloat16")
    tips.append("more chips, or --config.mesh.fsdp")
    return "try " + "; ".join(tips)


def sweep_plans(config: Any, topology: str,
                chunks: tuple[int, ...] = (1, 4, 16)) -> list[Plan]:
    """Meshes x clips in flight; prints a table, the best that fits first.

    Raises:
      InputError: no mesh fits the config.
    """
    chip, devices = describe_devices(topology)
    found: list[tuple[Any, Plan]] = []
    for mesh in _meshes(config, len(devices)):
        for chunk in chunks:
            one = config.copy_and_resolve_references()
            one.mesh.data, one.mesh.clip, one.mesh.fsdp = mesh
            one.backbone.chunk_clips = chunk
            found.append((one, make_plan(one, topology, chip, devices)))
    if not found:
        raise InputError(f"no mesh of {len(devices)} devices divides the "
                         "batch's windows and clips")
    # Large chunks keep the matrix units busy; then memory decides.
    found.sort(key=lambda pair: (
        not pair[1].fits, -pair[0].backbone.chunk_clips,
        pair[1].train.peak_bytes or 0))
    print("| data x clip x fsdp | chunk_clips | peak GiB | fits |\n"
          "| --- | --- | --- | --- |")
    for one, plan_ in found:
        peak = plan_.train.peak_bytes
        print(f"| {' x '.join(map(str, plan_.mesh.values()))} | "
              f"{one.backbone.chunk_clips} | "
              f"{'-' if peak is None else f'{peak / 2**30:.2f}'} | "
              f"{'yes' if plan_.fits else 'no'} |")
    best, plan_ = found[0]
    if plan_.fits:
        print("recommended: " + " ".join(
            f"--config.mesh.{axis}={size}"
            for axis, size in plan_.mesh.items())
            + f" --config.backbone.chunk_clips={best.backbone.chunk_clips}")
    return [plan_ for _, plan_ in found]


def _meshes(config: Any, count: int) -> list[tuple[int, int, int]]:
    """Every way to spread the devices that the batch allows."""
    clips = len(timeline.clip_edges(config.window.frames,
                                    config.window.clip_frames))
    return [(data, clip, count // (data * clip))
            for data in range(1, count + 1) for clip in range(1, count + 1)
            if count % (data * clip) == 0
            and config.train.batch_windows % data == 0 and clips % clip == 0]
