"""Damaged video files by the thousand: refused or read, never worse.

    python -m benchmarks.mutated_videos [--files=10000] [--seed=0]

Renders 60 frames in several containers and codecs, damages copies (bits
turned over, cut off, pieces lost, doubled or zeroed, the head of one file on
the body of another), and lets a child process probe and read every frame of
each. A child has 5 seconds. Counts

- refused: an InputError, which names the file;
- right: as many frames as the sound file has;
- warned: more or fewer frames, and a warning that says so;
- wrong count: it was read without a word, with more or fewer frames;
- crash, hang, other error.

With --keep=DIR the files of the last four stay there. Exit status 1 if there
are any of those.
"""

import argparse
import logging.handlers
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from benchmarks.common import damage
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError

FRAMES = 60
FINE = ("right", "refused", "warned")
BAD = ("wrong count", "other error")
SOURCES = {
    "front.mp4": ("libx264", {"movflags": "faststart"}),
    "back.mp4": ("libx264", {}), "h264.mkv": ("libx264", {}),
    "hevc.mp4": ("libx265", {}), "vp9.webm": ("libvpx-vp9", {}),
    "mpeg4.avi": ("mpeg4", {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sources = [render(Path(scratch) / name, codec, options)
                   for name, (codec, options) in SOURCES.items()]
        sys.exit(damage.run(arguments, sources,
                            lambda path, *_: _read(path), fine=FINE, bad=BAD))


def render(path: Path, codec: str, options: dict[str, str]) -> Path:
    """Renders 60 frames of a moving square on noise."""
    rng = np.random.default_rng(1)
    ground = rng.integers(60, 120, (64, 96, 3)).astype(np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.options = {"g": "20"} | (
            {"x265-params": "log-level=none"} if codec == "libx265" else {})
        for number in range(FRAMES):
            pixels = ground.copy()
            pixels[20:40, number:number + 20] = (230, 40, 20)
            container.mux(stream.encode(
                av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def _read(path: Path) -> str:
    warnings = logging.handlers.BufferingHandler(10**6)
    logging.getLogger("losa_jax").addHandler(warnings)
    try:
        info = probe_video(path)
        count = 0
        for frame in iterate_frames(path, range(info.frame_count), info):
            frame.rgb()
            count += 1
    except InputError as error:
        return "refused" if path.name in str(error) else "other error"
    except BaseException:
        return "other error"
    if count == FRAMES:
        return "right"
    return "warned" if warnings.buffer else "wrong count"


if __name__ == "__main__":
    main()
