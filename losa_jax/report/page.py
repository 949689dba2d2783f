"""The page of one video, and the page that lists those of a folder."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from losa_jax.errors import InputError
from losa_jax.report.document import clock, write_page
from losa_jax.report.thumbnails import read_thumbnails

# start_seconds, end_seconds, class name, and the score of a detection
Segment = tuple[Any, ...]

MAX_THUMBNAILS = 200  # keeps the page small
# Detections drawn in the strip of a video on a list.
_MAX_IN_STRIP = 60
# Segments whose middles are this close share a thumbnail.
_SAME_MOMENT_SECONDS = 0.5
_DATA = re.compile(
    r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


class VideoPage(NamedTuple):
    """What a list of pages shows of one page."""

    path: Path
    title: str  # of the video
    duration_seconds: float
    labels: tuple[str, ...]  # class names
    # start_seconds, end_seconds, index of the class and score of detections
    # that reach the threshold of their class
    segments: tuple[tuple[float, float, int, float], ...]
    num_actions: int | None = None  # in the ground truth, if it is known
    poster: str = ""  # data URI of an image
    note: str = ""  # short remark, such as its mAP


def write_video_page(output: Path, video: Path | None, *, title: str,
                     duration_seconds: float, fps: float,
                     predictions: Iterable[Segment],
                     ground_truth: Sequence[Segment] | None = None,
                     thresholds: Mapping[str, float] | None = None,
                     list_page: Path | None = None,
                     max_thumbnails: int = MAX_THUMBNAILS) -> None:
    """Writes the page of one video and creates its folder.

    The page refers to the video by its relative path; without a video it has
    no player. A ground truth that is not known is None, not empty. Detections
    from the `thresholds` of their classes on are shown first, and the best
    scores get thumbnails first. A link leads to `list_page`, the page of all
    videos.
    """
    detections = sorted(predictions,
                        key=lambda row: (row[0], row[1], -row[3]))
    actions = ground_truth or ()
    labels = sorted({row[2] for row in (*detections, *actions)})
    images, image_of = _thumbnails(video, detections, actions, duration_seconds,
                                   max_thumbnails)
    rows = [[start, end, labels.index(label), *score, image]
            for (start, end, label, *score), image
            in zip((*detections, *actions), image_of, strict=True)]
    best = max((row for row in rows[:len(detections)] if row[-1] >= 0),
               key=lambda row: row[3], default=None)
    poster = best[-1] if best else 0 if images else -1
    least = thresholds or {}
    strong = sum(row[3] >= least.get(row[2], 0.0) for row in detections)
    weaker = len(detections) - strong
    facts = [clock(duration_seconds), f"{fps:.4g} fps",
             count_text(strong, "detection")
             + (f" and {weaker:,} weaker" if weaker else ""),
             f"{len(labels)} class{'' if len(labels) == 1 else 'es'}"]
    if ground_truth is not None:
        facts.append(f"{count_text(len(actions), 'action')} annotated")
    write_page(
        output, "video.html", title=title, facts=facts,
        styles=("base.css", "video.css"),
        scripts=("theme.js", "player.js", "timeline.js", "timeline_canvas.js",
                 "video.js"),
        content={"back": "" if list_page is None else (
                     f'<a href="{escape(link(list_page, output.parent))}">'
                     "All videos</a>"),
                 "table": _table(detections, actions),
                 "player": _player(video, output.parent, title)},
        data={"title": title, "duration": duration_seconds, "fps": fps,
              "labels": labels, "predictions": rows[:len(detections)],
              "truth": None if ground_truth is None else rows[len(detections):],
              "images": images, "poster": poster,
              "thresholds": None if thresholds is None else [
                  float(thresholds.get(label, 0.0)) for label in labels]})


def read_video_page(path: Path) -> VideoPage:
    """Reads a page's entry in lists of pages, or raises InputError."""
    try:
        match = _DATA.search(path.read_text("utf-8"))
        data = json.loads(match[1] if match else "")
        poster = data["poster"]
        least = data["thresholds"] or [0.0] * len(data["labels"])
        return VideoPage(
            path, data["title"], data["duration"], tuple(data["labels"]),
            tuple(tuple(row[:4]) for row in data["predictions"]
                  if row[3] >= least[row[2]]),
            None if data["truth"] is None else len(data["truth"]),
            data["images"][poster] if poster >= 0 else "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a readable page of a video "
                         f"({error}); write it again") from error


def _thumbnails(video: Path | None, detections: Sequence[Segment],
                actions: Sequence[Segment], duration_seconds: float, most: int
                ) -> tuple[list[str], list[int]]:
    """Returns images, and the image index of each segment; -1: no image."""
    segments = [*detections, *actions]
    if video is None:
        return [], [-1] * len(segments)
    # The best scores first, and as many actions.
    ranked = sorted(range(len(detections)),
                    key=lambda index: -detections[index][3])
    moments: dict[int, float] = {}
    keys = [-1] * len(segments)
    for index in itertools.chain.from_iterable(itertools.zip_longest(
            ranked, range(len(detections), len(segments)))):
        if index is None:
            continue
        start, end, *_ = segments[index]
        middle = min(max((start + end) / 2, 0.0), max(duration_seconds, 0.0))
        key = round(middle / _SAME_MOMENT_SECONDS)
        if key in moments or len(moments) < most:
            moments.setdefault(key, middle)
            keys[index] = key
    images = dict(zip(moments, read_thumbnails(video, [*moments.values()]),
                      strict=True))
    kept = [key for key in sorted(images) if images[key]]
    return ([images[key] for key in kept],
            [kept.index(key) if key in kept else -1 for key in keys])


def link(target: Path, folder: Path) -> str:
    """Returns the address of a file from a page in `folder`."""
    try:
        path = os.path.relpath(target, folder).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        return target.absolute().as_uri()
    address = quote(os.fsencode(path))
    # A colon in the first part would be read as a scheme.
    return address if address.startswith(".") else f"./{address}"


def _player(video: Path | None, folder: Path, title: str) -> str:
    if video is None:
        return ('<p class="notice">There is no video to play. The timeline '
                "shows what was detected in the video's features.</p>")
    return (f'<video id="video" controls preload="metadata" playsinline '
            f'src="{escape(link(video, folder))}" '
            f'data-name="{escape(video.name)}" '
            f'aria-label="{escape(title)}"></video>')


def count_text(number: int, noun: str) -> str:
    """Returns "1 video" or "2 videos"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(detections: Sequence[Segment], actions: Sequence[Segment]) -> str:
    """Returns rows by time; the script only hides and links them."""
    lines = [(*row[:3], f"{row[3]:.3f}", f"p{index}")
             for index, row in enumerate(detections)]
    lines += [(*row, "annotated", f"t{index}")
              for index, row in enumerate(actions)]
    return "".join(
        f'<tr data-id="{name}"><th scope="row">{escape(label)}</th>'
        f'<td><button type="button">{clock(start)}</button></td>'
        f"<td>{clock(end)}</td><td>{end - start:.2f} s</td>"
        f"<td>{score}</td></tr>"
        for start, end, label, score, name in sorted(lines))


def write_folder_page(output: Path, pages: Sequence[VideoPage], *,
                      title: str,
                      broken: Mapping[str, str] | None = None) -> None:
    """Writes the list of a folder's pages (`read_video_page`), in this order.

    `broken` is {video: reason} of the videos without a page.
    """
    total = sum(page.duration_seconds for page in pages)
    facts = [count_text(len(pages), "video"), clock(total), count_text(
        sum(len(page.segments) for page in pages), "detection")]
    cards = "".join(video_card(page, output.parent) for page in pages)
    parts = [f'<ul class="videos cards" id="videos">{cards}</ul>']
    if broken:
        facts.append(f"{len(broken)} without a page")
        reasons = "".join(
            f"<li><strong>{escape(name)}</strong> "
            f"{escape(reason.removeprefix(f'{name}: '))}</li>"
            for name, reason in broken.items())
        parts.append('<section class="card"><h2>Videos without a page</h2>'
                     f'<ul class="broken soft">{reasons}</ul></section>')
    write_list_page(output, title=title, facts=facts, parts=parts)


def write_list_page(output: Path, *, title: str, facts: Sequence[str],
                    parts: Sequence[str], styles: Sequence[str] = ()
                    ) -> None:
    """Writes a page with a search field for the element "videos".

    `parts` are HTML, and `styles` package files besides the usual ones.
    """
    write_page(output, "folder.html", title=title, facts=facts,
               styles=("base.css", "folder.css", *styles),
               scripts=("theme.js", "folder.js"),
               content={"parts": "".join(parts)})


def video_card(page: VideoPage, folder: Path) -> str:
    """Returns a link to a page with image, name and strip of detections."""
    image = (f'<img src="{page.poster}" alt="" loading="lazy">'
             if page.poster else '<span class="blank"></span>')
    facts = [clock(page.duration_seconds),
             count_text(len(page.segments), "detection")]
    if page.num_actions is not None:
        facts.append(count_text(page.num_actions, "action"))
    note = page.note and f'<p class="note soft">{escape(page.note)}</p>'
    return (
        '<li class="card column video" '
        f'data-name="{escape(page.title.lower())}">'
        f'<a href="{escape(link(page.path, folder))}">{image}'
        f"<h3>{escape(page.title)}</h3></a>"
        f'<p class="soft">{" · ".join(facts)}</p>{note}{_strip(page)}</li>')


def _strip(page: VideoPage) -> str:
    """Returns the best detections along the video, by class and score."""
    duration = max(page.duration_seconds, 1e-9)
    best = sorted(page.segments, key=lambda row: -row[3])[:_MAX_IN_STRIP]
    top = best[0][3] if best else 1.0
    height = 100 / max(len(page.labels), 1)
    bars = "".join(
        f'<rect class="hue{label % 12}" x="{1000 * start / duration:.1f}" '
        f'width="{max(1000 * (end - start) / duration, 4):.1f}" '
        f'y="{height * label:.1f}" height="{height:.1f}" '
        f'opacity="{max(score / (top or 1.0), 0.1):.2f}"/>'
        for start, end, label, score in reversed(best))
    return ('<svg class="strip" viewBox="0 0 1000 100" '
            'preserveAspectRatio="none" aria-hidden="true">'
            f"{bars}</svg>")
