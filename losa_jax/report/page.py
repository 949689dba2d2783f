"""The page of one video: player, timeline, list and table of detections.

A detection is {"segment": [start_seconds, end_seconds], "label": name,
"score": number}, as in predictions.json; an action of the ground truth is the
same without a score.
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
    escape,
    items,
    make_document,
    write_page,
)
from losa_jax.report.thumbnails import read_thumbnails

# Keeps the page small.
MAX_THUMBNAILS = 200
# Segments whose middles are this close share a thumbnail.
_SAME_MOMENT_SECONDS = 0.5
_DATA = re.compile(
    r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class VideoPage:
    """What a list of pages shows of one page.

    A segment is (start_seconds, end_seconds, index of the class, score), of
    detections that reach the threshold of their class, if there is one.
    """

    path: Path
    title: str  # of the video
    duration_seconds: float
    labels: tuple[str, ...]  # class names
    segments: tuple[tuple[float, float, int, float], ...]
    num_actions: int | None = None  # in the ground truth, if it is known
    poster: str = ""  # data URI of an image
    note: str = ""  # short remark, such as its mAP


def write_video_page(output: Path, video: Path | None, *, title: str,
                     duration_seconds: float, fps: float,
                     predictions: Sequence[Mapping[str, Any]],
                     ground_truth: Sequence[Mapping[str, Any]] | None = None,
                     thresholds: Mapping[str, float] | None = None,
                     max_thumbnails: int = MAX_THUMBNAILS) -> None:
    """Writes the page of one video.

    Args:
      output: the HTML file; its folder is created.
      video: the file, which the page refers to by its relative path; None
        for a page without a player.
      title, duration_seconds, fps: of the video.
      predictions: in any order.
      ground_truth: None where it is not known; empty where there is none.
      thresholds: {class: score} from which its detections are shown first.
      max_thumbnails: the best scores get thumbnails first.

    Raises:
      InputError: a prediction or an action that is not valid.
    """
    detections = sorted(
        (_row(entry, f"{title}: prediction {index}", "score")
         for index, entry in enumerate(predictions)),
        key=lambda row: (row[0], row[1], -row[3]))
    actions = [_row(entry, f"{title}: action {index}")
               for index, entry in enumerate(ground_truth or ())]
    labels = sorted({row[2] for row in (*detections, *actions)})
    images, image_of = _thumbnails(video, detections, actions, duration_seconds,
                                   max_thumbnails)
    rows = [[start, end, labels.index(label), *score, image]
            for (start, end, label, *score), image
            in zip((*detections, *actions), image_of, strict=True)]
    best = max((row for row in rows[:len(detections)] if row[-1] >= 0),
               key=lambda row: row[3], default=None)
    poster = best[-1] if best else 0 if images else -1
    facts = _facts(detections, labels, duration_seconds, fps, thresholds or {})
    if ground_truth is not None:
        facts.append(f"{count_text(len(actions), 'action')} annotated")
    write_page(output, make_document(
        "video.html", title=title, styles=("base.css", "video.css"),
        scripts=("theme.js", "player.js", "timeline.js", "video.js"),
        content={"facts": items(facts), "table": _table(detections, actions),
                 "player": _player(video, output.parent, title)},
        data={"title": title, "duration": duration_seconds, "fps": fps,
              "labels": labels, "predictions": rows[:len(detections)],
              "truth": None if ground_truth is None else rows[len(detections):],
              "images": images, "poster": poster,
              "thresholds": None if thresholds is None else [
                  float(thresholds.get(label, 0.0)) for label in labels]}))


def read_video_page(path: Path) -> VideoPage:
    """Reads what a list of pages shows of a page of `write_video_page`.

    Raises:
      InputError: no such page.
    """
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


def _row(entry: Mapping[str, Any], where: str, *keys: str
         ) -> tuple[Any, ...]:
    """Returns (start_seconds, end_seconds, label, score if asked for)."""
    try:
        start, end = map(float, entry["segment"])
        numbers = [float(entry[key]) for key in keys]
        label = str(entry["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: needs a valid {', '.join(('segment', 'label', *keys))}"
            f" ({error!r})") from error
    if not all(map(math.isfinite, (start, end, *numbers))) or end < start:
        raise InputError(f"{where}: {[start, end, *numbers]} holds a number "
                         "that is not finite, or ends before it starts")
    return (start, end, label, *numbers)


def _thumbnails(video: Path | None, detections: Sequence[tuple],
                actions: Sequence[tuple], duration_seconds: float,
                most: int) -> tuple[list[str], list[int]]:
    """Returns images, and the image index of each segment; -1: no image."""
    segments = [*detections, *actions]
    keys: list[int | None] = [None] * len(segments)
    if video is None:
        return [], [-1] * len(segments)
    # The best scores first, and as many actions.
    ranked = sorted(range(len(detections)),
                    key=lambda index: -detections[index][3])
    moments: dict[int, float] = {}
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
    index_of = {key: index for index, key in enumerate(kept)}
    return ([images[key] for key in kept],
            [index_of.get(key, -1) if key is not None else -1
             for key in keys])


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


def _facts(detections: Sequence[tuple], labels: Sequence[str],
           duration_seconds: float, fps: float,
           thresholds: Mapping[str, float]) -> list[str]:
    strong = sum(row[3] >= thresholds.get(row[2], 0.0) for row in detections)
    weaker = len(detections) - strong
    return [clock(duration_seconds), f"{fps:.4g} fps",
            count_text(strong, "detection")
            + (f" and {weaker:,} weaker" if weaker else ""),
            f"{len(labels)} class{'' if len(labels) == 1 else 'es'}"]


def count_text(number: int, noun: str) -> str:
    """Returns "1 video" or "2 videos"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(detections: Sequence[tuple], actions: Sequence[tuple]) -> str:
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
