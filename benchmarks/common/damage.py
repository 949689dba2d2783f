"""Damages files by the thousand and reads each in a child process."""

import argparse
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.common.figures import table

LIMIT_SECONDS = 5


def mutate(content: bytes, other: bytes, rng: random.Random
           ) -> tuple[str, bytes]:
    """Returns the name of a damage, and the damaged content."""
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


def run(arguments: argparse.Namespace, sources: Sequence[Path],
        read: Callable[[Path, Path, str], str], *, fine: Sequence[str],
        bad: Sequence[str], mutate: Callable[
            [bytes, bytes, random.Random], tuple[str, bytes]] = mutate) -> int:
    """Reads damaged copies, prints a table of what becomes of them.

    Args:
      arguments: `files`, `seed` and `keep`, the folder for copies of bad
        files or None.
      sources: sound files.
      read: (damaged file, its sound one, damage) to one of `fine` or `bad`,
        the names of outcomes; runs in a child process.
      mutate: (content, content of another file, generator) to the name of a
        damage and the damaged content.

    Returns:
      1 if any outcome is not fine, else 0.
    """
    contents = {path: path.read_bytes() for path in sources}
    outcomes = (*fine, *bad)
    for path in sources:
        assert outcome_of(lambda path=path: read(path, path, ""), outcomes
                          ) == "right", path
    counts: Counter[str] = Counter()
    by_damage: Counter[tuple[str, str]] = Counter()
    for number in tqdm(range(arguments.files), unit="file",
                       disable=not sys.stderr.isatty()):
        rng = random.Random(arguments.seed * 10**9 + number)
        source = rng.choice(sources)
        damage, content = mutate(contents[source],
                                 contents[rng.choice(sources)], rng)
        path = source.with_name(f"{number}_{source.name}")
        path.write_bytes(content)
        outcome = outcome_of(
            lambda path=path, source=source, damage=damage: read(
                path, source, damage), outcomes)
        counts[outcome] += 1
        by_damage[damage, outcome] += 1
        if outcome not in fine:
            print(f"{outcome}: {path.name} ({damage})", flush=True)
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, arguments.keep)
        path.unlink()
    columns = [outcome for outcome, _ in counts.most_common()]
    damages = sorted({damage for damage, _ in by_damage})
    print(table(["damage", *columns], [
        *((damage, *(by_damage[damage, outcome] for outcome in columns))
          for damage in damages),
        ("all", *(counts[outcome] for outcome in columns))]))
    return int(bool(set(counts) - set(fine)))


def outcome_of(read: Callable[[], str], outcomes: Sequence[str]) -> str:
    """Returns what becomes of a file in a child process."""
    # A fork, since starting Python anew takes longer than reading the file.
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        # FFmpeg writes what it finds odd to stderr.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(outcomes.index(read()))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hang" if number == signal.SIGALRM else f"crash {number}"
    return outcomes[os.WEXITSTATUS(status)]
