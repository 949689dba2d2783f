"""Names of videos and classes: checks, near names, equal names."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from losa_jax.utils.text_files import nfc

# A video id with one of these is the name of a file.
_VIDEO_ENDING = re.compile(
    r"(?i)\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|m?ts|m2ts|wmv|asf|flv|f4v|3gp|3g2"
    r"|ogv|vob|mxf|nut)$")


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
    return _VIDEO_ENDING.sub("", video_id)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean ...?" with the nearest known name, or ""."""
    keys: dict[str, str] = {}
    for one in known:
        keys.setdefault(_key(one), one)
    near = difflib.get_close_matches(_key(name), keys, 1)
    return f"; did you mean {keys[near[0]]!r}?" if near else ""


def alike(names: Iterable[str]) -> list[Sequence[str]]:
    """Returns the groups of names that differ only in case, blanks, "_" or
    "-", or in the ending of a file."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[_key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKC", nfc(name)).casefold()
    return re.sub(r"[\s_-]+", "", without_ending(plain)) or plain
