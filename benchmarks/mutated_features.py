"""Damaged feature files by the thousand: refused or read, never worse.

    python -m benchmarks.mutated_features [--files=1000] [--seed=0]

Writes features as .npy (several dtypes and orders), as stored and as
compressed .npz, and damages copies as `benchmarks.mutated_videos` does (bits
turned over, cut off, pieces lost, doubled or zeroed, the head of one file on
the body of another), or joins two. A child process with a memory limit reads
each as training does. It has 5 seconds. Counts

- refused: an InputError, which names the file;
- right: the numbers of the sound file;
- changed numbers: a .npy file, which has no checksum, with an intact header
  (its own, or that of another sound file) and as many numbers as this says,
  which changed and stayed finite;
- another file: the bytes of another sound file;
- wrong: other numbers than those of the sound file;
- crash, hang, other error.

With --keep=DIR the files of the last four stay there. Exit status 1 if there
are any of those.
"""

import argparse
import random
import resource
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from benchmarks.common import damage
from configs import common
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import AnnotatedVideo, Video, Window
from losa_jax.errors import InputError

ROWS, WIDTH = 72, 24
FINE = ("right", "refused", "changed numbers", "another file")
BAD = ("wrong", "other error")
MEMORY_BYTES = 8 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    # Beyond the process's own, for headers that promise too much.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")  # numpy's, of headers of Python 2
    with tempfile.TemporaryDirectory() as scratch:
        sources = write_sources(Path(scratch))
        sys.exit(damage.run(arguments, sources, _read, fine=FINE, bad=BAD,
                            mutate=_mutate))


def write_sources(folder: Path) -> list[Path]:
    """Writes sound files of different numbers."""
    rng = np.random.default_rng(0)
    sources = []
    for number, (suffix, dtype, save) in enumerate((
            ("npy", "<f4", np.save), ("npy", "<f4", np.save),
            ("npy", "<f2", np.save), ("npy", ">f8", np.save),
            ("npz", "<f4", np.savez), ("npz", "<f4", np.savez_compressed),
            ("npz", "<f2", np.savez_compressed))):
        features = rng.normal(size=(ROWS, WIDTH)).astype(dtype)
        path = folder / f"source_{number}.{suffix}"
        save(path, np.asfortranarray(features) if number == 1 else features)
        sources.append(path)
    return sources


def _mutate(content: bytes, other: bytes, rng: random.Random
            ) -> tuple[str, bytes]:
    if rng.random() < 0.1:
        return "joined", content + other
    return damage.mutate(content, other, rng)


def _read(path: Path, source: Path, _: str) -> str:
    settings = common.get_config().features
    settings.folder, settings.width = str(path.parent), WIDTH
    settings.stride_frames, settings.clip_frames = 4.0, 16.0
    try:
        store = FeatureFiles(settings, cache_gib=0.5 * (len(path.name) % 2))
        info = store.info_of(AnnotatedVideo(path.stem, "", 10.0, 30.0, ()))
        window, = store.read_windows(
            Video(path.stem, info, store.grid(info), ()),
            [Window(0, ROWS, min(ROWS, store.grid(info).num_samples))])
    except InputError as error:
        return "refused" if path.name in str(error) else "other error"
    except BaseException:
        return "other error"
    if np.array_equal(window["last"][:, 0], _numbers(source)):
        return "right"
    sounds = [*path.parent.glob("source_*")]
    if path.read_bytes() in [sound.read_bytes() for sound in sounds]:
        return "another file"
    return ("changed numbers" if any(
        _has_header_of(path, sound) for sound in sounds) else "wrong")


def _numbers(source: Path) -> np.ndarray:
    content = np.load(source, allow_pickle=False)
    if isinstance(content, np.lib.npyio.NpzFile):
        content = content["arr_0"]
    return np.asarray(content, np.float32)


def _has_header_of(path: Path, sound: Path) -> bool:
    """Whether .npy files differ only behind their headers."""
    if {path.suffix, sound.suffix} != {".npy"}:
        return False
    content, other = path.read_bytes(), sound.read_bytes()
    head = len(other) - np.load(sound, allow_pickle=False).nbytes
    return len(content) == len(other) and content[:head] == other[:head]


if __name__ == "__main__":
    main()
