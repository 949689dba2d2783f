"""Praat's TextGrids, long or short: intervals and points in tiers.

Both forms are the same sequence of numbers, quoted texts and flags; what else
is in the long form ("xmin =") is for people.
"""

import re
from collections.abc import Iterator

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.errors import InputError

TITLE = "Praat"

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<\w+>|'
                    r'[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)')


def recognizes(file: File) -> bool:
    """Whether this is a text file of Praat with a TextGrid."""
    return file.json is None and not file.is_archive and (
        "ooTextFile" in file.text[:200] and "TextGrid" in file.text[:300])


def read(file: File, content: Content) -> None:
    """Reads all tiers, or the chosen ones; empty texts are gaps."""
    tokens = (match[1].replace('""', '"') if match[1] is not None
              else match[2] for match in _TOKEN.finditer(
                  file.text.partition("TextGrid")[2].partition("\n")[2]))
    try:
        _, end, flag = next(tokens), float(next(tokens)), next(tokens)
        video = content.own_video(file.path, duration_seconds=end)
        for _ in range(int(next(tokens)) if flag == "<exists>" else 0):
            _read_tier(tokens, content, video, file)
    except (ValueError, StopIteration, RuntimeError) as error:
        raise InputError(f"{file.name}: is not a complete TextGrid: save it "
                         "again in Praat") from error


def _read_tier(tokens: Iterator[str], content: Content,
               video: tuple[str, ...], file: File) -> None:
    options = content.options
    tier_type, name = next(tokens), next(tokens)
    is_chosen = content.is_chosen("tiers", name)
    _, _, count = next(tokens), next(tokens), int(next(tokens))
    for number in range(1, count + 1):
        start = float(next(tokens))
        end = float(next(tokens)) if tier_type == "IntervalTier" else start
        text = next(tokens)
        if is_chosen and text.strip():
            label = name if options.label_from == "tier" else text
            content.add(video, label, start, end,
                        where=f"{file.name}, {number} of tier {name!r}")
