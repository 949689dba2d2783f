"""Reads the tables and the lists of classes of annotations."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import other_files
from losa_jax.errors import InputError, listed
from losa_jax.utils.text_files import read_lines, read_text

# `c012 name` of Charades, `12 name` of MultiTHUMOS, `012<TAB>"name"` of Ego4D.
_NUMBERED = re.compile(r"c?(\d+)[\s,]+(.*\S)")
# The subset of a file's videos by a word of its name.
_SUBSETS = {"train": "training", "training": "training", "val": "validation",
            "validation": "validation", "test": "testing",
            "testing": "testing"}


def read_table(path: Path, text: tuple[str, ...], numbers: tuple[str, ...] = (),
               may_be_empty: tuple[str, ...] = ()
               ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file, row" and the columns of each row.

    InputError for a missing column, a row that is cut short, an empty cell of
    the columns `text`, or one of the columns `numbers` that is no number.
    """
    content = read_text(path)
    # Of the separators of lines only \r and \n end a row.
    rows = csv.DictReader(io.StringIO(content, newline=""))
    columns = text + numbers + may_be_empty
    try:
        names = rows.fieldnames or ()
        numbered = list(enumerate(rows, 2))
    except csv.Error as error:
        raise InputError(f"{path}, row {rows.line_num}: no row of a table "
                         f"with commas ({error})") from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; it needs "
            f"{', '.join(columns)}, separated by commas, and has "
            f"{', '.join(other_files.columns(content))}")
    for number, row in numbered:
        where = f"{path}, row {number}"
        if None in row.values():
            raise InputError(f"{where}: has fewer cells than the {len(names)} "
                             "columns of the first row: copy the file again")
        if not all(row[name] for name in text):
            raise InputError(f"{where}: {' or '.join(text)} is empty")
        try:
            yield where, row | {name: float(row[name]) for name in numbers}
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: " + ", ".join(
                f"{name}={row[name]!r}" for name in numbers)
                + ": numbers are needed") from error


def subset_by_name(path: Path) -> str:
    """Returns the subset of which a word in the file's name is, or ""."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((_SUBSETS[word] for word in words if word in _SUBSETS), "")


def subset_of(path: Path) -> str:
    """Returns the subset that the name of a table tells; InputError if it
    tells none."""
    subset = subset_by_name(path)
    if not subset:
        raise InputError(f"{path}: its name tells no subset: keep train, "
                         f"validation or test in it, as {path.stem}_train.csv")
    return subset


def read_class_list(path: Path, first: int | None = None) -> tuple[str, ...]:
    """Reads class names, one a line, each with or without its number before
    it; InputError for numbers that do not count up, or do not begin with
    `first`, or a name twice."""
    lines = [line for _, line in read_lines(path)]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    if matches and all(matches):
        pairs = [(int(match[1]), match[2].strip('"'))
                 for match in matches if match]
        low = pairs[0][0]
        if [number for number, _ in pairs] != [
                *range(low, low + len(pairs))] or low > 1:
            raise InputError(f"{path}: the numbers before the class names do "
                             "not count up from 0 or 1: sort or complete it")
        if first not in (None, low):
            raise InputError(
                f"{path}: counts its classes from {low}, the annotations "
                f"from {first}: give the class list of this data set")
        lines = [name for _, name in pairs]
    twice = sorted({name for name in lines if lines.count(name) > 1})
    if not lines or twice:
        raise InputError(f"{path}: name each class once, one per line; it has "
                         f"{len(lines)} lines{listed(twice, 5)}")
    return tuple(lines)
