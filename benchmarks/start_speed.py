"""Measures the time to the first training step with compilation caches.

    python -m benchmarks.start_speed [--rounds=3]

Renders six small videos and makes a small backbone, then starts
`python -m losa_jax.main` in fresh processes: without the compilation cache
(LOSA_COMPILE_CACHE=off), with an empty one and with a filled one. The time is
from the start of the process until metrics.jsonl holds the first step. The
time of the imports alone is measured as well.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.figures import times_table
from benchmarks.common.made_up import make_backbone
from losa_jax.data.synthetic import data_set
from losa_jax.models.backbones.videomae import VideoMaeSpec

VARIABLE = "LOSA_COMPILE_CACHE"
LIMIT_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    names = ("no cache", "empty cache", "filled cache")
    seconds = {name: [] for name in ("imports alone", *names)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        flags = make_set(folder)
        for number in range(arguments.rounds):
            # A cache of its own: in the next round it is empty again.
            cache = folder / f"cache{number}"
            seconds["imports alone"].append(imports())
            for name, where in zip(names, ("off", cache, cache), strict=True):
                seconds[name].append(first_step(
                    flags, folder / f"{name}{number}".replace(" ", "_"),
                    str(where)))
            stored = sum(path.stat().st_size for path in cache.rglob("*")
                         if path.is_file()) if cache.exists() else 0
        print(times_table(seconds, against="no cache",
                          what="until the first step"))
        print(f"\nThe filled cache holds {stored / 2**20:.1f} MiB.")


def make_set(folder: Path) -> list[str]:
    """Returns the flags of a small run: ViT of width 96 and depth 6, LoSA,
    one epoch of two steps."""
    data_set.render_untrimmed_set(folder / "videos", num_training=4,
                                   num_testing=2, size=64)
    spec = VideoMaeSpec(width=96, depth=6, heads=4, mlp_width=384,
                        image_size=(64, 64))
    make_backbone(folder / "small", spec)
    return ["--config=configs/quick.py",
            "--config.synthetic.folder=",
            f"--config.data.annotations={folder}/videos/annotations.json",
            f"--config.data.videos={folder}/videos/videos",
            f"--config.backbone.checkpoint={folder}/small",
            "--config.train.epochs=1", "--config.train.log_every_steps=1"]


def first_step(flags: list[str], workdir: Path, cache: str) -> float:
    """Returns the seconds from a run's start to its first step.

    Raises:
      RuntimeError: the run ended without a step, or took too long.
    """
    metrics = workdir / "metrics.jsonl"
    log = workdir.with_suffix(".log")
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("JAX_COMPILATION_CACHE")}
    with log.open("wb") as output:
        started = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-m", "losa_jax.main", *flags,
             f"--workdir={workdir}"],
            env={**environment, VARIABLE: cache}, stdout=output,
            stderr=subprocess.STDOUT)
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                ended = run.poll() is not None
                if ended or time.perf_counter() - started > LIMIT_SECONDS:
                    raise RuntimeError(
                        "no first step: " + log.read_text(
                            errors="replace").strip()[-500:])
                time.sleep(0.01)
            return time.perf_counter() - started
        finally:
            # Waits, because the cache is written until the end.
            run.terminate()
            run.wait()


def imports() -> float:
    """Returns the seconds in which a fresh process imports training."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import losa_jax.jobs.train"],
                   check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
