"""An epoch from cached features against one from the videos.

    python -m benchmarks.cache_speed --config=configs/custom.py
        --cache=FOLDER --config.data.annotations=... (as a run's flags)

Both train the same settings, one after the other in turns, each as a run of
its own; the first log interval of each (compilation, first decode) does not
count. Pixel augmentation is on for the videos, as a user would have it.
Prints medians of seconds a step and their ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--epochs_from_video", type=int, default=2)
    parser.add_argument("--epochs_from_cache", type=int, default=10)
    arguments, flags = parser.parse_known_args()
    flags = [f"--config={arguments.config}", *flags,
             "--config.train.log_every_steps=4",
             "--config.data.frame_cache_gib=0.0"]
    cached = [f"--config.data.cache={arguments.cache}",
              "--config.window.align_to_clips=True"]
    with tempfile.TemporaryDirectory() as scratch:
        if not (arguments.cache / "cache.json").exists():
            _run([*flags, *cached, "--mode=cache"], Path(scratch) / "make")
        seconds: dict[str, list[float]] = {"video": [], "cache": []}
        for number in range(ROUNDS):
            for name, more, epochs in (
                    ("video", [], arguments.epochs_from_video),
                    ("cache", cached, arguments.epochs_from_cache)):
                folder = Path(scratch) / f"{name}{number}"
                _run([*flags, *more, f"--config.train.epochs={epochs}"],
                     folder)
                seconds[name] += _steps(folder)
    video, cache = (statistics.median(seconds[name])
                    for name in ("video", "cache"))
    print(f"seconds a step: from the videos {video:.3f} "
          f"({min(seconds['video']):.3f} .. {max(seconds['video']):.3f}), "
          f"from cached features {cache:.3f} ({min(seconds['cache']):.3f} .. "
          f"{max(seconds['cache']):.3f}): {video / cache:.1f} times faster")


def _run(flags: list[str], folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "losa_jax.main", *flags,
                    f"--workdir={folder}"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _steps(folder: Path) -> list[float]:
    lines = map(json.loads,
                (folder / "metrics.jsonl").read_text().splitlines())
    return [line["seconds_per_step"] for line in lines
            if line.get("seconds_per_step")][1:]


if __name__ == "__main__":
    main()
