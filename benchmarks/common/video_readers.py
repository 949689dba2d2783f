"""Other video libraries in a plain torch DataLoader, for pipeline_speed."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def _decord(path: str, first: int, count: int) -> np.ndarray:
    import decord
    reader = decord.VideoReader(path, num_threads=1)
    return reader.get_batch(range(first, first + count)).asnumpy()


def _torchcodec(path: str, first: int, count: int) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder
    decoder = VideoDecoder(path, dimension_order="NHWC",
                           num_ffmpeg_threads=1)
    return decoder.get_frames_in_range(first, first + count).data.numpy()


def _opencv(path: str, first: int, count: int) -> np.ndarray:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG,
                               [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, first)
    frames = []
    for _ in range(count):
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


Read = Callable[[str, int, int], np.ndarray]
READERS: dict[str, Read] = {"decord": _decord, "torchcodec": _torchcodec,
                            "OpenCV": _opencv}


def usable_readers(path: Path) -> dict[str, Read]:
    """Those that read the video here; says why others do not."""
    if not importlib.util.find_spec("torch"):
        print("no other readers: torch is not installed")
        return {}
    usable = {}
    for name, read in READERS.items():
        try:
            read(str(path), 0, 1)
        # A library that is there may lack FFmpeg's own libraries.
        except (ImportError, OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [repr(error)])[0]
            print(f"left out {name}: {reason}")
        else:
            usable[name] = read
    return usable


class _Windows:
    """Random windows, cut and resized by OpenCV as our own are."""

    def __init__(self, read: Read, path: Path, frames: int, size: int):
        self._read, self._path = read, str(path)
        self._frames, self._size = frames, size
        capture = cv2.VideoCapture(self._path)
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self._width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        capture.release()

    def __len__(self) -> int:
        return 10 ** 6

    def __getitem__(self, index: int) -> Any:
        import torch
        cv2.setNumThreads(1)
        rng = np.random.default_rng(index)
        first = int(rng.integers(self._count - self._frames))
        frames = self._read(self._path, first, self._frames)
        short = min(self._height, self._width)
        side = int(rng.integers(3 * short // 8, short + 1))
        top = int(rng.integers(0, self._height - side + 1))
        left = int(rng.integers(0, self._width - side + 1))
        size = (self._size, self._size)
        return torch.from_numpy(np.stack([cv2.resize(
            frame[top:top + side, left:left + side], size)
            for frame in frames]))


def torch_frames_per_second(read: Read, path: Path, *, frames: int, size: int,
                            workers: int, seconds: float) -> float:
    """Frames a second of random windows in batches of two."""
    from torch.utils.data import DataLoader
    loader = iter(DataLoader(
        _Windows(read, path, frames, size), batch_size=2,
        num_workers=workers, multiprocessing_context="spawn"))
    for _ in range(workers + 1):
        next(loader)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += len(next(loader)) * frames
    rate = count / (time.perf_counter() - started)
    del loader
    return rate
