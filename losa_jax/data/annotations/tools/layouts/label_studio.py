"""Label Studio: JSON, JSON_MIN, CSV and TSV exports.

Frames count from 1 with the last included, at the frameRate of the <Video> tag
in the labeling configuration, 24 without one; no export holds that rate. The
template that labels the sound of a video has seconds.
"""

import json
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from losa_jax.data.annotations.tools import tables, video_names
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File, open_file
from losa_jax.data.annotations.tools.recording import (
    Recording,
    class_names,
    one_line,
)
from losa_jax.errors import InputError
from losa_jax.utils.names import VIDEO_ENDINGS
from losa_jax.utils.text_files import parse_json

TITLE = "Label Studio"

_USUAL_FPS = 24.0
_CONFIGURATION = "config.xml"
_TAG = "actions"  # of the configuration that we write
# The rate in the data of our tasks, which every export repeats.
_FPS = "losa_jax_fps"
# Columns of JSON_MIN and CSV that are not of the user.
_OWN_COLUMNS = {"id", "annotation_id", "annotator", "created_at", "updated_at",
                "lead_time", "agreement", "history", "source"}


class _Region(NamedTuple):
    """Labels of a segment, in frames or seconds."""

    labels: list[str]
    start: float
    end: float
    has_frames: bool
    score: float | None


class _Annotation(NamedTuple):
    """What one person did with one task."""

    person: str
    email: str
    regions: list[_Region]
    others: int  # results that are no segments


class _Task(NamedTuple):
    name: str
    data: Mapping[str, Any]
    annotations: list[_Annotation]
    predictions: list[_Annotation]


def recognizes(file: File) -> bool:
    """Whether this is a list of tasks, or a table of annotations."""
    if file.json is not None:
        return isinstance(file.json, list) and any(
            isinstance(row, dict) and any(keys <= row.keys() for keys in (
                {"data", "annotations"}, {"data", "predictions"},
                {"data", "completions"}, {"id", "annotation_id", "annotator"}))
            for row in file.json)
    return not file.is_archive and tables.read_table(
        file.text, _is_header, 1) is not None


def is_configuration(file: File) -> bool:
    """Whether this is a labeling configuration."""
    return file.xml is not None and file.xml.tag == "View"


def _is_header(columns: list[str]) -> bool:
    return {"annotation_id", "annotator", "id"} <= set(columns)


def read(file: File, content: Content) -> None:
    """Reads one annotation of each task: the first, or that of the chosen
    person."""
    rate = _rate(file, content)
    for task in _tasks(file):
        where = f"task {task.name}"
        chosen = [one for one in task.annotations if content.is_chosen(
            "annotator", one.person, *filter(None, [one.email]))]
        if (wanted := content.options.annotator) and not chosen:
            content.remark(f"tasks without an annotation of {wanted!r}, "
                           "left out", where)
            continue
        if len(chosen) > 1:
            people = ", ".join(dict.fromkeys(one.person for one in chosen))
            content.remark("tasks with several annotations: the first is "
                           "taken (--annotator=ID)", f"{where}, of {people}")
        if not chosen:
            if not task.predictions:
                content.remark("tasks without an annotation, left out", where)
                continue
            if not content.predicted(where):
                continue
            chosen = task.predictions
        _add(task, chosen[0], file, rate, content)


def _add(task: _Task, annotation: _Annotation, file: File,
         rate: Any, content: Content) -> None:
    address = _address(task.data)
    video = (content.video(address) if address else
             content.unnamed_video(file.path, f"task {task.name}"))
    if annotation.others:
        content.remark("results that are no segments, left out",
                       f"task {task.name}")
    for region in annotation.regions:
        start, end = region.start, region.end
        if region.has_frames:
            fps = rate(task.data)
            start, end = (start - 1) / fps, end / fps
        where = f"{file.path.name}, task {task.name}, at {region.start:g}"
        for label in region.labels or [""]:
            content.add(video, label, start, end, where=where,
                        score=region.score)


def _rate(file: File, content: Content) -> Any:
    """Returns a function of a task's data that returns frames a second."""
    options = content.options
    beside = file.path.with_name(_CONFIGURATION)
    path = options.companion or (
        beside if options.fps is None and beside.is_file() else None)
    setting = _configured_rate(path) if path else f"${_FPS}"

    def rate(data: Mapping[str, Any]) -> float:
        text = (str(data.get(setting[1:], "")) if setting.startswith("$")
                else setting)
        try:
            fps = tables.number(text) if text else None
        except ValueError as error:
            raise InputError(f"{path}: frameRate={text!r} is no number"
                             ) from error
        if fps is None and options.fps is None:
            content.remark(
                "exports without the frameRate of their labeling "
                f"configuration: {_USUAL_FPS:g} frames a second are assumed "
                "(--fps=RATE, or --companion=config.xml)",
                file.path.name)
            fps = _USUAL_FPS
        return content.fps_of((_address(data) or file.path.name,), fps)

    return rate


def _configured_rate(path: Path) -> str:
    root = open_file(path).xml
    if root is None or root.tag != "View":
        raise InputError(f"{path}: is no labeling configuration of Label "
                         "Studio (<View>)")
    return next((one.get("frameRate", "").strip()
                 for one in root.iter("Video") if one.get("frameRate")), "")


def _address(data: Mapping[str, Any]) -> str:
    """Returns the address of a task's video, "" if there is none."""
    texts = {key: value for key, value in data.items()
             if isinstance(value, str) and value.strip()}

    def rank(item: tuple[str, str]) -> int:
        key, value = item
        ending = Path(video_names.parts_of(value)[-1]).suffix.lower()
        return (0 if ending in VIDEO_ENDINGS else
                1 if "video" in key.lower() else
                2 if "/" in value else 3)

    best = min(texts.items(), key=rank, default=None)
    return best[1] if best and rank(best) < 3 else ""


def _tasks(file: File) -> Iterator[_Task]:
    if file.json is None:
        table = tables.read_table(file.text, _is_header, 1)
        assert table is not None
        rows: list[dict[str, Any]] = [
            {key: _cell(value, f"{file.name}, line {row.line}")
             for key, value in row.cells.items() if value}
            for row in table.rows]
    else:
        rows = file.json
        if any("data" in row for row in rows):
            yield from map(_full_task, rows)
            return
    tasks: dict[str, _Task] = {}
    for row in rows:
        name = str(row.get("id"))
        data = {key: value for key, value in row.items()
                if key not in _OWN_COLUMNS}
        regions = [value if isinstance(value, list) else [value]
                   for value in data.values()
                   if isinstance(value, (list, dict))]
        task = tasks.setdefault(name, _Task(name, data, [], []))
        if row.get("annotation_id") not in (None, ""):
            segments = [one for values in regions for value in values
                     for one in _regions(value, None)]
            task.annotations.append(_Annotation(
                str(row.get("annotator")), "", segments, 0))
    yield from tasks.values()


def _cell(text: str, where: str) -> Any:
    return parse_json(text, where) if text.startswith(("[", "{")) else text


def _full_task(row: Mapping[str, Any]) -> _Task:
    def annotation(entry: Mapping[str, Any]) -> _Annotation:
        person: Any = entry.get("completed_by")
        email = ""
        if isinstance(person, dict):
            person, email = person.get("id"), str(person.get("email") or "")
        results = [one for one in entry.get("result") or []
                   if isinstance(one, dict)]
        regions = [region for one in results for region in _regions(
            one.get("value"), one.get("score", entry.get("score")))]
        return _Annotation(str(person), email, regions, sum(
            not list(_regions(one.get("value"), None)) for one in results))

    return _Task(
        str(row.get("id")), row.get("data") or {},
        # Before version 1 annotations were called completions.
        [annotation(one) for one in row.get("annotations")
         or row.get("completions") or [] if not one.get(
             "was_cancelled")],
        [annotation(one) for one in row.get("predictions") or []
         if isinstance(one, dict)])


def _regions(value: Any, score: Any) -> Iterator[_Region]:
    """Yields the segments of a result's value."""
    if not isinstance(value, dict) or "text" in value:  # a part of a text
        return
    labels = next((value[key] for key in value if key.endswith("labels")
                   and isinstance(value[key], list)), None)
    if labels is None:
        return
    ranges = value.get("ranges")
    try:
        for one in ranges if isinstance(ranges, list) else [value]:
            if {"start", "end"} <= one.keys():
                yield _Region([str(label) for label in labels],
                              float(one["start"]), float(one["end"]),
                              ranges is not None,
                              None if score is None else float(score))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"a result of Label Studio has the value "
                         f"{json.dumps(value)[:80]}: start and end must be "
                         "numbers") from error


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns tasks with predictions, and a labeling configuration whose
    rate is that of each video."""
    view = ElementTree.Element("View")
    labels = ElementTree.SubElement(view, "TimelineLabels", {
        "name": _TAG, "toName": "video"})
    for name in class_names(recordings):
        ElementTree.SubElement(labels, "Label", {"value": name})
    ElementTree.SubElement(view, "Video", {
        "name": "video", "value": "$video", "frameRate": f"${_FPS}",
        "timelineHeight": "120"})
    ElementTree.indent(view)
    return {"tasks.json": json.dumps([_task(one) for one in recordings],
                                     ensure_ascii=False, indent=1),
            _CONFIGURATION: ElementTree.tostring(view, encoding="unicode")}


def _task(recording: Recording) -> dict[str, Any]:
    scores = [row["score"] for row in recording.rows]
    return {
        "data": {"video": "/data/local-files/?d=" + urllib.parse.quote(
            recording.file_name), _FPS: str(recording.fps)},
        "predictions": [{
            "model_version": "losa_jax",
            "score": sum(scores) / max(1, len(scores)),
            "result": [{
                "id": f"a{number}", "type": "timelinelabels",
                "from_name": _TAG, "to_name": "video", "score": row["score"],
                "value": {"ranges": [{"start": row["start_frame"] + 1,
                                      "end": row["end_frame"]}],
                          "timelinelabels": [one_line(row["label"])]}}
                for number, (row, _, _) in enumerate(recording.timed(), 1)]}]}
