"""The detections of a video that a layout writes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# {"label", "score", "start_seconds", "end_seconds", "start_frame",
# "end_frame"}; "end_frame" is one past the last.
Row = Mapping[str, Any]

# Tools reject an action that ends when it starts.
_SHORTEST_MS = 1
_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Recording(NamedTuple):
    """A video and its detections.

    Attributes:
      media: its file; None where there is none on a disk.
    """

    video_id: str
    media: Path | None
    duration_seconds: float
    fps: float
    rows: Sequence[Row]

    @property
    def file_name(self) -> str:
        """The name of the video's file; the id where there is none."""
        return self.video_id if self.media is None else self.media.name

    def timed(self) -> list[tuple[Row, int, int]]:
        """Returns (row, start and end in milliseconds) by time."""
        timed = []
        for row in in_time(self.rows):
            start = round(1000 * row["start_seconds"])
            end = max(round(1000 * row["end_seconds"]), start + _SHORTEST_MS)
            timed.append((row, start, end))
        return timed


def in_time(rows: Sequence[Row]) -> list[Row]:
    """Returns rows by start, then by end."""
    return sorted(rows, key=lambda row: (row["start_seconds"],
                                         row["end_seconds"]))


def one_line(label: str) -> str:
    """Returns a label without line breaks and other controls."""
    return _NOT_ONE_LINE.sub(" ", label).strip()


def lanes(timed: Sequence[tuple[Row, int, int]]) -> list[list[int]]:
    """Returns the numbers of actions in lanes where none overlap."""
    lanes: list[list[int]] = []
    for number, (_, start, _) in enumerate(timed):
        lane = next((lane for lane in lanes if timed[lane[-1]][2] <= start),
                    None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(number)
    return lanes


def class_names(recordings: Sequence[Recording]) -> list[str]:
    """Returns all labels, sorted."""
    return sorted({one_line(row["label"]) for one in recordings
                   for row in one.rows})
