"""Names of videos in the paths and addresses of annotation files."""

import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable

from losa_jax.utils.names import without_ending
from losa_jax.utils.text_files import nfc

Parts = tuple[str, ...]

# Label Studio puts this before the names of uploaded files.
_UPLOADED = re.compile(r"(?:^|/)upload/\d+/[0-9a-f]{8}-(?=[^/]+$)")


def parts_of(address: str) -> Parts:
    """Returns the folders and the name of a video in a path or an address.

    "file:///C:/My%20Videos/a.mp4", "C:\\fakepath\\a.mp4", "s3://bucket/a.mp4"
    and "/data/local-files/?d=clips%2Fa.mp4" are all of a video "a.mp4".
    """
    text = address.strip()
    is_address = re.match(r"[A-Za-z][\w+.-]*://", text) is not None
    if re.match(r"(?i)https?://", text):
        text = text.partition("#")[0]
    path, question, query = text.partition("?")
    if question and (is_address or "=" in query):
        values = urllib.parse.parse_qs(query)  # decoded
        text = (values["d"][0] if "d" in values
                else urllib.parse.unquote(path))
    else:
        text = urllib.parse.unquote(text)
    text = text.replace("\\", "/")
    text = re.sub(r"^([\w+.-]+:/+)+", "", text)  # scheme, drive
    text = re.sub(r"^/*fakepath/", "", text)
    text = _UPLOADED.sub("/upload/", "/" + text)
    return tuple(part for part in nfc(text).split("/")
                 if part.strip() not in ("", ".", "..")) or (nfc(address),)


def is_same_video(parts: Parts, name: str) -> bool:
    """Whether a path is of the video that a user names, with or without
    folders and ending."""
    wanted = parts_of(name)
    return parts[-len(wanted):] == wanted or (
        without_ending(parts[-1]) == wanted[-1] and len(wanted) == 1)


def shown_names(videos: Iterable[Parts]) -> dict[Parts, str]:
    """Returns the last part of each path; videos of one name in different
    folders keep as many folders as distinguish them."""
    groups: dict[str, list[Parts]] = defaultdict(list)
    for parts in dict.fromkeys(videos):
        groups[parts[-1]].append(parts)
    names: dict[Parts, str] = {}
    for name, group in groups.items():
        # A path is the end of another one where a tool knows less of it.
        longest = [one for one in group if not any(
            other != one and other[-len(one):] == one for other in group)]
        for one in group:
            of = [other for other in longest if other[-len(one):] == one]
            names[one] = (name if len(longest) == 1
                          else _distinct(of[0], longest) if len(of) == 1
                          else "/".join(one))
    return names


def _distinct(parts: Parts, others: list[Parts]) -> str:
    for count in range(2, len(parts) + 1):
        end = parts[-count:]
        if sum(other[-count:] == end for other in others) == 1:
            return "/".join(end)
    return "/".join(parts)


def video_ids(names: Iterable[str]) -> dict[str, str]:
    """Returns the id of each name, which is the name without the ending of a
    video; two files that differ only in their ending keep it."""
    groups: dict[str, set[str]] = defaultdict(set)
    names = list(dict.fromkeys(names))
    for name in names:
        groups[without_ending(name)].add(name)
    return {name: name if len(groups[without_ending(name)]
                              - {without_ending(name)}) > 1
            else without_ending(name) for name in names}
