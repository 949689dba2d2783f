"""VIA 3 (VGG): projects, and its two exports as CSV.

An entry with two times and no region is an action. It is of a view, which
names files. The label is the value of an attribute of segments; of attributes
with options it is the id of one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File, open_file
from losa_jax.data.annotations.tools.recording import (
    Recording,
    class_names,
    one_line,
)
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.errors import InputError
from losa_jax.utils.text_files import parse_json

TITLE = "VIA"

_SEGMENT_ANCHOR = "FILE1_Z2_XY0"
_TEXT, _CHECKBOX, _SELECT = 1, 2, 4  # types of attributes
_IMAGE, _VIDEO = 2, 4  # types of files
_LOCAL, _ADDRESS = 1, 3  # where files are
# The attribute beside the label in the projects that we write.
_SCORE = "score"
_NONE = ("", "_DEFAULT")
_HEADER = re.compile(r"(?m)^#\s*CSV_HEADER\s*=\s*(.*)$")
_ATTRIBUTES = re.compile(r"(?m)^#\s*ATTRIBUTE\s*=\s*(\{.*\})\s*$")


class _Entry(NamedTuple):
    """An entry of the metadata; `values` are {attribute: value}."""

    name: str
    video: Parts
    times: list[float]
    has_region: bool
    values: Mapping[str, str]


def recognizes(file: File) -> bool:
    """Whether this is a project or an export of VIA 3."""
    if file.json is not None:
        return isinstance(file.json, dict) and {
            "metadata", "view", "attribute"} <= file.json.keys()
    return not file.is_archive and bool(_HEADER.search(file.text))


def read(file: File, content: Content) -> None:
    """Reads the segments by the one attribute that describes them, or the
    chosen one."""
    attributes: dict[str, Any] = {}
    has_ids = True
    if file.json is not None:
        attributes = file.json["attribute"]
        entries = list(_project_entries(file, content))
    else:
        if match := _ATTRIBUTES.search(file.text):
            attributes = parse_json(match[1], file.name)
        entries = list(_table_entries(file, content))
        has_ids = bool(attributes)
    companion = content.options.companion
    if not attributes and companion is not None:
        project = open_file(companion).json
        if not isinstance(project, dict) or "attribute" not in project:
            raise InputError(f"{companion}: is no project of VIA 3")
        attributes = project["attribute"]
    chosen = _attribute(attributes, entries, has_ids, file, content)
    facts: Mapping[str, Any] = next(
        (one for key, one in attributes.items()
         if chosen in (key, one.get("aname"))), {})
    key = next((key for key, one in attributes.items() if one is facts),
               chosen) if has_ids else str(facts.get("aname", chosen))
    bare = set()
    for entry in entries:
        if entry.has_region or not entry.times:
            continue
        labels = _labels(entry.values.get(key, ""), facts)
        if not facts and labels:
            bare |= {label for label in labels if label.isdigit()}
        where = f"{entry.name} of {file.path.name}"
        for label in labels or [""]:
            if len(entry.times) == 1:
                content.point(entry.video, label, entry.times[0])
            else:
                content.add(entry.video, label, *entry.times[:2], where=where,
                            score=_score(entry, attributes))
    if bare:
        content.remark("exports whose labels are numbers of options without "
                       "their names: give the project, as "
                       "--companion=project.json", ", ".join(sorted(bare)))


def _attribute(attributes: Mapping[str, Any], entries: list[_Entry],
               has_ids: bool, file: File, content: Content) -> str:
    """Returns the attribute of the labels, by id or name."""
    names = {key: str(one.get("aname", key))
             for key, one in attributes.items()
             if one.get("anchor_id") == _SEGMENT_ANCHOR}
    if len(names) > 1:
        names = {key: name for key, name in names.items() if name != _SCORE}
    used = {key: key for entry in entries if len(entry.times) == 2
            and not entry.has_region for key, value in entry.values.items()
            if value not in _NONE}
    if not attributes or not has_ids:
        names = {key: name for key, name in used.items()
                 if not names or name in names.values()}
    elif len(used.keys() & names.keys()) == 1:
        names = {key: name for key, name in names.items() if key in used}
    content.is_chosen("attribute", *names.values(), *attributes, *(
        str(one.get("aname")) for one in attributes.values()))
    if content.options.attribute:
        return content.options.attribute
    if len(names) > 1:
        raise InputError(
            f"{file.name}: {len(names)} attributes describe segments "
            f"({', '.join(map(repr, names.values()))}): choose the one with "
            "the labels, as --attribute=NAME")
    return next(iter(names), "")


def _score(entry: _Entry, attributes: Mapping[str, Any]) -> float | None:
    key = next((key for key, one in attributes.items()
                if one.get("aname") == _SCORE), "")
    try:
        return float(entry.values.get(key, ""))
    except ValueError:
        return None


def _labels(value: str, facts: Mapping[str, Any]) -> list[str]:
    options = facts.get("options") or {}
    values = (value.split(",") if facts.get("type") == _CHECKBOX else [value])
    return [str(options.get(one, one)) for one in map(str.strip, values)
            if one not in _NONE]


def _project_entries(file: File, content: Content) -> Iterator[_Entry]:
    project = file.json
    videos: dict[str, Parts] = {}
    for name, view in project["view"].items():
        files = [project["file"][str(one)] for one in view["fid_list"]]
        if not files or files[0].get("type") == _IMAGE:
            continue
        if len(files) > 1:
            content.remark("views of several files: the first is taken",
                           f"view {name}")
        address = str(files[0].get("src") or "")
        if not address or address.startswith(("blob:", "data:")):
            address = str(files[0]["fname"])
        videos[name] = content.video(address)
    for name, entry in project["metadata"].items():
        if (video := videos.get(str(entry["vid"]))) is not None:
            yield _Entry(name, video, [float(one) for one in entry["z"]],
                         bool(entry.get("xy")), {
                key: str(value) for key, value in entry["av"].items()})


def _table_entries(file: File, content: Content) -> Iterator[_Entry]:
    header = _HEADER.search(file.text)
    assert header is not None
    lines = [line for line in file.text.splitlines()
             if not line.startswith("#")]
    table = tables.read_table("\n".join([header[1], *lines]),
                              lambda names: "metadata" in names)
    if table is None:
        raise InputError(f"{file.name}: its CSV_HEADER has no \"metadata\"")
    for row in table.rows:
        where = f"{file.name}, entry {row.get('metadata_id')}"
        try:
            files = parse_json(row.get("file_list"), where)
            if row.get("temporal_coordinates"):
                times = [float(one) for one in parse_json(
                    row.get("temporal_coordinates"), where)]
            else:
                times = [float(one) for one in (
                    row.get("temporal_segment_start"),
                    row.get("temporal_segment_end"))
                    if one not in ("", "undefined", "null")]
            values = parse_json(row.get("metadata") or "{}", where)
            region = row.get("spatial_coordinates") not in ("", "[]")
            yield _Entry(row.get("metadata_id"), content.video(str(files[0])),
                         times, region, {key: str(value)
                                         for key, value in values.items()})
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{where}: is not as VIA 3 writes it ({error!r})"
                             ) from error


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a project for each video, with the labels as options."""
    labels = class_names(recordings)
    return {f"{one.video_id}.json": json.dumps(
        _project(one, labels), ensure_ascii=False) for one in recordings}


def _project(recording: Recording, labels: Sequence[str]) -> dict[str, Any]:
    def attribute(name: str, type_number: int, options: dict[str, str]
                  ) -> dict[str, Any]:
        return {"aname": name, "anchor_id": _SEGMENT_ANCHOR,
                "type": type_number, "desc": "", "options": options,
                "default_option_id": ""}

    media = recording.media
    prefixes = dict.fromkeys(("1", "2", "3", "4"), "")
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": recording.video_id, "creator": "losa_jax", "created": 0,
            "data_format_version": "3.1.1", "vid_list": ["1"]},
        "config": {"file": {"loc_prefix": prefixes}, "ui": {
            "file_content_align": "center",
            "file_metadata_editor_visible": True,
            "spatial_metadata_editor_visible": False,
            "temporal_segment_metadata_editor_visible": True,
            "spatial_region_label_attribute_id": "",
            "gtimeline_visible_row_count": "4"}},
        "attribute": {
            "1": attribute("label", _SELECT, {
                str(number): name for number, name in enumerate(labels)}),
            "2": attribute(_SCORE, _TEXT, {})},
        "file": {"1": {
            "fid": "1", "fname": recording.file_name, "type": _VIDEO,
            "loc": _LOCAL if media is None else _ADDRESS,
            "src": "" if media is None else media.absolute().as_uri()}},
        "metadata": {f"1_{number:08d}": {
            "vid": "1", "flg": 0, "z": [start / 1000, end / 1000], "xy": [],
            "av": {"1": str(labels.index(one_line(row["label"]))),
                   "2": f"{row['score']:.4f}"}}
            for number, (row, start, end) in enumerate(recording.timed())},
        "view": {"1": {"fid_list": ["1"]}}}
