"""An epoch from cached features against one from the videos.

    python -m benchmarks.cache_speed --gestures
    python -m benchmarks.cache_speed --config=configs/custom.py
        --cache=FOLDER --config.data.annotations=... (as a run's flags)

The first takes the gestures and the ViT-S of the folder LOSA_SHARED.
Both train the same settings, one after the other in turns, each as a run of
its own; the first log interval of each (compilation, first decode) does not
count. Pixel augmentation is on for the videos, as a user would have it.
Prints medians of seconds a step and their ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common.figures import times_table

GESTURES, WEIGHTS = "data/gestures", "data/weights/vit_small_patch14_dinov2.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/custom.py")
    parser.add_argument("--cache", type=Path,
                        help="default: made in a temporary folder")
    parser.add_argument("--gestures", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs_from_video", type=int, default=2)
    parser.add_argument("--epochs_from_cache", type=int, default=10)
    arguments, flags = parser.parse_known_args()
    flags = [f"--config={arguments.config}", *flags,
             "--config.train.log_every_steps=4",
             "--config.data.frame_cache_gib=0.0"]
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.gestures:
            shared = os.environ.get("LOSA_SHARED", "")
            if not shared:
                print("skipped: LOSA_SHARED is not set")
                return
            flags += _gestures(Path(shared), Path(scratch))
        cache = arguments.cache or Path(scratch) / "cache"
        cached = [f"--config.data.cache={cache}",
                  "--config.window.align_to_clips=True"]
        if not (cache / "cache.json").exists():
            _run([*flags, *cached, "--mode=cache"], Path(scratch) / "make")
        seconds: dict[str, list[float]] = {"video": [], "cache": []}
        for number in range(arguments.rounds):
            for name, more, epochs in (
                    ("video", [], arguments.epochs_from_video),
                    ("cache", cached, arguments.epochs_from_cache)):
                folder = Path(scratch) / f"{name}{number}"
                _run([*flags, *more, f"--config.train.epochs={epochs}"],
                     folder)
                seconds[name] += _steps(folder)
    # Log intervals, not the rounds' pairs: no ratio of each.
    video, cache = map(statistics.median, seconds.values())
    print(times_table({"from the videos": seconds["video"],
                       "from cached features": seconds["cache"]},
                      what="a training step"))
    print(f"\n{video / cache:.1f} times faster from cached features")


def _gestures(shared: Path, scratch: Path) -> list[str]:
    """Flags of a run on the gestures, with a backbone converted here."""
    backbone = scratch / "backbone"
    subprocess.run([sys.executable, "-m", "losa_jax.convert",
                    str(shared / WEIGHTS), f"--output={backbone}"],
                   check=True, stdout=subprocess.DEVNULL)
    data = shared / GESTURES
    return [f"--config.data.annotations={data}/gestures.json",
            f"--config.data.videos={data}/videos",
            f"--config.backbone.checkpoint={backbone}",
            "--config.augment.size=84"]


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
