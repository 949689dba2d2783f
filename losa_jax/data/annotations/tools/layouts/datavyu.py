"""Datavyu's .opf: a zip file with columns of coded cells in the text "db"."""

import re
from typing import NamedTuple

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.errors import InputError
from losa_jax.utils.names import VIDEO_ENDINGS

TITLE = "Datavyu"

_COLUMN = re.compile(r"(.+?) \((\w+),.*?\)-(.*)")
_CELL = re.compile(r"(\d+):(\d+):(\d+):(\d+),(\d+):(\d+):(\d+):(\d+),(.*)",
                   re.DOTALL)
_VIDEO = re.compile(r"(?im):\s*['\"]?([^'\"\n]+(?:" + "|".join(
    map(re.escape, sorted(VIDEO_ENDINGS))) + r"))['\"]?\s*$")


class _Column(NamedTuple):
    name: str
    codes: list[str]
    cells: list[tuple[int, int, list[str]]]  # milliseconds


def recognizes(file: File) -> bool:
    """Whether this is a zip file with a "db"."""
    return file.is_archive and bool(file.members("/db"))


def read(file: File, content: Content) -> None:
    """Reads the cells of the chosen columns; the label is the chosen code,
    else the first."""
    options = content.options
    texts = {one.name.rpartition(":")[2].rpartition("/")[2]: one.text
             for one in file.members("/db", "/project")}
    address = _VIDEO.search(texts.get("project", ""))
    video = (content.video(address[1]) if address and not options.video
             else content.own_video(file.path))
    columns = _columns(texts["db"], file)
    chosen = [one for one in columns if content.is_chosen("tiers", one.name)]
    if len(chosen) > 1 and not options.tiers:
        raise InputError(
            f"{file.name}: has the columns "
            f"{', '.join(one.name for one in chosen)}: choose those that hold "
            "actions, as --tiers=NAME")
    for column in chosen:
        if not content.is_chosen("attribute", *column.codes):
            content.remark(f"columns without the code {options.attribute!r}, "
                           "left out", f"{column.name!r}")
            continue
        place = (column.codes.index(options.attribute)
                 if options.attribute else 0)
        if len(column.codes) > 1 and not options.attribute:
            content.remark("columns with several codes: the first is the label "
                           "(--attribute=CODE)", f"{column.name!r}: "
                           f"{column.codes[0]!r}")
        for number, (start, end, values) in enumerate(column.cells, 1):
            label = (column.name if options.label_from == "tier"
                     else values[place] if place < len(values) else "")
            if end == 0 < start:  # nobody set the end
                content.open_event(video, label, start / 1000)
            else:
                content.add(video, label, start / 1000, end / 1000, where=(
                    f"{file.name}, cell {number} of {column.name!r}"))


def _columns(text: str, file: File) -> list[_Column]:
    columns: list[_Column] = []
    for number, line in enumerate(text.splitlines(), 1):
        if cell := _CELL.fullmatch(line):
            if not columns:
                raise InputError(f"{file.name}: line {number} of \"db\" is a "
                                 "cell before the first column")
            times = [int(one) for one in cell.groups()[:8]]
            start, end = (((part[0] * 60 + part[1]) * 60 + part[2]) * 1000
                          + part[3] for part in (times[:4], times[4:]))
            inside = cell[9].removeprefix("(").removesuffix(")")
            columns[-1].cells.append((start, end, [
                re.sub(r"\\(.)", r"\1", one)
                for one in re.split(r"(?<!\\),", inside)]))
        elif column := _COLUMN.fullmatch(line):
            columns.append(_Column(column[1], [
                one.partition("|")[0] for one in column[3].split(",")], []))
    return columns
