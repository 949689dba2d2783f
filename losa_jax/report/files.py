"""Detections of one video as text: CSV, SubRip, WebVTT, ELAN.

A row is a dictionary with the `COLUMNS`; "end_frame" is one past the last.
Every text lists its rows by time.
"""

import csv
import datetime
import html
import io
import mimetypes
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Row = Mapping[str, Any]

COLUMNS = ("label", "score", "start_seconds", "end_seconds", "start_frame",
           "end_frame")
# Players reject a subtitle that ends when it starts.
_SHORTEST_MS = 1
# Characters that XML 1.0 does not allow.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EAF_TYPE = "detections"
# Constraints for other tier types; ELAN's own files list all four.
_EAF_STEREOTYPES = {
    "Time_Subdivision": "Parts of the parent, without gaps",
    "Symbolic_Subdivision": "Parts of the parent in order, without times",
    "Symbolic_Association": "One for each of the parent's annotations",
    "Included_In": "Inside the parent, gaps allowed",
}


def in_time(rows: Sequence[Row]) -> list[Row]:
    """Returns rows by start, then by end."""
    return sorted(rows, key=lambda row: (row["start_seconds"],
                                         row["end_seconds"]))


def csv_text(video: str, rows: Sequence[Row]) -> str:
    """Returns a table with a header; the first column names the video."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", *COLUMNS))
    for row in in_time(rows):
        writer.writerow((video, row["label"], f"{row['score']:.6f}",
                         f"{row['start_seconds']:.3f}",
                         f"{row['end_seconds']:.3f}", row["start_frame"],
                         row["end_frame"]))
    return text.getvalue()


def srt_text(rows: Sequence[Row]) -> str:
    """Returns SubRip subtitles with the label and score of detections."""
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n"
        f"{_caption(row)}\n\n"
        for number, (row, start, end) in enumerate(_timed(rows), 1))


def webvtt_text(rows: Sequence[Row]) -> str:
    """Returns WebVTT subtitles, for the <track> of a web page."""
    cues = "".join(
        f"\n{number}\n{_clock(start, '.')} --> {_clock(end, '.')}\n"
        f"{html.escape(_caption(row), quote=False)}\n"
        for number, (row, start, end) in enumerate(_timed(rows), 1))
    return "WEBVTT\n" + cues


def eaf_text(rows: Sequence[Row], *, media: Path | None, folder: Path,
             created: datetime.datetime) -> str:
    """Returns an ELAN document (EAF 3.0) with a tier for each class.

    Annotations of one tier must not overlap, so overlapping detections of a
    class go to further tiers, "jump (2)". `media` is None where the video is
    not a file, `folder` that of the document; `created` has a time zone.
    """
    add = ElementTree.SubElement
    root = ElementTree.Element("ANNOTATION_DOCUMENT", {
        "AUTHOR": "losa_jax", "DATE": created.isoformat(timespec="seconds"),
        "FORMAT": "3.0", "VERSION": "3.0",
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation":
            "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"})
    header = add(root, "HEADER", {"MEDIA_FILE": "",
                                  "TIME_UNITS": "milliseconds"})
    if media is not None:
        add(header, "MEDIA_DESCRIPTOR", {
            "MEDIA_URL": media.absolute().as_uri(),
            "MIME_TYPE": mimetypes.guess_type(media.name)[0] or "unknown",
            "RELATIVE_MEDIA_URL": "./" + urllib.parse.quote(
                os.path.relpath(media, folder).replace(os.sep, "/"))})
    timed = _timed(rows)
    add(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}
        ).text = str(len(timed))

    # Two slots for each annotation; ELAN requires all of them by time.
    moments = sorted((moment, number, edge)
                     for number, (_, *edges) in enumerate(timed)
                     for edge, moment in enumerate(edges))
    order = add(root, "TIME_ORDER")
    slots = {}
    for index, (moment, number, edge) in enumerate(moments, 1):
        slots[number, edge] = f"ts{index}"
        add(order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{index}",
                                 "TIME_VALUE": str(moment)})

    for name, numbers in _tiers(timed).items():
        tier = add(root, "TIER", {"LINGUISTIC_TYPE_REF": _EAF_TYPE,
                                  "TIER_ID": name})
        for number in numbers:
            annotation = add(
                add(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", {
                    "ANNOTATION_ID": f"a{number + 1}",
                    "TIME_SLOT_REF1": slots[number, 0],
                    "TIME_SLOT_REF2": slots[number, 1]})
            add(annotation, "ANNOTATION_VALUE").text = _NOT_XML.sub(
                " ", _caption(timed[number][0]))
    add(root, "LINGUISTIC_TYPE", {
        "GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": _EAF_TYPE,
        "TIME_ALIGNABLE": "true"})
    for stereotype, description in _EAF_STEREOTYPES.items():
        add(root, "CONSTRAINT", {"DESCRIPTION": description,
                                 "STEREOTYPE": stereotype})
    ElementTree.indent(root)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            + ElementTree.tostring(root, encoding="unicode") + "\n")


def _tiers(timed: Sequence[tuple[Row, int, int]]) -> dict[str, list[int]]:
    """Returns {tier: indices of rows that do not overlap}."""
    tiers: dict[str, list[int]] = {}
    for label in sorted({row["label"] for row, *_ in timed}):
        lanes: list[list[int]] = []
        for number, (row, start, _) in enumerate(timed):
            if row["label"] != label:
                continue
            lane = next((lane for lane in lanes
                         if timed[lane[-1]][2] <= start), None)
            if lane is None:
                lanes.append(lane := [])
            lane.append(number)
        for index, lane in enumerate(lanes):
            name = _NOT_XML.sub(" ", label)
            name = name if index == 0 else f"{name} ({index + 1})"
            while name in tiers:  # a class may be called "jump (2)"
                name += "'"
            tiers[name] = lane
    return tiers


def _timed(rows: Sequence[Row]) -> list[tuple[Row, int, int]]:
    """Returns (row, start and end in milliseconds) by time."""
    timed = []
    for row in in_time(rows):
        start = round(1000 * row["start_seconds"])
        end = max(round(1000 * row["end_seconds"]), start + _SHORTEST_MS)
        timed.append((row, start, end))
    return timed


def _caption(row: Row) -> str:
    """Returns one line; a line break or an arrow would end a subtitle."""
    label = " ".join(str(row["label"]).split()).replace("-->", "->")
    return f"{label} {row['score']:.2f}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
