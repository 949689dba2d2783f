"""The page of one video: player, timeline, list and table of detections."""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from losa_jax.errors import InputError
from losa_jax.report.document import clock, escape, write_page
from losa_jax.report.thumbnails import read_thumbnails

# start_seconds, end_seconds, class name, and the score of a detection
Segment = tuple[Any, ...]

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
                     predictions: Iterable[Segment],
                     ground_truth: Sequence[Segment] | None = None,
                     thresholds: Mapping[str, float] | None = None,
                     max_thumbnails: int = MAX_THUMBNAILS) -> None:
    """Writes the page of one video and creates its folder.

    Args:
      video: the file, which the page refers to by its relative path; None
        for a page without a player.
      predictions: in any order.
      ground_truth: None where it is not known; empty where there is none.
      thresholds: {class: score} from which its detections are shown first.
      max_thumbnails: the best scores get thumbnails first.
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
    facts = _facts(detections, labels, duration_seconds, fps, thresholds or {})
    if ground_truth is not None:
        facts.append(f"{count_text(len(actions), 'action')} annotated")
    write_page(
        output, "video.html", title=title, facts=facts,
        styles=("base.css", "video.css"),
        scripts=("theme.js", "player.js", "timeline.js", "video.js"),
        content={"table": _table(detections, actions),
                 "player": _player(video, output.parent, title)},
        data={"title": title, "duration": duration_seconds, "fps": fps,
              "labels": labels, "predictions": rows[:len(detections)],
              "truth": None if ground_truth is None else rows[len(detections):],
              "images": images, "poster": poster,
              "thresholds": None if thresholds is None else [
                  float(thresholds.get(label, 0.0)) for label in labels]})


def read_video_page(path: Path) -> VideoPage:
    """Reads what a list shows of a page, or raises InputError."""
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


def _facts(detections: Sequence[Segment], labels: Sequence[str],
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
