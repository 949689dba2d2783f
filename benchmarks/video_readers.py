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
_ALL: dict[str, tuple[str, Read]] = {
    "decord": ("decord", _decord), "torchcodec": ("torchcodec", _torchcodec),
    "OpenCV": ("cv2", _opencv)}
READERS = {name: read for name, (module, read) in _ALL.items()
           if importlib.util.find_spec(module)
           and importlib.util.find_spec("torch")}


class _Windows:
    """Random windows, cut and resized by OpenCV as our own are."""

    def __init__(self, read: Read, path: Path, frames: int, size: int):
        self._read, self._path = read, str(path)
        self._frames, self._size = frames, size
        capture = cv2.VideoCapture(self._path)
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()

    def __len__(self) -> int:
        return 10 ** 6

    def __getitem__(self, index: int) -> Any:
        import torch
        cv2.setNumThreads(1)
        rng = np.random.default_rng(index)
        first = int(rng.integers(self._count - self._frames))
        frames = self._read(self._path, first, self._frames)
        side = int(rng.integers(90, 240))
        top, left = rng.integers(0, 240 - side + 1), rng.integers(
            0, 320 - side + 1)
        size = (self._size, self._size)
        return torch.from_numpy(np.stack([cv2.resize(
            frame[top:top + side, left:left + side], size)
            for frame in frames]))


def torch_frames_per_second(name: str, path: Path, *, frames: int, size: int,
                            workers: int, seconds: float) -> float:
    """Frames a second of random windows in batches of two."""
    from torch.utils.data import DataLoader
    loader = iter(DataLoader(
        _Windows(READERS[name], path, frames, size), batch_size=2,
        num_workers=workers, multiprocessing_context="spawn"))
    for _ in range(workers + 1):
        next(loader)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += len(next(loader)) * frames
    rate = count / (time.perf_counter() - started)
    del loader
    return rate
