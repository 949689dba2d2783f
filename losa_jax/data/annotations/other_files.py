"""Recognizes files that are given as annotations and are none."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.tools.file import open_file
from losa_jax.data.annotations.tools.layouts import LAYOUTS, layout_of
from losa_jax.errors import InputError
from losa_jax.utils.file_type import recognize

_LAYOUTS = (
    "annotations are read as JSON with an object \"database\" (ActivityNet, "
    "ActionFormer, OpenTAD; docs/videos.md has an example), as the same "
    "without \"database\", {video id: {\"subset\", \"duration\", "
    "\"annotations\"}}, as mmaction2's anet_anno_*.json, BMN's "
    "anet_anno_action.json,video_info_new.csv, AFSD's "
    "val_Annotation.csv,val_video_info.csv, a folder of THUMOS' text files, "
    "the files of MultiTHUMOS, Charades, EPIC-KITCHENS or Ego4D "
    "(docs/more_data_sets.md, docs/large_data_sets.md), or a folder of "
    "losa_jax.data.build")


def convert_command(path: Path) -> str:
    """Returns the command that converts files of annotation tools."""
    return (f"python -m losa_jax.annotations {shlex.quote(str(path))} "
            "--output=annotations.json")


def describe(path: Path, text: str, content: Any = None) -> str:
    """Returns what a file in no layout of annotations seems to be, and what
    to do; `content` is its JSON."""
    if not text.strip():
        return "is empty: write it, or copy it, again"
    if isinstance(content, dict) and (
            isinstance(content.get("results"), dict)
            or "shown_from" in content):
        return "is a file of predictions: give that of the annotations"
    convert = f"convert it: {convert_command(path)}"
    try:
        layout = layout_of(open_file(path))
    except InputError as error:  # damaged
        return str(error).removeprefix(f"{path}: ")
    if layout:
        return f"has the layout of {LAYOUTS[layout].TITLE}: {convert}"
    if path.suffix.lower() in (".csv", ".tsv"):
        return (f"is a table with the columns {_listed(columns(text))}: "
                f"{convert}")
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
