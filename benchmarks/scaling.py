"""Measures how a train step's time and memory grow with the input size.

    python -m benchmarks.scaling [--rounds=5] [--series=clips,taps,window]

The model has the sizes of configs/quick.py (ViT of width 96 and depth 6, 64
pixels, LoSA) and a head of two levels; the batch is one random window, in
float32. The series are: `clips`, clips of a window, all in the backbone at
once; `taps`, blocks that the adapter reads, with 4 clips; `window`, frames of
a window, with 4 clips in the backbone at once. Memory is XLA's size of
temporary buffers. Exponents are least-squares slopes of the logarithms: 1 is
proportional growth.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common.figures import interleaved, table
from benchmarks.common.made_up import Step, make_backbone, make_step
from configs import quick
from losa_jax.models.backbones.videomae import VideoMaeSpec

CLASSES, DEPTH = 12, 6
SERIES = {"clips": (1, 2, 4, 8, 16), "taps": (1, 2, 3, 6),
          "window": (64, 128, 256, 512, 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", default=",".join(SERIES))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "backbone"
        make_backbone(backbone, VideoMaeSpec(
            width=96, depth=DEPTH, heads=4, mlp_width=384,
            image_size=(64, 64)))
        for name in arguments.series.split(","):
            sizes = SERIES[name]
            made = {size: make_step(make_config(name, size, backbone),
                                    CLASSES) for size in sizes}
            compiled = {size: step.run.lower(*_given(step)).compile()
                        for size, step in made.items()}
            mebibytes = [program.memory_analysis().temp_size_in_bytes
                         / 2 ** 20 for program in compiled.values()]
            # The first round is a warm-up.
            seconds = {size: times[1:] for size, times in interleaved(
                {size: _runner(step, compiled[size]) for size, step
                 in made.items()}, arguments.rounds + 1).items()}
            medians = [statistics.median(seconds[size]) for size in sizes]
            print(table(
                [name, "median ms a step", "spread", "MiB temporary"],
                [(size, f"{1e3 * median:.1f}",
                  f"{1e3 * min(seconds[size]):.1f} .. "
                  f"{1e3 * max(seconds[size]):.1f}", f"{memory:.1f}")
                 for size, median, memory in zip(sizes, medians, mebibytes,
                                                 strict=True)]) + "\n",
                  flush=True)
            rows += [(name, of, f"{exponent(sizes, values):.2f}",
                      f"{exponent(sizes[-2:], values[-2:]):.2f}")
                     for of, values in (("time", medians),
                                        ("memory", mebibytes))]
    print(table(["grows with", "what", "exponent", "from the last two"],
                rows))


def make_config(series: str, size: int, backbone: Path):
    config = quick.get_config()
    config.synthetic.folder = ""
    config.backbone.checkpoint = str(backbone)
    config.train.batch_windows = config.evaluate.batch_windows = 1
    config.adapter.num_taps = size if series == "taps" else 3
    config.adapter.tap_layers = tuple(
        range(DEPTH - config.adapter.num_taps, DEPTH))
    # A small head compiles in a third of the time.
    config.head.num_levels, config.head.head_layers = 2, 2
    config.head.num_stem_blocks = config.head.num_embedding_convs = 1
    clips = {"clips": size, "taps": 4, "window": size // 16}[series]
    config.backbone.chunk_clips = 4 if series == "window" else 0
    config.window.samples = config.window.tokens = 16 * clips
    return config


def exponent(sizes, values) -> float:
    """Returns the slope of the line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _given(step: Step) -> tuple[Any, ...]:
    return step.state, step.model.frozen, step.batch, step.key


def _runner(step: Step, program: jax.stages.Compiled
            ) -> Callable[[], object]:
    state, *rest = _given(step)

    def run():
        nonlocal state
        state, metrics = program(state, *rest)
        jax.block_until_ready(metrics)

    return run


if __name__ == "__main__":
    main()
