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
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from benchmarks.common.figures import table
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError

FRAMES = 60
LIMIT_SECONDS = 5
FINE = ("right", "refused", "warned")
OUTCOMES = (*FINE, "wrong count", "other error")
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
    counts: Counter[str] = Counter()
    by_damage: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        sources = [render(Path(scratch) / name, codec, options)
                   for name, (codec, options) in SOURCES.items()]
        contents = {path: path.read_bytes() for path in sources}
        for path in sources:
            assert outcome_of(path) == "right", path
        for number in tqdm(range(arguments.files), unit="file",
                           disable=not sys.stderr.isatty()):
            rng = random.Random(arguments.seed * 10**9 + number)
            source = rng.choice(sources)
            damage, content = mutate(contents[source],
                                   contents[rng.choice(sources)], rng)
            path = Path(scratch) / f"{number}_{source.name}"
            path.write_bytes(content)
            outcome = outcome_of(path)
            counts[outcome] += 1
            by_damage[damage, outcome] += 1
            if outcome not in FINE:
                print(f"{outcome}: {path.name} ({damage})", flush=True)
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, arguments.keep)
            path.unlink()
    outcomes = [outcome for outcome, _ in counts.most_common()]
    damages = sorted({damage for damage, _ in by_damage})
    print(table(["damage", *outcomes], [
        *((damage, *(by_damage[damage, outcome] for outcome in outcomes))
          for damage in damages),
        ("all", *(counts[outcome] for outcome in outcomes))]))
    sys.exit(bool(set(counts) - set(FINE)))


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


def mutate(content: bytes, other: bytes, rng: random.Random
           ) -> tuple[str, bytes]:
    """(category of damage, the damaged file)."""
    size = len(content)
    damage = rng.choice(("bits", "bits in the head", "bits in the tail", "cut",
                       "lost piece", "zeros", "doubled piece", "spliced"))
    if damage.startswith("bits"):
        span = {"bits": (0, size), "bits in the head": (0, min(size, 1500)),
                "bits in the tail": (max(0, size - 2500), size)}[damage]
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 2, 4, 16, 64))):
            damaged[rng.randrange(*span)] ^= 1 << rng.randrange(8)
        return damage, bytes(damaged)
    first = rng.randrange(size)
    last = min(size, first + rng.choice((1, 16, 256, 4096)))
    if damage == "cut":
        return damage, content[:first]
    if damage == "lost piece":
        return damage, content[:first] + content[last:]
    if damage == "zeros":
        return damage, content[:first] + bytes(last - first) + content[last:]
    if damage == "doubled piece":
        return damage, content[:last] + content[first:]
    head = rng.choice((8, 64, 512, 4096, first))
    return damage, other[:head] + content[head:]


def outcome_of(path: Path) -> str:
    """What becomes of a file in a child process."""
    # A fork, since starting Python anew takes longer than reading the file.
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        # FFmpeg writes what it finds odd to stderr.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(OUTCOMES.index(_read(path)))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hang" if number == signal.SIGALRM else f"crash {number}"
    return OUTCOMES[os.WEXITSTATUS(status)]


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
