"""Tables of text with a header, and the numbers and clocks in their cells."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

DELIMITERS = ",;\t|"
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


class Row(NamedTuple):
    """A row of a table; cells beyond the header are left out."""

    line: int
    cells: dict[str, str]

    def get(self, *names: str) -> str:
        """Returns the first cell of these columns that has a text, or ""."""
        return next((value for name in names
                     if (value := self.cells.get(name, ""))), "")


class Table(NamedTuple):
    """A table; `head` are the rows before its header."""

    columns: list[str]
    rows: list[Row]
    head: list[list[str]] = []


def read_table(text: str, is_header: Callable[[list[str]], bool] = bool,
               most_head: int = 200) -> Table | None:
    """Returns the table whose header is the first row, among the first ones,
    for which `is_header` holds; None if there is none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for delimiter in sorted(DELIMITERS, key=lambda one: -max(
            (line.count(one) for line in lines[:most_head]), default=0)):
        for number, cells in enumerate(_cells(lines[:most_head], delimiter)):
            columns = [cell.strip() for cell in cells[1]]
            if not is_header(columns):
                continue
            everything = _cells(lines, delimiter)
            return Table(columns, [
                Row(line, {name: cell.strip() for name, cell in zip(
                    columns, row, strict=False)})
                for line, row in everything[number + 1:]
                if any(cell.strip() for cell in row)],
                [row for _, row in everything[:number]])
    return None


def _cells(lines: Sequence[str], delimiter: str
           ) -> list[tuple[int, list[str]]]:
    """Returns (number of the row's last line, cells) of rows."""
    csv.field_size_limit(2**30)  # JSON in cells of Label Studio
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            rows.append((reader.line_num, cells))
    except csv.Error:  # a carriage return alone, in what is no table
        pass
    return rows


def number(text: str) -> float:
    """Returns a finite number with a decimal point or comma; ValueError for
    anything else."""
    value = float(text.strip().replace(",", ".") if text.count(",") == 1
                  and "." not in text else text.strip())
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{text!r} is no finite number")
    return value


def seconds(text: str) -> float:
    """Returns the seconds of a number or a clock ("1:02:03.5", "01:03,14");
    ValueError for anything else."""
    text = text.strip()
    if ":" not in text:
        return number(text)
    match = _CLOCK.fullmatch(text.replace(",", "."))
    if match is None:
        raise ValueError(f"{text!r} is no time")
    hours, minutes, rest = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def runs(frames: Iterable[int], step: int = 1) -> list[tuple[int, int]]:
    """Returns (first, one step past the last) of numbers that follow each
    other in steps."""
    segments: list[tuple[int, int]] = []
    for frame in sorted(set(frames)):
        if segments and segments[-1][1] == frame:
            segments[-1] = (segments[-1][0], frame + step)
        else:
            segments.append((frame, frame + step))
    return segments
