"""Names of videos and classes: checks, near names, equal names."""

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from losa_jax.utils.text_files import nfc

# Endings that only videos have.
VIDEO_ENDINGS = frozenset(
    ".mp4 .m4v .mov .qt .mkv .webm .avi .divx .mpg .mpeg .m2v .m2ts .wmv .flv "
    ".f4v .3gp .3g2 .ogv .vob .mxf .nut .rmvb .y4m .ivf".split())
# `.ts` may also be TypeScript; at the end of an id it is that of a video.
_ID_ENDINGS = VIDEO_ENDINGS | {".ts", ".mts", ".asf"}
_LIKENESS = 0.7
_LEAST_PART = 3  # characters


def name_problem(text: str) -> str:
    """Returns why untrusted text is no name of a video or class, or "".

    A name can be shown, and kept one a line; its first and its last character
    are visible.
    """
    if not text.strip():
        return "is empty"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
           for character in text):
        return "is not printable"
    if any(character.isspace() or unicodedata.category(character) == "Cf"
           for character in (text[0], text[-1])):
        return "has blanks or invisible characters at its ends: remove them"
    return ""


def without_ending(video_id: str) -> str:
    """Returns a video id without the ending of a video file."""
    stem, ending = os.path.splitext(video_id)
    return stem if ending.lower() in _ID_ENDINGS else video_id


def nearest(name: str, known: Mapping[str, Iterable[str]], most: int = 3
            ) -> list[str]:
    """Returns the known names that are most like one.

    They are equal but for case, blanks, "_", "-" or the ending of a video;
    if none are, of nearly the same letters; if none are, a part of it or it
    of them.

    Args:
      known: {name: what is compared with `name`}.
    """
    wanted = _key(name)
    names: dict[str, list[str]] = {}
    for one, texts in known.items():
        for text in texts:
            names.setdefault(_key(text), []).append(one)
    keys = [wanted] if wanted in names else (
        difflib.get_close_matches(wanted, names, most, _LIKENESS)
        or [key for key in names
            if min(len(key), len(wanted)) >= _LEAST_PART
            and (key in wanted or wanted in key)])
    return [*dict.fromkeys(one for key in keys for one in names[key])][:most]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean ...?" with the nearest known name, or ""."""
    near = nearest(name, {one: [one] for one in known}, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def alike(names: Iterable[str]) -> list[Sequence[str]]:
    """Returns the groups of names that differ only in case, blanks, "_", "-"
    or invisible characters, or in the ending of a file."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[_key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKC", nfc(name)).casefold()
    seen = "".join(one for one in without_ending(plain)
                   if unicodedata.category(one) != "Cf")
    return re.sub(r"[\s_-]+", "", seen) or plain
