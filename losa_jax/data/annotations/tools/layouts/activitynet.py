"""ActivityNet's layouts: annotations ("database"), predictions ("results"),
the actions of PyTorch-I3D and our own predictions of one video."""

from collections.abc import Mapping
from typing import Any

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.utils.text_files import read_lines

TITLE = "ActivityNet"
_TRAINING_READS = "training reads them with --config.data.reviews=FOLDER"


def recognizes(file: File) -> bool:
    """Whether this is JSON with one of the four layouts."""
    content = file.json
    if not isinstance(content, dict):
        return False
    return isinstance(content.get("database"), dict) or isinstance(
        content.get("results"), dict) or _is_ours(content) or _is_charades(
            content) or any(
                isinstance(one, dict) and "subset" in one
                and isinstance(one.get("annotations"), list)
                for one in content.values())


def _is_ours(content: Mapping[str, Any]) -> bool:
    return {"video", "detections", "shown_from"} <= content.keys()


def _is_charades(content: Mapping[str, Any]) -> bool:
    return any(isinstance(one, dict) and one.get("actions")
               for one in content.values()) and all(
        isinstance(one, dict) and isinstance(one.get("actions"), list)
        and all(isinstance(row, list) and len(row) == 3
                for row in one["actions"]) for one in content.values())


def read(file: File, content: Content) -> None:
    """Reads annotations; predictions only if the user says so."""
    data = file.json
    if _is_ours(data):
        if content.predicted(f"{len(data['detections'])} in "
                             f"{file.path.name}"):
            video = content.video(
                str(data["video"]), is_id=True, fps=data.get("fps"),
                duration_seconds=data.get("duration_seconds"))
            for number, row in enumerate(data["detections"]):
                _add(row, [row.get("start_seconds"), row.get("end_seconds")],
                     f"{file.name}, detection {number}", video, content)
        return
    if isinstance(data.get("results"), dict):
        if content.predicted(f"{len(data['results'])} videos of "
                             f"{file.path.name}"):
            for name, rows in data["results"].items():
                _read_video(name, {}, rows, file, content)
        return
    names = _class_names(content)
    for name, entry in data.get("database", data).items():
        if not isinstance(entry, dict):
            content.problems.append(f"{file.name}: {name} is no object")
            continue
        # Nothing that is written has a place for what a review leaves open.
        if entry.get("reviewed") is not None:
            content.remark("videos reviewed only in part, left out ("
                           f"{_TRAINING_READS})", name)
            continue
        if entry.get("rejected"):
            content.remark("rejected segments of videos, left out ("
                           f"{_TRAINING_READS})", name)
        rows = entry.get("annotations")
        if rows is None:
            rows = [{"label": names.get(str(row[0]), str(row[0])),
                     "segment": row[1:]} for row in entry.get("actions", [])]
        _read_video(name, entry, rows, file, content)


def _class_names(content: Content) -> dict[str, str]:
    """Returns {number: name} of the user's list of classes."""
    if content.options.companion is None:
        return {}
    lines = [line for _, line in read_lines(content.options.companion)]
    pairs = [line.split(maxsplit=1) for line in lines]
    if all(len(pair) == 2 and pair[0].isdigit() for pair in pairs):
        return {str(int(number)): name for number, name in pairs}
    return {str(number): name for number, name in enumerate(lines)}


def _read_video(name: str, entry: Mapping[str, Any], rows: Any, file: File,
                content: Content) -> None:
    video = content.video(
        name, subset=entry.get("subset"), is_id=True,
        duration_seconds=entry.get("duration"), fps=entry.get("fps"))
    if not isinstance(rows, list):
        content.problems.append(f"{file.name}: the annotations of {name} are "
                                "no list")
        return
    for number, row in enumerate(rows):
        where = f"{file.name}, {name}, annotation {number}"
        segment = row.get("segment") if isinstance(row, dict) else None
        _add(row, segment, where, video, content)


def _add(row: Any, segment: Any, where: str, video: Parts, content: Content
         ) -> None:
    try:
        start, end = map(float, segment)
        content.add(video, str(row["label"]), start, end, where=where,
                    score=row.get("score"))
    except (KeyError, TypeError, ValueError) as error:
        content.problems.append(f"{where}: needs label and segment, [start, "
                                f"end] in seconds ({error!r})")
