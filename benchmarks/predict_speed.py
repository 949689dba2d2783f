"""Compares the frames per second of `predict` with those of its parts.

    python -m benchmarks.predict_speed [--checkpoint=WORKDIR] [--rounds=3]
        [--videos=FOLDER]

Interleaved, on the same videos, with the same threads:

- predict: `losa_jax.jobs.predict.predict`, from files to files;
- windows: reading the windows (`WindowStream`), without a model;
- Grain: the training pipeline over as many windows, not augmented, which
  decodes frames that windows share once per window;
- step: the jitted model alone, on windows in memory.

The bound for `predict` is the slower of `windows` and `step` on an
accelerator, and the sum of their times on a CPU, which they share. Without
--checkpoint the model has random weights.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.pipeline_speed import render
from losa_jax.data.records import Video
from losa_jax.data.windows.examples import TrainWindows, train_batches
from losa_jax.data.windows.readers import FrameReader, test_rows
from losa_jax.data.windows.sampling import test_windows_of
from losa_jax.data.windows.stream import WindowStream
from losa_jax.inference.load import load
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.predict import predict
from losa_jax.jobs.prediction_files import Settings
from losa_jax.jobs.video_sources import find_videos
from losa_jax.utils.malloc import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--depth", type=int, default=6,
                        help="blocks of the random model's backbone, at "
                        "least 2")
    parser.add_argument("--videos", type=Path, help="folder; default: four "
                        "rendered ones, 320 x 240, 30 frames a second")
    parser.add_argument("--seconds", type=int, default=120,
                        help="of a rendered video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    with tempfile.TemporaryDirectory() as scratch:
        _compare(arguments, Path(scratch))


def _compare(arguments: argparse.Namespace, scratch: Path) -> None:
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        from benchmarks.common.random_run import write_random_run

        checkpoint = write_random_run(scratch / "random",
                                      depth=arguments.depth)
    folder = arguments.videos or _rendered(scratch / "videos",
                                           arguments.seconds)
    localizer = load(checkpoint, num_threads=arguments.threads)
    videos = [localizer.probe(path) for path in sorted(folder.iterdir())]
    windows = [len(test_windows_of(video, localizer.config))
               for video in videos]
    frames = sum(video.info.frame_count for video in videos)
    contestants: dict[str, Callable[[], object]] = {
        "predict": lambda: _predict(folder, localizer, scratch),
        "windows": lambda: _windows(videos, localizer),
        "Grain": lambda: _grain(videos, sum(windows), localizer),
        "step": lambda: _step(sum(windows), localizer)}
    contestants["predict"]()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(one) for name, one in seconds.items()}
    print(f"{len(videos)} videos, {frames:,} frames, {sum(windows)} windows; "
          f"{arguments.threads} threads, {localizer.batch_windows} windows "
          f"at once, on {jax.devices()[0].platform}; frames a second, "
          f"medians of {arguments.rounds} (smallest .. largest):")
    for name, rounds in seconds.items():
        print(f"  {name:8s} {frames / middle[name]:8,.0f} "
              f"({frames / max(rounds):,.0f} .. {frames / min(rounds):,.0f})")
    apart = max(middle["windows"], middle["step"])
    print("speed of predict relative to its slower part: "
          f"{apart / middle['predict']:.2f} x; to both parts in sequence: "
          f"{(middle['windows'] + middle['step']) / middle['predict']:.2f} x; "
          f"to Grain: {middle['Grain'] / middle['predict']:.2f} x; to Grain "
          "and step in sequence: "
          f"{(middle['Grain'] + middle['step']) / middle['predict']:.2f} x")


def _rendered(folder: Path, seconds: int) -> Path:
    folder.mkdir()
    first = render(folder / "0.mp4", gop=30, frames=30 * seconds)
    for number in range(1, 4):
        shutil.copy(first, folder / f"{number}.mp4")
    return folder


def _predict(folder: Path, localizer: Localizer, scratch: Path) -> None:
    output = scratch / "predicted"
    shutil.rmtree(output, ignore_errors=True)
    failures = predict(find_videos([str(folder)]), localizer,
                       Settings(output))
    if failures:
        raise SystemExit(f"some videos cannot be read: {failures}")


def _windows(videos: Sequence[Video], localizer: Localizer) -> None:
    reader = FrameReader(localizer.config)
    for batch in WindowStream(
            range(len(videos)), test_rows(reader, videos),
            batch_windows=localizer.batch_windows,
            num_threads=reader.stream_threads):
        if batch.inputs:
            _touch(batch.inputs["frames"])


def _grain(videos: Sequence[Video], num_windows: int, localizer: Localizer
           ) -> None:
    """Reads as many windows with the training pipeline."""
    config = localizer.config
    batch_windows = config.evaluate.batch_windows
    batches = iter(train_batches(
        TrainWindows(videos, (), config, reader=FrameReader(config),
                     augmented=False), len(videos), seed=0,
        batch_windows=batch_windows, num_threads=config.data.num_threads))
    for _ in range(-(-num_windows // batch_windows)):
        _touch(next(batches)["frames"])
    batches.close()


def _step(num_windows: int, localizer: Localizer) -> None:
    config, batch = localizer.config, localizer.batch_windows
    size = config.augment.size
    frames = np.zeros((batch, config.window.samples, size, size, 3), np.uint8)
    valid = np.full(batch, config.window.samples, np.int32)
    for _ in range(-(-num_windows // batch)):
        jax.device_get(localizer.predict_windows(
            {"frames": frames, "valid_samples": valid}))


def _touch(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8:
        raise TypeError(f"frames are {frames.dtype}")


if __name__ == "__main__":
    main()
