"""The page of a video, and the page that lists the pages of a folder.

A detection is {"segment": [start_seconds, end_seconds], "label": name,
"score": number}, an action of the ground truth the same without a score: as
in predictions.json.
"""

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from losa_jax.errors import InputError
from losa_jax.report.document import (
    clock,
    data_uri,
    escape,
    make_document,
    write_page,
)
from losa_jax.report.thumbnails import read_thumbnails

# Enough to see what a video holds; a page must stay small.
MAX_THUMBNAILS = 200
# Detections that begin and end alike share a picture.
_SAME_MOMENT_SECONDS = 0.5
# A file inside the page takes a third more, and the browser reads it at once.
MAX_EMBEDDED_MIB = 200
_KINDS = {".webm": "video/webm", ".mkv": "video/x-matroska",
          ".ogv": "video/ogg", ".mov": "video/quicktime"}
_DATA = re.compile(
    r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
_STYLES = ("base.css", "video.css")
_SCRIPTS = ("theme.js", "player.js", "timeline.js", "video.js")


@dataclasses.dataclass(frozen=True)
class VideoPage:
    """What a list of pages says of one.

    Attributes:
      path: of the page.
      title: of the video.
      duration_seconds: of the video.
      labels: classes of its page, in its order.
      segments: (start_seconds, end_seconds, number of the class, score) of
        its detections; where it has thresholds, of those that reach theirs.
      num_actions: of the ground truth; None where it is not known.
      poster: data URI of a picture, or empty.
      note: a short remark, such as its mAP; or empty.
    """

    path: Path
    title: str
    duration_seconds: float
    labels: tuple[str, ...]
    segments: tuple[tuple[float, float, int, float], ...]
    num_actions: int | None = None
    poster: str = ""
    note: str = ""


def write_video_page(output: Path, video: Path | None, *, title: str,
                     duration_seconds: float, fps: float,
                     predictions: Sequence[Mapping[str, Any]],
                     ground_truth: Sequence[Mapping[str, Any]] | None = None,
                     thumbnails: bool = True,
                     thresholds: Mapping[str, float] | None = None,
                     embed_video: bool = False,
                     max_thumbnails: int = MAX_THUMBNAILS) -> None:
    """Writes the page of one video: player, timeline, list, table.

    Args:
      output: the HTML file; its folder is made.
      video: the file, which the page names by its path from the page's
        folder; None for a page without a player.
      title, duration_seconds, fps: of the video.
      predictions: in any order.
      ground_truth: None where it is not known; empty where there is none.
      thumbnails: pictures at the middles of the segments.
      thresholds: score from which a class's detections are to be trusted.
      embed_video: puts the file into the page, for one that can be sent.
      max_thumbnails: what scores best has pictures first.

    Raises:
      InputError: a detection that is none, or a file too large to embed.
    """
    found = [_row(entry, f"{title}: prediction {number}", ("score",))
             for number, entry in enumerate(predictions)]
    actions = None if ground_truth is None else [
        _row(entry, f"{title}: action {number}", ())
        for number, entry in enumerate(ground_truth)]
    found.sort(key=lambda row: (row[0], row[1], -row[3]))
    labels = sorted({row[2] for row in [*found, *(actions or [])]})
    number = {label: index for index, label in enumerate(labels)}
    pictures, places = _thumbnails(
        video if thumbnails else None, found, actions or [],
        duration_seconds, max_thumbnails)
    rows = [[*row[:2], number[row[2]], row[3], place] for row, place
            in zip(found, places, strict=False)]
    truth = None if actions is None else [
        [*row[:2], number[row[2]], place] for row, place
        in zip(actions, places[len(found):], strict=True)]
    source = _video_source(video, output.parent, embed_video)
    write_page(output, make_document(
        "video.html", title=title, styles=_STYLES, scripts=_SCRIPTS,
        content={"facts": _facts(found, actions, labels, duration_seconds,
                                 fps, thresholds or {}),
                 "player": _player(video, source, title),
                 "table": _table(found, actions)},
        data={"title": title, "duration": duration_seconds, "fps": fps,
              "labels": labels, "predictions": rows, "truth": truth,
              "pictures": pictures, "poster": _poster(rows, pictures),
              "thresholds": None if thresholds is None else [
                  float(thresholds.get(label, 0.0)) for label in labels]}))


def read_video_page(path: Path) -> VideoPage:
    """What `write_video_page` wrote, for a list of pages.

    Raises:
      InputError: no such page.
    """
    try:
        found = _DATA.search(path.read_text("utf-8"))
        data = json.loads(found[1] if found else "")
        poster = data["poster"]
        least = data["thresholds"] or [0.0] * len(data["labels"])
        return VideoPage(
            path, data["title"], data["duration"], tuple(data["labels"]),
            tuple(tuple(row[:4]) for row in data["predictions"]
                  if row[3] >= least[row[2]]),
            None if data["truth"] is None else len(data["truth"]),
            data["pictures"][poster] if poster >= 0 else "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no page of a video that can be read "
                         f"({error}); write it again") from error


def _row(entry: Mapping[str, Any], where: str, more: tuple[str, ...]
         ) -> tuple[Any, ...]:
    """(start, end, label, score if any) as plain numbers."""
    try:
        start, end = map(float, entry["segment"])
        numbers = [start, end, *(float(entry[key]) for key in more)]
        label = str(entry["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: has no {', '.join(('segment', 'label', *more))} that "
            f"can be read ({error!r})") from error
    if not all(map(math.isfinite, numbers)) or end < start:
        raise InputError(f"{where}: {numbers} holds a number that is not "
                         "finite, or ends before it starts")
    return (start, end, label, *numbers[2:])


def _thumbnails(video: Path | None, found: Sequence[tuple],
                actions: Sequence[tuple], duration_seconds: float,
                most: int) -> tuple[list[str], list[int]]:
    """Pictures, and the place of each detection's and action's; -1: none."""
    segments = [*found, *actions]
    places = [-1] * len(segments)
    if video is None:
        return [], places
    # What scores best first, and as many actions.
    ranked = sorted(range(len(found)), key=lambda index: -found[index][3])
    order = [index for pair in itertools.zip_longest(
        ranked, range(len(found), len(segments))) for index in pair
        if index is not None]
    moments: dict[int, float] = {}
    for index in order:
        middle = min(max(sum(segments[index][:2]) / 2, 0.0),
                     max(duration_seconds, 0.0))
        key = round(middle / _SAME_MOMENT_SECONDS)
        if key in moments or len(moments) < most:
            moments.setdefault(key, middle)
            places[index] = key
    keys = sorted(moments)
    pictures = read_thumbnails(video, [moments[key] for key in keys])
    kept = [key for key, picture in zip(keys, pictures, strict=True)
            if picture]
    place_of = {key: place for place, key in enumerate(kept)}
    return ([picture for picture in pictures if picture],
            [place_of.get(key, -1) for key in places])


def _poster(rows: Sequence[Sequence[Any]], pictures: Sequence[str]) -> int:
    """The picture of the best detection that has one."""
    best = max((row for row in rows if row[4] >= 0),
               key=lambda row: row[3], default=None)
    if best is not None:
        return best[4]
    return 0 if pictures else -1


def _video_source(video: Path | None, folder: Path, embed: bool) -> str:
    if video is None:
        return ""
    if embed:
        mib = video.stat().st_size / 2 ** 20
        if mib > MAX_EMBEDDED_MIB:
            raise InputError(f"{video}: {mib:.0f} MiB are too many to put "
                             f"into a page (at most {MAX_EMBEDDED_MIB}); "
                             "leave the video beside it")
        return data_uri(video.read_bytes(), _KINDS.get(
            video.suffix.lower(), "video/mp4"))
    return link(video, folder)


def link(target: Path, folder: Path) -> str:
    """Address of a file from a page in `folder`."""
    try:
        path = os.path.relpath(target, folder).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        return target.absolute().as_uri()
    address = quote(os.fsencode(path))
    # A colon in the first part would be read as a scheme.
    return address if address.startswith(".") else f"./{address}"


def _player(video: Path | None, source: str, title: str) -> str:
    if video is None:
        return ('<p class="notice">There is no video to play: the timeline '
                "shows what was found in its features.</p>")
    return (f'<video id="video" controls preload="metadata" playsinline '
            f'src="{escape(source)}" data-name="{escape(video.name)}" '
            f'aria-label="{escape(title)}"></video>')


def _facts(found: Sequence[tuple], actions: Sequence[tuple] | None,
           labels: Sequence[str], duration_seconds: float, fps: float,
           thresholds: Mapping[str, float]) -> str:
    strong = sum(row[3] >= thresholds.get(row[2], 0.0) for row in found)
    weaker = len(found) - strong
    facts = [clock(duration_seconds), f"{fps:.4g} fps",
             _count(strong, "detection")
             + (f" and {weaker:,} weaker" if weaker else ""),
             f"{len(labels)} class{'' if len(labels) == 1 else 'es'}"]
    if actions is not None:
        facts.append(f"{_count(len(actions), 'action')} annotated")
    return "".join(f"<li>{escape(fact)}</li>" for fact in facts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(found: Sequence[tuple], actions: Sequence[tuple] | None) -> str:
    """Rows by time; the script hides and links them, it makes none."""
    lines = [(row[0], row[1], row[2], f"{row[3]:.3f}", f"p{index}")
             for index, row in enumerate(found)]
    lines += [(row[0], row[1], row[2], "annotated", f"t{index}")
              for index, row in enumerate(actions or [])]
    return "".join(
        f'<tr data-id="{name}"><th scope="row">{escape(label)}</th>'
        f'<td><button type="button">{clock(start)}</button></td>'
        f"<td>{clock(end)}</td><td>{end - start:.2f} s</td>"
        f"<td>{score}</td></tr>"
        for start, end, label, score, name in sorted(lines))


def write_folder_page(output: Path, pages: Sequence[VideoPage], *,
                      title: str,
                      broken: Mapping[str, str] | None = None) -> None:
    """Writes the list of a folder's pages.

    Args:
      output: the HTML file.
      pages: in the order shown; see `read_video_page`.
      title: of the folder.
      broken: reason of each video that has no page.
    """
    cards = "".join(video_card(page, output.parent) for page in pages)
    lost = "".join(
        f"<li><strong>{escape(name)}</strong> "
        f"{escape(reason.removeprefix(f'{name}: '))}</li>"
        for name, reason in (broken or {}).items())
    total = sum(page.duration_seconds for page in pages)
    facts = [_count(len(pages), "video"), clock(total),
             _count(sum(len(page.segments) for page in pages), "detection")]
    if lost:
        facts.append(f"{len(broken or {})} without a page")
    write_page(output, make_document(
        "folder.html", title=title, styles=("base.css", "folder.css"),
        scripts=("theme.js", "folder.js"),
        content={"facts": "".join(f"<li>{fact}</li>" for fact in facts),
                 "cards": cards, "broken": lost and (
                     '<section class="card"><h2>Videos without a page</h2>'
                     f'<ul class="broken">{lost}</ul></section>')}))


def video_card(page: VideoPage, folder: Path) -> str:
    """A link to the page with picture, name and a strip of its time."""
    picture = (f'<img src="{page.poster}" alt="" loading="lazy">'
               if page.poster else '<span class="blank"></span>')
    facts = f"{clock(page.duration_seconds)} · " + _count(
        len(page.segments), "detection")
    if page.num_actions is not None:
        facts += f" · {_count(page.num_actions, 'action')}"
    note = f'<p class="note">{escape(page.note)}</p>' if page.note else ""
    return (
        f'<li class="video" data-name="{escape(page.title.lower())}">'
        f'<a href="{escape(link(page.path, folder))}">{picture}'
        f"<h3>{escape(page.title)}</h3></a><p>{escape(facts)}</p>{note}"
        f"{_strip(page)}</li>")


def _strip(page: VideoPage, most: int = 60) -> str:
    """The best detections along the video, in their classes' colors."""
    duration = max(page.duration_seconds, 1e-9)
    best = sorted(page.segments, key=lambda row: -row[3])[:most]
    top = max((row[3] for row in best), default=1.0) or 1.0
    lane = 100 / max(len(page.labels), 1)
    bars = "".join(
        f'<rect class="hue{row[2] % 12}" x="{1000 * row[0] / duration:.1f}" '
        f'width="{max(1000 * (row[1] - row[0]) / duration, 4):.1f}" '
        f'y="{lane * row[2]:.1f}" height="{lane:.1f}" '
        f'opacity="{max(row[3] / top, 0.1):.2f}"/>'
        for row in reversed(best))
    return ('<svg class="strip" viewBox="0 0 1000 100" '
            'preserveAspectRatio="none" aria-hidden="true">'
            f"{bars}</svg>")
