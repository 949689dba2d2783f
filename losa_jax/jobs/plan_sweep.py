"""--mode=plan --plan_sweep: which mesh, chunk, batch for these chips?"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from losa_jax.errors import InputError
from losa_jax.jobs.plan import (
    Plan,
    make_plan,
    plain_plan,
    shared_batch,
    window_clips,
)
from losa_jax.jobs.setup import write_json
from losa_jax.models.adapters.inside_backbone import (
    ADAPTER_TYPES as TUNED_KINDS,
)
from losa_jax.models.backbones.encode_windows import largest_divisor
from losa_jax.planning.topology import describe_devices

# Clips in flight on a device; 0 is all of its clips.
CHUNKS = (1, 4, 16, 0)
# Batches, as multiples of the config's.
BATCHES = (1, 2)
_GIB = 2**30


def sweep_plans(config: Any, topology: str, *,
                chunks: tuple[int, ...] = CHUNKS,
                batches: tuple[int, ...] = BATCHES,
                max_minutes: float = 0.0,
                output: Path | None = None) -> list[tuple[Any, Plan]]:
    """Compiles the train step of choices, prints a table, best first.

    A choice is a mesh, backbone.chunk_clips, train.batch_windows, and where
    the backbone has gradients adapter.remat_blocks. Best is what fits,
    has the config's own batch (another one is another recipe), and takes the
    least time by the cautious roofline; then memory decides. Of a mesh and a
    batch the quickest comes first (nothing recomputed, many clips at once):
    once it fits, what would only save memory is left out.

    Args:
      max_minutes: no choice is begun later, the promising ones come first;
        0 for all. The first is always tried.

    Returns:
      (config, plan) of each choice in the table's order.

    Raises:
      InputError: no mesh fits the config.
    """
    chip, devices = describe_devices(topology)
    groups = list(_groups(config, len(devices), chunks, batches))
    count = sum(map(len, groups))
    if not count:
        raise InputError(f"no mesh of {len(devices)} devices divides the "
                         "batch's windows and clips: give another "
                         "config.train.batch_windows or --topology")
    found: list[tuple[Any, Plan]] = []
    needless, untried = 0, 0
    started = time.monotonic()
    with tqdm(total=count, desc="compiling", unit="plan",
              leave=False) as bar:
        for group in groups:
            for place, one in enumerate(group):
                seconds = time.monotonic() - started
                if found and 0 < 60 * max_minutes <= seconds:
                    untried += len(group) - place
                    break
                plan = make_plan(one, topology, chip, devices,
                                 with_evaluation=False)
                found.append((one, plan))
                bar.update()
                if plan.fits:
                    needless += len(group) - place - 1
                    bar.update(len(group) - place - 1)
                    break
    minutes = (time.monotonic() - started) / 60
    own = config.train.batch_windows

    def rank(pair):
        one, plan = pair
        seconds = plan.train.cautious_seconds
        return (not plan.fits, one.train.batch_windows != own,
                0.0 if math.isnan(seconds) else seconds,
                plan.train.peak_bytes or math.inf)

    found.sort(key=rank)
    print("\n".join(_table(found)))
    print(f"{len(found)} of {count} choices compiled in {minutes:.1f} min; "
          f"{needless} would only save memory where the quicker one fits"
          + (f"; {untried} not tried for lack of time" if untried else ""))
    print(_recommendation(*found[0], own))
    if output is not None:
        write_json(output, [
            {"settings": dict(_settings(one)), **plain_plan(plan)}
            for one, plan in found])
    return found


def _groups(config: Any, count: int, chunks: tuple[int, ...],
            batches: tuple[int, ...]) -> Iterator[list[Any]]:
    """Copies of the config, of one mesh and batch each, quickest first.

    None stands for the same program as another.
    """
    tuned = config.adapter.kind in TUNED_KINDS
    # Together: one batch decides which meshes there are.
    for factor in batches:
        batch = factor * config.train.batch_windows
        for data, clip, fsdp in meshes(config, count, factor):
            clips = batch // data * window_clips(config) // clip
            if window_clips(config) % (clip * fsdp) == 0:
                clips //= fsdp
            sizes = sorted({largest_divisor(clips, chunk or clips)
                            for chunk in chunks}, reverse=True)
            # What is stored for the gradient is that of all chunks.
            tries = ([(False, sizes[0]), *((True, size) for size in sizes)]
                     if tuned else
                     [(config.adapter.remat_blocks, size)
                      for size in sizes])
            group = []
            for remat, chunk in tries:
                one = config.copy_and_resolve_references()
                one.mesh.data, one.mesh.clip, one.mesh.fsdp = data, clip, fsdp
                one.backbone.chunk_clips = chunk
                one.train.batch_windows = batch
                one.evaluate.batch_windows *= factor
                one.adapter.remat_blocks = remat
                group.append(one)
            yield group


def meshes(config: Any, count: int, factor: int = 1
           ) -> list[tuple[int, int, int]]:
    """Every way to spread the devices that leaves none with work twice.

    Where there is none, those with the fewest devices on `fsdp`. Promising
    ones first: many windows at once, and all clips on one axis.
    """
    clips, batch = window_clips(config), factor * shared_batch(config)
    possible = [(data, clip, count // (data * clip))
                for data in range(1, count + 1)
                for clip in range(1, count + 1)
                if count % (data * clip) == 0 and batch % data == 0
                and clips % clip == 0]
    useful = [mesh for mesh in possible if clips % (mesh[1] * mesh[2]) == 0]
    fewest = min((mesh[2] for mesh in possible), default=0)
    found = useful or [mesh for mesh in possible if mesh[2] == fewest]
    return sorted(found, key=lambda mesh: (-mesh[0], min(mesh[1:]), -mesh[2]))


def _settings(config: Any) -> list[tuple[str, Any]]:
    return [("mesh.data", config.mesh.data), ("mesh.clip", config.mesh.clip),
            ("mesh.fsdp", config.mesh.fsdp),
            ("backbone.chunk_clips", config.backbone.chunk_clips),
            ("train.batch_windows", config.train.batch_windows),
            ("adapter.remat_blocks", config.adapter.remat_blocks)]


def _table(found: list[tuple[Any, Plan]]) -> list[str]:
    lines = ["| data x clip x fsdp | chunk_clips | windows | remat_blocks"
             " | peak GiB | s / step | s / window | fits |\n"
             + "|" + " --- |" * 8]
    for config, plan in found:
        need, windows = plan.train, config.train.batch_windows
        times = ("-", "-") if need.peak_bytes is None or math.isnan(
            need.cautious_seconds) else (
            f"{need.best_seconds:.3g} .. {need.cautious_seconds:.3g}",
            f"{need.cautious_seconds / windows:.3g}")
        peak = ("-" if need.peak_bytes is None
                else f"{need.peak_bytes / _GIB:.2f}")
        lines.append("| " + " | ".join((
            " x ".join(map(str, plan.mesh.values())),
            str(config.backbone.chunk_clips), str(windows),
            str(config.adapter.remat_blocks), peak, *times,
            "yes" if plan.fits else "no")) + " |")
    return lines


def _recommendation(config: Any, plan: Plan, own_batch: int) -> str:
    if not plan.fits:
        return ("nothing fits: take more chips or another chip, or "
                "adapter.kind=losa")
    said = "recommended: " + " ".join(
        f"--config.{key}={value}" for key, value in _settings(config))
    if config.train.batch_windows != own_batch:
        said += " (another batch than the config's is another recipe)"
    return said + "; plan it once more without --plan_sweep to see the " \
        "evaluation step"
