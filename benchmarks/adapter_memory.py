"""Compiled memory of one train step, by adapter type and backbone.

    python -m benchmarks.adapter_memory [--backbones=vit_s,vit_b]
        [--adapters=none,losa,ladder,tia,full]
        [--device=cpu:1|v5e:1x1|v5p:1x1x1]

One window of 48 clips of 16 x 160 x 160 (configs/thumos.py:b), nothing is
allocated or run: XLA's own account of a compiled program. `temporary` is
what a step needs beside parameters, optimizer state and batch; `ratio` is
the step's over that of the forward pass alone. v5e:1x1 and v5p:1x1x1 compile
ahead of time for one TPU chip and need the extra `tpu`.
"""

import argparse
import time

import jax

from configs import thumos
from losa_jax.distributed import sharding
from losa_jax.models.adapters.inside_backbone import ADAPTER_TYPES as TUNED
from losa_jax.planning.estimate import trace_steps
from losa_jax.planning.topology import describe_devices
from losa_jax.training.specs import FROZEN_TYPES

# "full-stored" is without activation checkpointing.
VARIANTS = (*FROZEN_TYPES, *TUNED, "full-stored")
# Whatever the recipe takes: the table's rows stay comparable.
CHUNK_CLIPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", default="vit_s,vit_b,vit_l,vit_h,vit_g")
    parser.add_argument("--adapters", default=",".join(VARIANTS))
    parser.add_argument("--device", default="cpu:1",
                        help="one chip: cpu:1, v5e:1x1, v5p:1x1x1")
    parser.add_argument("--frames", type=int, default=768)
    arguments = parser.parse_args()
    _, devices = describe_devices(arguments.device)
    mesh = sharding.make_mesh((1, 1, 1), devices[:1])
    print("| backbone | adapter | trained | temporary GiB: step | forward | "
          "ratio | peak GiB | compile s |\n|" + " --- |" * 8, flush=True)
    for backbone in arguments.backbones.split(","):
        for variant in arguments.adapters.split(","):
            print(_row(backbone, variant, arguments.frames, mesh),
                  flush=True)


def _row(backbone: str, variant: str, frames: int, mesh) -> str:
    config = thumos.get_config("b")
    config.backbone.name = backbone
    config.backbone.chunk_clips = CHUNK_CLIPS
    config.window.samples = frames
    config.window.tokens = frames
    config.train.batch_windows = config.evaluate.batch_windows = 1
    adapter_type, _, stored = variant.partition("-")
    config.adapter.kind = adapter_type
    config.adapter.remat_blocks = not stored
    started = time.perf_counter()
    steps = trace_steps(config, 20, mesh)
    cells = []
    # With gradients in the backbone the forward pass says nothing.
    programs = [steps.train] + [steps.evaluate] * (adapter_type not in TUNED)
    for program in programs:
        try:
            cells.append(program.lower().compile().memory_analysis())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            cells.append(None)
    seconds = time.perf_counter() - started
    sizes = ["out of memory" if cell is None else
             f"{cell.temp_size_in_bytes / 2**30:.2f}" for cell in cells]
    forward = sizes[1] if len(sizes) > 1 else ""
    ratio = ("" if None in cells or not forward else
             f"{cells[0].temp_size_in_bytes / cells[1].temp_size_in_bytes:.2f}")
    peak = ("" if cells[0] is None else
            f"{cells[0].peak_memory_in_bytes / 2**30:.2f}")
    return (f"| {backbone} | {variant} | {steps.trained_count / 1e6:.1f} M "
            f"| {sizes[0]} | {forward} | {ratio} | {peak} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
