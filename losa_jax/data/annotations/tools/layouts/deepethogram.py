"""DeepEthogram: a table of a row a frame and a column a class."""

import re
from collections import defaultdict

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "DeepEthogram"

_UNKNOWN = -1


def recognizes(file: File) -> bool:
    """Whether the first column has no name and the others hold 0, 1, -1."""
    if file.json is not None or file.is_archive:
        return False
    lines = file.text.lstrip("\r\n").split("\n", 2)
    if len(lines) < 2 or not re.match(r'(?:""|Unnamed: 0)?,\S', lines[0]):
        return False
    return bool(re.fullmatch(r"\d+(?:,-?[01](?:\.0)?)+", lines[1].strip()))


def read(file: File, content: Content) -> None:
    """Reads the runs of ones in each column but the background's."""
    table = tables.read_table(file.text, lambda columns: len(columns) > 1, 1)
    assert table is not None
    name = re.sub(r"_labels$", "", file.path.stem)
    frames: dict[str, list[int]] = defaultdict(list)
    unknown = set()
    for number, row in enumerate(table.rows):
        for label in table.columns[1:]:
            try:
                value = tables.number(row.get(label))
            except ValueError:
                content.problems.append(f"{file.name}, line {row.line}: "
                                        f"{label} is {row.get(label)!r}, not "
                                        "0, 1 or -1")
                continue
            if value == _UNKNOWN:
                unknown.add(number)
            elif value:
                frames[label].append(number)
    if len(unknown) == len(table.rows):
        content.remark("videos without any labeled frame (-1), left out", name)
        return
    for first, end in tables.runs(unknown):
        content.remark("parts that are not labeled (-1), though the rest "
                       "of their video is", f"{first} to {end - 1} of {name}")
    video = content.own_video(file.path, name)
    fps = content.fps_of(video)
    for label, numbers in frames.items():
        if not content.options.is_background(label):
            for first, end in tables.runs(numbers):
                content.add(video, label, first / fps, end / fps)
