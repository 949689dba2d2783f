"""CVAT, which has no intervals: tracks, their attributes, tags of frames.

"CVAT for video 1.1" has tracks: an action lasts from a shape that is not
outside to the next one that is. "CVAT for images 1.1" and "Datumaro 1.0" have
tags: those of frames in a row are one action. Frames count in the video from 0,
in the steps of the task.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.errors import InputError

TITLE = "CVAT"


class _Task(NamedTuple):
    video: Parts
    step: int = 1
    start: int = 0


def recognizes(file: File) -> bool:
    """Whether this is XML of CVAT, or Datumaro's JSON."""
    if isinstance(file.json, dict):
        return {"items", "categories"} <= file.json.keys()
    return file.xml is not None and file.xml.tag == "annotations" and (
        file.xml.find("meta") is not None or file.xml.find("track") is not None)


def read(file: File, content: Content) -> None:
    """Reads tracks and tags; with --attribute the runs of its values."""
    if file.xml is None:
        _read_datumaro(file, content)
        return
    tasks = _tasks(file.xml, file, content)
    for track in file.xml.findall("track"):
        _read_track(track, _task_of(track, tasks, file), file, content)
    frames: dict[_Task, list[int]] = defaultdict(list)
    labels: dict[_Task, dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(list))
    shapes = 0
    for image in file.xml.findall("image"):
        task, number = _task_of(image, tasks, file), int(image.get("id", "0"))
        frames[task].append(number)
        tags = image.findall("tag")
        for tag in tags:
            labels[task][tag.get("label", "")].append(number)
        shapes += len(image.findall("*")) - len(tags)
    if shapes:
        content.remark("shapes of single frames, left out", f"{shapes} in "
                       f"{file.path.name}")
    for task, of_label in labels.items():
        numbers = sorted(frames[task])
        if any(two - one < task.step for one, two in zip(
                numbers, numbers[1:], strict=False)):
            # Frames of the task in place of those of the video.
            of_label = {label: [task.start + task.step * one for one in some]
                        for label, some in of_label.items()}
        _add_tags(task, of_label, content)


def _tasks(root: Element, file: File, content: Content) -> dict[str, _Task]:
    """Returns the tasks by their id."""
    tasks = {}
    meta = root.find("meta")
    entries = [] if meta is None else [
        one for one in meta.iter() if one.tag in ("task", "job")]
    for entry in entries:
        address = (entry.findtext("source") or "" if meta is None
                   else entry.findtext("source") or meta.findtext("source")
                   or "")
        subset = (entry.findtext("subset") or "") if len(entries) > 1 else ""
        video = (content.video(address, subset=subset) if address else
                 content.unnamed_video(file.path, entry.findtext("name") or
                                       ""))
        step = re.search(r"step=(\d+)", entry.findtext("frame_filter") or "")
        tasks[entry.findtext("id") or ""] = _Task(
            video, max(1, int(step[1])) if step else 1,
            int(entry.findtext("start_frame") or 0))
    return tasks or {"": _Task(content.unnamed_video(file.path))}


def _task_of(element: Element, tasks: Mapping[str, _Task], file: File
             ) -> _Task:
    name = element.get("task_id", "")
    if name in tasks:
        return tasks[name]
    if len(tasks) > 1:
        raise InputError(f"{file.name}: the {element.tag} {element.get('id')} "
                         f"is of task {name!r}, which the file does not list")
    return next(iter(tasks.values()))


def _read_track(track: Element, task: _Task, file: File, content: Content
                ) -> None:
    attribute = content.options.attribute
    where = f"{file.path.name}, track {track.get('id')}"
    # Of shapes that are there twice, as at the borders of jobs, one counts.
    shapes: dict[int, Element] = {}
    try:
        for shape in track:
            shapes[int(shape.get("frame", ""))] = shape
    except ValueError as error:
        raise InputError(f"{where}: a shape has the frame "
                         f"{shape.get('frame')!r}") from error
    label, start, value = track.get("label", ""), -1, ""
    segments: list[tuple[str, int, int]] = []
    for frame, shape in sorted(shapes.items()):
        is_visible = shape.get("outside", "0") not in ("1", "true")
        new = _value(shape, content, value) if attribute else label
        if start >= 0 and (not is_visible or new != value):
            segments.append((value, start, frame))
            start = -1
        if is_visible and start < 0:
            start, value = frame, new
        last = frame
    if start >= 0:
        segments.append((value, start, last + task.step))
    for name, first, end in segments:
        if attribute and content.options.is_background(name):
            continue
        fps = content.fps_of(task.video)
        content.add(task.video, name, first / fps, end / fps, where=where)


def _value(shape: Element, content: Content, before: str) -> str:
    """Returns the value of the chosen attribute; the one before if a shape
    has none."""
    for one in shape.findall("attribute"):
        if content.is_chosen("attribute", name := one.get("name", "")):
            text = (one.text or "").strip()
            return {"true": name, "false": ""}.get(text, text)
    return before


def _add_tags(task: _Task, labels: Mapping[str, Sequence[int]],
              content: Content) -> None:
    for label, frames in labels.items():
        fps = content.fps_of(task.video)
        for first, end in tables.runs(frames, task.step):
            content.add(task.video, label, first / fps, end / fps)


def _read_datumaro(file: File, content: Content) -> None:
    names = [one["name"] for one in file.json["categories"]["label"]["labels"]]
    labels: dict[str, list[int]] = defaultdict(list)
    frames = []
    for number, item in enumerate(file.json["items"]):
        frame = _frame(item, number)
        frames.append(frame)
        for one in item.get("annotations") or []:
            if one.get("type") == "label":
                labels[names[one["label_id"]]].append(frame)
    frames.sort()
    step = min((two - one for one, two in zip(frames, frames[1:],
                                              strict=False) if two > one),
               default=1)
    name = "" if file.path.stem == "default" else file.path.stem
    _add_tags(_Task(content.unnamed_video(file.path, name), step), labels,
              content)


def _frame(item: Mapping[str, Any], number: int) -> int:
    frame = (item.get("attr") or {}).get("frame")
    if frame is None:
        match = re.search(r"(\d+)$", str(item.get("id", "")))
        return int(match[1]) if match else number
    return int(frame)
