"""Recognizes files that are given as annotations and are none."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from losa_jax.utils.file_type import recognize

_LAYOUTS = (
    "annotations are read as JSON with an object \"database\" (ActivityNet, "
    "ActionFormer, OpenTAD; docs/videos.md has an example), as the same "
    "without \"database\", {video id: {\"subset\", \"duration\", "
    "\"annotations\"}}, as mmaction2's anet_anno_*.json, BMN's "
    "anet_anno_action.json,video_info_new.csv, AFSD's "
    "val_Annotation.csv,val_video_info.csv, a folder of THUMOS' text files, "
    "or a folder of losa_jax.data.build")
_CONVERT = ("write its actions as JSON in the layout of docs/videos.md, which "
            "has a program for tables")
# (what a file is, pattern near its start).
_MARKS = (
    ("an ELAN document", r"<ANNOTATION_DOCUMENT"),
    ("a file of Anvil", r"<annotation>[\s\S]*<specification"),
    ("an export of CVAT", r"<annotations>[\s\S]*<version>"),
    ("an XML document", r"\s*<\?xml"),
    ("a TextGrid of Praat", r"ooTextFile"),
    ("WebVTT subtitles", r"\s*WEBVTT"),
    ("SRT subtitles", r"\d\d:\d\d:\d\d,\d{3} -->"),
    ("an export of the VGG Image Annotator (VIA)",
     r"VGG Image Annotator|\"__VIA_|metadata_id,file_list"),
    ("a file of BORIS", r"Observation id\b|\"behaviors_conf\""),
    ("an export of Label Studio",
     r"\"timelinelabels\"|annotation_id\"?[,\t]\"?annotator|\"completed_by\""),
    ("an export of Datumaro", r"\"dm_format_version\""),
    ("a file of Vidat", r"\"keyframeList\"|\"actionAnnotationList\""),
    ("a file of X-AnyLabeling", r"\"type\": *\"video_classification\""),
    ("labels of SoccerNet", r"\"UrlLocal\"|\"task\": *\"localization\""),
    ("labels of FiftyOne", r"\"(timestamps|support)\": *\["),
    ("annotations of images in COCO's layout",
     r"\"categories\": *\[[\s\S]*\"images\": *\[|"
     r"\"images\": *\[[\s\S]*\"categories\": *\["),
)
_START = 100_000  # characters


def describe(path: Path, text: str, content: Any = None) -> str:
    """Returns what a file in no layout of annotations seems to be, and what
    to do; `content` is its JSON."""
    if not text.strip():
        return "is empty: write it, or copy it, again"
    if isinstance(content, dict) and (
            isinstance(content.get("results"), dict)
            or "shown_from" in content):
        return "is a file of predictions: give that of the annotations"
    what = next((name for name, pattern in _MARKS
                 if re.search(pattern, text[:_START])), "")
    if not what and path.suffix.lower() in (".csv", ".tsv"):
        what = f"a table with the columns {_listed(columns(text))}"
    if what:
        return f"seems to be {what}: {_CONVERT}"
    if isinstance(content, dict):
        what = (f"has no object \"database\" but {_listed(content)}"
                if content else "is an empty JSON object")
    elif isinstance(content, list):
        first = content[0] if content else None
        what = "is a JSON list" + (
            f" of objects with the keys {_listed(first)}"
            if isinstance(first, dict) else "")
    else:
        file_type = recognize(path)
        what = "is in no known layout" + (
            f", being {file_type.title}" if file_type else "")
    return f"{what}: {_LAYOUTS}"


def columns(text: str) -> list[str]:
    """Returns the first row of a table, separated by what it has most of."""
    line = next(iter(text.splitlines()), "")
    mark = max(",;\t", key=line.count)
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return [line]


def _listed(names: Any, most: int = 8) -> str:
    shown = [json.dumps(name, ensure_ascii=False)[:40].encode(
        "utf-8", "backslashreplace").decode() for name in names]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
