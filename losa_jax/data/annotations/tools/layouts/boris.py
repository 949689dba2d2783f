"""BORIS: projects (.boris), tabular events and aggregated events.

A state has no end of its own: its events start and stop it in turn, for each
subject, behavior and modifiers. Times hold the observation's time offset, and
run through the files of a player one after another.
"""

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.data.annotations.tools import tables, video_names
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import (
    Recording,
    class_names,
    lanes,
    one_line,
)
from losa_jax.data.annotations.tools.tables import Row, Table
from losa_jax.errors import InputError

TITLE = "BORIS"

_KEYS = "abcdefghijklmnopqrstuvwxyz0123456789"  # to code behaviors with
_FIELDS = {"behavior", "modifiers", "subject", "category"}  # of --label
_NOTHING = ("", "NA", "None", "Not found", "No focal subject")


class _Event(NamedTuple):
    """An event; `end` is that of aggregated states, `status` START, STOP,
    POINT, or "" for a state of a project."""

    seconds: float
    subject: str
    behavior: str
    modifiers: str
    category: str
    status: str
    end: float | None = None


@dataclass
class _Observation:
    """An observation; players are {number: files}."""

    name: str
    players: dict[str, list[str]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)  # of files
    offsets: dict[str, float] = field(default_factory=dict)  # of players
    time_offset: float = 0.0
    events: list[_Event] = field(default_factory=list)


def recognizes(file: File) -> bool:
    """Whether this is a project, or a table of events."""
    if file.json is not None:
        return isinstance(file.json, dict) and {
            "observations", "behaviors_conf"} <= file.json.keys()
    return not file.is_archive and _table(file) is not None


def read(file: File, content: Content) -> None:
    """Reads the observations, each of the first player or the chosen video."""
    observations = (_project(file) if file.json is not None
                    else _observations(file))
    seen: dict[video_names.Parts, str] = {}
    for one in observations:
        for video in _read_observation(one, file, content):
            if video in seen:
                content.remark("videos in several observations, whose actions "
                               "are joined", f"{video[-1]}: {seen[video]}, "
                               f"{one.name}")
            seen[video] = one.name


def _read_observation(one: _Observation, file: File, content: Content
                      ) -> list[video_names.Parts]:
    """Adds the actions of an observation; returns its videos."""
    where = f"{one.name!r} of {file.path.name}"
    players = {number: files for number, files in sorted(
        one.players.items()) if files}
    if not players:
        content.remark("observations without a video, left out", where)
        return []
    player = next(iter(players))
    if wanted := content.options.video:
        named = [number for number, files in players.items() if any(
            video_names.is_same_video(video_names.parts_of(path), wanted)
            for path in files)]
        if not named:
            content.remark(f"observations without the video {wanted!r}, left "
                           "out", where)
            return []
        if (player := named[0]) != next(iter(players)) and not one.offsets:
            content.remark("tables without the offset of the chosen player: "
                           "give the project, if it is not 0", where)
    elif len(players) > 1:
        content.remark("observations with several players: the first is taken "
                       "(--video=NAME)", where)
    paths = players[player]
    videos = [content.video(path, duration_seconds=one.lengths.get(path))
              for path in paths]
    if len(paths) > 1 and any(path not in one.lengths for path in paths[:-1]):
        raise InputError(f"{file.name}: {one.name!r} plays several files in a "
                         "row and does not state how long they are")
    ends = []
    total = 0.0
    for path in paths:
        total += one.lengths.get(path, float("inf"))
        ends.append(total)
    shift = one.time_offset + one.offsets.get(player, 0.0)
    for event, start, end in _paired(one.events, content, where):
        if not content.is_chosen("subject", event.subject):
            continue
        _place(event, start - shift, None if end is None else end - shift,
               list(zip(videos, ends, strict=True)), content)
    return videos


def _place(event: _Event, start: float, end: float | None,
           files: Sequence[tuple[video_names.Parts, float]],
           content: Content) -> None:
    """Adds an action to the files that play during it, or a moment."""
    label = _label(event, content)
    first = 0.0
    parts = []
    for number, (video, last) in enumerate(files):
        is_last = number == len(files) - 1
        if event.status == "POINT" or end is None or end <= start:
            if first <= start < last or is_last:
                add = (content.point if event.status == "POINT"
                       or end is not None else content.open_event)
                add(video, label, start - first)
                return
        elif start < last or is_last:
            if (stop := end if is_last else min(end, last)) > max(first,
                                                                  start):
                parts.append((video, max(start, first) - first
                              if number else start, stop - first))
        first = last
    if len(parts) > 1:
        content.remark("actions that run on into the next file of their "
                       "player, cut at its border", f"{label!r} at {start:g} "
                       f"s of {parts[0][0][-1]}")
    for video, begin, stop in parts:
        content.add(video, label, begin, stop)


def _label(event: _Event, content: Content) -> str:
    template = content.options.label
    if not template:
        return event.behavior
    if wrong := set(re.findall(r"{(.*?)}", template)) - _FIELDS:
        raise InputError(f"--label: there is no {{{min(wrong)}}}: choose among "
                         f"{', '.join(sorted(_FIELDS))}")
    for name in _FIELDS:
        template = template.replace(f"{{{name}}}", getattr(event, name))
    return re.sub(r"^[\s|,;:/_-]+|[\s|,;:/_-]+$", "", template)


def _paired(events: Sequence[_Event], content: Content, where: str
            ) -> Iterator[tuple[_Event, float, float | None]]:
    """Yields events with start and end; no end for those that never stop."""
    running: dict[tuple[str, str, str], _Event] = {}
    for event in sorted(events, key=lambda one: one.seconds):
        key = event[1:4]
        if event.status == "POINT" or event.end is not None:
            yield event, event.seconds, (event.seconds if event.end is None
                                         else event.end)
        elif key in running and event.status != "START":
            start = running.pop(key)
            yield start, start.seconds, event.seconds
        elif event.status == "STOP":
            content.remark("stops without a start, left out",
                           f"{event.behavior!r} at {event.seconds:g} s of "
                           f"{where}")
        else:
            if key in running:
                yield running[key], running[key].seconds, None
            running[key] = event
    for start in running.values():
        yield start, start.seconds, None


def _project(file: File) -> list[_Observation]:
    types = {str(one.get("code")): str(one.get("type", ""))
             for one in file.json["behaviors_conf"].values()}
    categories = {str(one.get("code")): str(one.get("category") or "")
                  for one in file.json["behaviors_conf"].values()}
    observations = []
    for name, entry in file.json["observations"].items():
        where = f"{file.name}, observation {name!r}"
        try:
            info = entry.get("media_info") or {}
            one = _Observation(
                name, dict(entry.get("file") or {}),
                {path: float(value) for path, value in (
                    info.get("length") or {}).items()},
                {str(number): float(value or 0) for number, value in (
                    info.get("offset") or {}).items()},
                float(entry.get("time offset") or 0))
            if entry.get("type") not in ("LIVE", "IMAGES"):
                one.events = [_Event(
                    float(event[0]), str(event[1]), str(event[2]),
                    _modifiers(str(event[3]).split("|")),
                    categories.get(str(event[2]), ""),
                    "POINT" if types.get(str(event[2]), "").startswith(
                        "Point") else "") for event in entry.get("events", [])]
            else:
                one.players = {}
            observations.append(one)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"{where}: is not as BORIS writes it ({error!r})"
                             ) from error
    return observations


def _modifiers(values: Sequence[str]) -> str:
    return "|".join(value.strip() for value in values
                    if value.strip() not in _NOTHING)


def _is_header(columns: list[str]) -> bool:
    names = {name.lower() for name in columns}
    return "behavior" in names and (
        {"time", "behavior type"} <= names or {"time", "status"} <= names
        or {"observation id", "start (s)", "stop (s)"} <= names)


def _table(file: File) -> Table | None:
    return tables.read_table(file.text, _is_header)


def _observations(file: File) -> list[_Observation]:
    """Returns the observations of a table."""
    table = _table(file)
    assert table is not None
    head = {cells[0].strip(): cells[1].strip() for cells in table.head
            if len(cells) > 1}
    numbers = sorted((name for name in table.columns
                      if name.lower().startswith("modifier")), key=len)
    observations: dict[str, _Observation] = {}
    for row in table.rows:
        where = f"{file.name}, line {row.line}"
        name = row.get("Observation id") or head.get("Observation id", "")
        try:
            one = observations.get(name)
            if one is None:
                one = observations[name] = _described(name, row, head)
            path = row.get("Media file name", "Media file path", "Media file")
            if not one.players and path not in _NOTHING and not row.get(
                    "Source") and not path.startswith("player #"):
                one.players = {"1": [path]}
                if length := row.get("Total length", "Media duration (s)"):
                    one.lengths[path] = tables.seconds(length)
            one.events.append(_event(row, numbers))
        except ValueError as error:
            raise InputError(f"{where}: is not as BORIS writes it ({error})"
                             ) from error
    return list(observations.values())


def _described(name: str, row: Row, head: Mapping[str, Any]) -> _Observation:
    """Returns an observation without events, from its first row."""
    one = _Observation(name)
    # "player #1:a.mp4;b.mp4|player #2:c.mp4"
    durations = row.get("Media duration (s)").split("|")
    for index, text in enumerate(row.get("Source", "Media file").split("|")):
        match = re.fullmatch(r"player #(\d+):(.*)", text.strip(), re.DOTALL)
        if match is None or row.get("Observation type").startswith("Live"):
            continue
        paths = [path.strip() for path in match[2].split(";") if path.strip()]
        one.players[match[1]] = paths
        lengths = (durations[index] if index < len(durations) else ""
                   ).split(";")
        for path, length in zip(paths, lengths, strict=False):
            if length not in _NOTHING:
                one.lengths[path] = tables.seconds(length)
    offset = row.get("Time offset (s)") or head.get("Time offset (s)", "")
    one.time_offset = tables.seconds(offset) if offset else 0.0
    return one


def _event(row: Row, modifiers: Sequence[str]) -> _Event:
    status = row.get("Behavior type", "Status").upper()
    start = tables.seconds(row.get("Time", "Start (s)"))
    stop = row.get("Stop (s)")
    is_state = status not in ("POINT", "START", "STOP")
    return _Event(
        start, "" if row.get("Subject") in _NOTHING else row.get("Subject"),
        row.get("Behavior"),
        _modifiers([row.get(name) for name in modifiers]),
        row.get("Behavioral category"), "" if is_state else status,
        tables.seconds(stop) if is_state and stop not in _NOTHING else None)


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a project with an observation for each video.

    A state of BORIS cannot overlap itself: further actions of the same time
    are those of the subjects "overlap 2" and so on. The score is the comment
    of the start.
    """
    now = datetime.datetime.now().isoformat(timespec="seconds")
    observations = {one.video_id: _written(one, now) for one in recordings}
    subjects = sorted({event[1] for one in observations.values()
                       for event in one["events"]} - {""})
    return {"predictions.boris": json.dumps({
        "time_format": "hh:mm:ss", "project_date": now,
        "project_name": "losa_jax", "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {str(number): {
            "key": "", "name": name, "description": ""}
            for number, name in enumerate(subjects)},
        "behaviors_conf": {str(number): {
            "type": "State event", "key": _KEYS[number:number + 1],
            "code": name, "description": "",
            "color": "", "category": "", "modifiers": {}, "excluded": "",
            "coding map": ""}
            for number, name in enumerate(class_names(recordings))},
        "observations": observations, "behavioral_categories": [],
        "independent_variables": {}, "coding_map": {},
        "behaviors_coding_map": [], "converters": {}},
        ensure_ascii=False, indent=1)}


def _written(recording: Recording, now: str) -> dict[str, Any]:
    path = (recording.file_name if recording.media is None
            else str(recording.media.absolute()))
    timed = recording.timed()
    events = []
    for lane, numbers in enumerate(lanes(timed), 1):
        subject = "" if lane == 1 else f"overlap {lane}"
        for number in numbers:
            row, start, end = timed[number]
            label = one_line(row["label"])
            events += [[end / 1000, subject, label, "", "",
                        row["end_frame"]],
                       [start / 1000, subject, label, "",
                        f"score {row['score']:.2f}", row["start_frame"]]]
    # Of equal times an end comes before a start, which has the comment.
    events.sort(key=lambda event: (event[0], bool(event[4])))
    return {
        "file": {"1": [path]}, "type": "MEDIA", "date": now,
        "description": "", "time offset": 0.0, "events": events,
        "observation time interval": [0, 0], "independent_variables": {},
        "visualize_spectrogram": False, "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0, "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {"length": {path: recording.duration_seconds},
                       "fps": {path: recording.fps},
                       "hasVideo": {path: True}, "hasAudio": {path: False},
                       "offset": {"1": 0.0}}}
