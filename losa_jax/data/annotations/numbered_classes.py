"""Reads MultiTHUMOS and Charades, whose actions have numbers for classes.

The names are in another file, which is given beside the annotations:

    super-events   multithumos.json,classes.txt or charades.json,classes.txt:
                   {video id: {"subset", "duration", "actions": [[number,
                   start, end]]}}, MultiTHUMOS from 1, Charades from 0
    Charades       Charades_v1_train.csv,Charades_v1_test.csv,classes.txt:
                   a subset for each table; the column actions is
                   "c092 11.90 21.20;c147 0.00 12.60", or empty
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.tables import (
    read_class_list,
    read_table,
    subset_of,
)
from losa_jax.errors import InputError

_CHARADES_ACTION = re.compile(r"\s*c(\d+) +(\S+) +(\S+)\s*")


def read_super_events(path: Path, content: dict[str, Any],
                      others: Sequence[Path]) -> dict[str, Any]:
    """Returns the database of one file of the super-events code."""
    if len(others) != 1:
        raise InputError(
            f"{path}: has numbers for classes: give the list of its classes, "
            f"one name a line, behind a comma: {path.name},classes.txt")
    names = read_class_list(others[0])
    numbers = set()
    for video, entry in content.items():
        actions = entry.get("actions") if isinstance(entry, dict) else None
        if not isinstance(actions, list):
            raise InputError(f"{path}: {video} has no list \"actions\"")
        for action in actions:
            if not (isinstance(action, list) and len(action) == 3
                    and type(action[0]) is int):
                raise InputError(f"{path}: {video}: the action "
                                 f"{str(action)[:60]} is not [number of the "
                                 "class, start, end]")
            numbers.add(action[0])
    low, high = min(numbers, default=0), max(numbers, default=0)
    first = int(low >= 1 and high == len(names))
    if numbers and not first and (low != 0 or high != len(names) - 1):
        raise InputError(
            f"{path}: its classes have the numbers {low} to {high}, but "
            f"{others[0]} has {len(names)} classes: give the class list of "
            "this version of the data set (the first and the last class must "
            "have an action)")
    if numbers:
        read_class_list(others[0], first)
    return {video: {
        **{key: value for key, value in entry.items() if key != "actions"},
        "annotations": [_annotation(names, number - first, segment)
                        for number, *segment in entry["actions"]]}
        for video, entry in content.items()}


def read_charades(tables: Sequence[Path], others: Sequence[Path]
                  ) -> dict[str, Any]:
    """Returns the database of the official tables of Charades."""
    if len(others) != 1:
        raise InputError(
            f"{tables[0]}: has numbers for classes: give Charades_v1_classes"
            ".txt too, behind a comma")
    names = read_class_list(others[0], first=0)
    database: dict[str, Any] = {}
    for path in tables:
        subset = subset_of(path)
        for where, row in read_table(path, ("id",), ("length",),
                                     may_be_empty=("actions",)):
            if row["id"] in database:
                raise InputError(f"{where}: the video {row['id']} is there "
                                 "twice: give each table once, and remove one "
                                 "of its rows")
            annotations = []
            for text in filter(str.strip, row["actions"].split(";")):
                match = _CHARADES_ACTION.fullmatch(text)
                if match is None:
                    raise InputError(f"{where}: the action {text!r} is not "
                                     "`c092 11.90 21.20`")
                if int(match[1]) >= len(names):
                    raise InputError(
                        f"{where}: class c{match[1]}, but {others[0]} has "
                        f"{len(names)} classes: give the class list of this "
                        "version of the data set")
                annotations.append(_annotation(names, int(match[1]),
                                               [match[2], match[3]]))
            database[row["id"]] = {
                "subset": subset, "duration": row["length"],
                "annotations": annotations}
    return database


def _annotation(names: Sequence[str], number: int, segment: list[Any]
                ) -> dict[str, Any]:
    return {"label": names[number], "label_id": number, "segment": segment}
