"""Windows of frames against the bare decoder and other readers.

    python -m benchmarks.pipeline_speed [--rounds=3] [--seconds=4]

Windows of 16 x 16 frames, 160 pixels, from an H.264 video of 320 x 240: what
training reads (random crop and flip of config.augment, batches of two),
interleaved in one run with

- bare decoders: PyAV decodes the same video from its first frame to its last
  in as many threads of this process, without seeking, cutting or batches;
  into RGB of 160 x 160 (FFmpeg scales while it converts), into RGB of the
  video's own size, and without colors at all;
- decord, torchcodec and OpenCV, those of them that are installed, in a plain
  torch DataLoader with worker processes: the same windows, the same crop.

`--video=FILE` takes another video; else a moving texture is rendered. What
torchcodec needs: `pip install torchcodec==0.12.0` (the last without CUDA) and
the libraries of FFmpeg 4 to 8 (Debian: ffmpeg).
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import grain
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.common.figures import rates_table
from benchmarks.common.video_readers import (
    torch_frames_per_second,
    usable_readers,
)
from configs import common
from losa_jax import timeline
from losa_jax.data.records import Video
from losa_jax.data.video.container import open_video
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows.examples import TrainWindows, train_batches
from losa_jax.data.windows.readers import FrameReader

FRAMES = 256
SIZE = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--gop", type=int, default=30)
    parser.add_argument("--video", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = arguments.video or render(Path(scratch) / "v.mp4",
                                         arguments.gop)
        _compare(path, arguments)


def render(path: Path, gop: int, frames: int = 1500) -> Path:
    """A texture that drifts, turns and flickers a little: real work for the
    decoder."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(
        0, 256, (480, 640, 3)).astype(np.float32), (0, 0), 3)
    noise = np.clip((noise - 127.5) * 6 + 127.5, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.options = {"preset": "medium", "crf": "23",
                                        "g": str(gop)}
        for number in range(frames):
            turn = cv2.getRotationMatrix2D(
                (320, 240), 20 * np.sin(number / 40), 1.0)
            turn[:, 2] += (-160 + 60 * np.sin(number / 25), -120)
            frame = cv2.warpAffine(noise, turn, (320, 240),
                                     borderMode=cv2.BORDER_REFLECT)
            cv2.circle(frame, (160 + int(100 * np.cos(number / 9)), 120),
                       24, (230, 60, 40), -1)
            container.mux(stream.encode(
                av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def _compare(path: Path, arguments: argparse.Namespace) -> None:
    contestants: dict[str, Callable[[], float]] = {
        "pipeline": lambda: _pipeline(path, arguments),
        "bare decoder, RGB of 160": lambda: _bare(
            path, arguments, format="rgb24", height=SIZE, width=SIZE),
        "bare decoder, RGB of own size": lambda: _bare(
            path, arguments, format="rgb24"),
        "bare decoder, no RGB": lambda: _bare(path, arguments)}
    for name, read in usable_readers(path).items():
        contestants[f"{name} in a DataLoader"] = (
            lambda read=read: torch_frames_per_second(
                read, path, frames=FRAMES, size=SIZE,
                workers=arguments.threads, seconds=arguments.seconds))
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, measure in contestants.items():
            rates[name].append(measure())
    print(f"{arguments.threads} threads or workers, {path.name}\n")
    print(rates_table(rates, "frames/s", against="pipeline") + "\n")


def window_batches(path: Path, frames: int, threads: int
                   ) -> grain.DatasetIterator:
    """Training's batches of two windows of a video, 160 pixels."""
    config = common.get_config()
    config.window.samples = config.window.tokens = frames
    config.window.frame_stride = 1
    config.augment.size = SIZE
    config.augment.color_jitter = 0.0
    info = probe_video(path)
    grid = timeline.sample_grid(info.fps, info.frame_count,
                                sampling="stride", frame_stride=1)
    videos = [Video("v", info, grid, ())]
    return iter(train_batches(
        TrainWindows(videos, ["x"], config, reader=FrameReader(config)), 1,
        seed=0, batch_windows=2, num_threads=threads))


def _pipeline(path: Path, arguments: argparse.Namespace) -> float:
    batches = window_batches(path, FRAMES, arguments.threads)
    for _ in range(2):  # what was made ahead before the clock starts
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < arguments.seconds:
        count += next(batches)["frames"].shape[0] * FRAMES
    rate = count / (time.perf_counter() - started)
    batches.close()
    return rate


def _bare(path: Path, arguments: argparse.Namespace, **rgb: Any) -> float:
    """Frames a second; `rgb` is what FFmpeg makes of them."""
    counts = [0] * arguments.threads
    until = time.perf_counter() + arguments.seconds

    def decode(number: int) -> None:
        reformatter = VideoReformatter()
        while time.perf_counter() < until:
            with open_video(path) as (container, stream):
                for frame in container.decode(stream):
                    if rgb:
                        reformatter.reformat(
                            frame, interpolation="BILINEAR", threads=1,
                            **rgb).to_ndarray()
                    counts[number] += 1
                    if time.perf_counter() > until:
                        break

    threads = [threading.Thread(target=decode, args=(number,))
               for number in range(arguments.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / arguments.seconds


if __name__ == "__main__":
    main()
