"""Audacity's label tracks: lines of start, end and label with tabs."""

from collections.abc import Sequence
from pathlib import Path

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import Recording, one_line

TITLE = "Audacity"


def recognizes(file: File) -> bool:
    """Whether the first line begins with two times and tabs."""
    if file.json is not None or file.is_archive:
        return False
    first = next((line for line in file.text.splitlines() if line.strip()), "")
    cells = first.split("\t")
    try:
        return len(cells) >= 2 and tables.number(cells[0]) <= tables.number(
            cells[1])
    except ValueError:
        return False


def read(file: File, content: Content) -> None:
    """Reads the labels; lines with a backslash hold frequencies of sound."""
    video = content.own_video(file.path)
    for number, line in enumerate(file.text.splitlines(), 1):
        if not line.strip() or line.startswith("\\"):
            continue
        where = f"{file.name}, line {number}"
        cells = line.split("\t")
        try:
            start, end = tables.number(cells[0]), tables.number(cells[1])
        except (ValueError, IndexError):
            content.problems.append(f"{where}: {line!r} is not start, end and "
                                    "label with tabs")
            continue
        content.add(video, "\t".join(cells[2:]), start, end, where=where)


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a label track for each video that has detections."""
    return {f"{one.video_id}.txt": "".join(
        f"{start / 1000:.6f}\t{end / 1000:.6f}\t{one_line(row['label'])}\n"
        for row, start, end in one.timed()) for one in recordings if one.rows}
