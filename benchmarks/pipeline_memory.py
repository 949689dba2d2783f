"""Whether memory grows while windows are read.

    python -m benchmarks.pipeline_memory [--windows=2000] [--frames=32]

Windows of 32 frames, 160 pixels, from an H.264 video of 320 x 240, in batches
of two, by two threads. Prints resident memory every 100 windows and, for all
but the first quarter of them, the slope of the straight line through it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common.figures import table
from benchmarks.pipeline_speed import render, window_batches

EVERY = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.windows < 4 * EVERY:
        parser.error(f"--windows must be at least {4 * EVERY}")
    with tempfile.TemporaryDirectory() as scratch:
        path = render(Path(scratch) / "v.mp4", gop=30)
        resident = _watch(path, arguments)
        late = resident[len(resident) // 4:]
        slope = np.polyfit(np.arange(len(late)), late, 1)[0]
        print(table([f"MiB every {EVERY} windows",
                     "slope, MiB in 1,000 windows"],
                    [(" ".join(f"{size:.0f}" for size in resident),
                      f"{slope * 1000 / EVERY:+.2f}")]))


def _watch(path: Path, arguments: argparse.Namespace) -> list[float]:
    batches = window_batches(path, arguments.frames, threads=2)
    resident = []
    for number in range(0, arguments.windows, 2):
        next(batches)
        if number % EVERY == 0:
            resident.append(psutil.Process().memory_info().rss / 2**20)
    batches.close()
    return resident


if __name__ == "__main__":
    main()
