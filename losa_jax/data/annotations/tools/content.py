"""What a reader reports, and the options that the user gives."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.data.annotations.tools import video_names
from losa_jax.data.annotations.tools.video_names import Parts
from losa_jax.errors import InputError
from losa_jax.utils.names import name_problem
from losa_jax.utils.text_files import nfc

# Names that data sets give to frames without an action, in lower case.
BACKGROUND = frozenset(("background", "none", "sil", ""))
# Starts of actions that nobody labeled begin here, if anything is cut.
_FIRST = 0.0
_SAME_SECONDS = 1e-6


@dataclass(frozen=True)
class Options:
    """The flags of `losa_jax.annotations`: what tools leave open.

    Attributes:
      layout: name in `layouts.LAYOUTS`; "": recognized by the content.
      fps: frames a second, of files that count frames.
      first_frame: number of a video's first frame in tables.
      encoding: of text that is not UTF-8.
      columns: {role: column} of tables; see `own_table.ROLES`.
      tiers: tiers, tracks or columns to read; () takes the usual ones.
      label_from: "value", or "tier" where tiers are the classes.
      label: BORIS: a label with {behavior}, {modifiers}, {subject},
        {category} in it.
      subject: BORIS: only events of this subject.
      annotator: Label Studio: only annotations of this person.
      attribute: the attribute that holds the label.
      background: labels that are no action; None: those that the tool has.
      video: the camera to read of several, or the name of a video that the
        file does not name.
      companion: a file that explains the input: Label Studio's labeling
        configuration, VIA's project, a list of class names.
      points: seconds that moments last as actions; None leaves them out.
      open_events: seconds that actions without an end last, or "end": until
        the end of the video; None leaves them out.
      keep_unreviewed: take predictions that nobody reviewed.
      video_fps: returns that of a video by its path; None if no videos were
        given, InputError if this one is not there.
      video_seconds: returns the length of a video by its shown name; None
        where the video is not there.
    """

    layout: str = ""
    fps: float | None = None
    first_frame: int = 0
    encoding: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    tiers: tuple[str, ...] = ()
    label_from: str = "value"
    label: str = ""
    subject: str = ""
    annotator: str = ""
    attribute: str = ""
    background: tuple[str, ...] | None = None
    video: str = ""
    companion: Path | None = None
    points: float | None = None
    open_events: float | str | None = None
    keep_unreviewed: bool = False
    video_fps: Callable[[Parts], float | None] = lambda parts: None
    video_seconds: Callable[[str], float | None] = lambda name: None

    def chosen(self, flag: str) -> tuple[str, ...]:
        """Returns the names that the user gave with a flag, () for none."""
        names = getattr(self, flag)
        return ((names,) if names else ()) if isinstance(names, str) else names

    def is_background(self, label: str) -> bool:
        """Whether a label that a tool gives to every frame is no action."""
        if self.background is None:
            return label.lower() in BACKGROUND
        return label in self.background or not label


class Action(NamedTuple):
    """An action; `video` is a path, later the name that is shown."""

    video: Parts
    label: str
    start_seconds: float
    end_seconds: float
    score: float | None = None


class Moment(NamedTuple):
    """An event without a length, or the start of one without an end."""

    video: Parts
    label: str
    seconds: float


@dataclass
class Video:
    """What a file says about a video that was looked at."""

    subset: str = ""
    duration_seconds: float | None = None
    fps: float | None = None

    def complete(self, other: "Video") -> None:
        """Takes over what this one does not say."""
        self.subset = self.subset or other.subset
        self.duration_seconds = self.duration_seconds or other.duration_seconds
        self.fps = self.fps or other.fps


class Content:
    """Collects what readers report.

    Attributes:
      videos: those that were looked at, with or without actions.
      remarks: {sentence: [examples]}: what was left out, cut or assumed.
      problems: entries that cannot be meant as written.
      offered: {flag: names among which it can choose}.
    """

    def __init__(self, options: Options):
        self.options = options
        self.videos: dict[Parts, Video] = {}
        self.actions: list[Action] = []
        self.points: list[Moment] = []
        self.open: list[Moment] = []
        self.unreviewed = 0
        self.remarks: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.offered: dict[str, dict[str, None]] = {}
        self._rates: dict[Parts, float] = {}

    def is_chosen(self, flag: str, *names: str) -> bool:
        """Whether the user chose one of these names with a flag, or did not
        choose; a choice that no file offers is refused in the end."""
        self.offered.setdefault(flag, {}).update(dict.fromkeys(names))
        wanted = self.options.chosen(flag)
        return not wanted or any(name == one or name in one.split(",")
                                 for one in wanted for name in names)

    def video(self, address: str, *, subset: Any = "",
              duration_seconds: Any = None, fps: Any = None,
              is_id: bool = False, beside: Path | None = None) -> Parts:
        """Adds a video; returns its path. An id keeps its folders; a name
        alone is in the folder of the file `beside` it. Lengths and rates that
        are no positive numbers are not known."""
        parts = ((nfc(address),) if is_id else video_names.parts_of(address))
        if beside is not None and len(parts) == 1:
            parts = (*map(nfc, beside.parent.parts), *parts)
        if problem := name_problem(parts[-1]):
            raise InputError(f"the video name {address!r} {problem}")
        known = self.videos.setdefault(parts, Video())
        if isinstance(subset, str):
            known.subset = subset.strip().lower() or known.subset
        known.duration_seconds = _number(duration_seconds) or (
            known.duration_seconds)
        known.fps = _number(fps) or known.fps
        return parts

    def own_video(self, path: Path, name: str = "",
                  duration_seconds: float | None = None) -> Parts:
        """Adds the video that the user names, else that with the name of its
        annotations, beside them."""
        wanted = self.options.video
        return self.video(wanted or name or path.stem, is_id=not wanted,
                          beside=None if wanted else path,
                          duration_seconds=duration_seconds)

    def unnamed_video(self, path: Path, name: str = "") -> Parts:
        """Adds the video of a file that should name one and does not."""
        if not self.options.video:
            self.remark("files that name no video: their own name is taken "
                        "(--video=NAME)", path.name)
        return self.own_video(path, name)

    def fps_of(self, video: Parts, in_file: float | None = None) -> float:
        """Returns the frames a second, of the file, else as given by the
        user, else of the video; InputError if nobody knows them."""
        fps = in_file or self.options.fps
        if fps is None:
            if video not in self._rates:
                self._rates[video] = self._rate_of(video)
            return self._rates[video]
        if not 0 < fps < math.inf:
            raise InputError(f"{fps} frames a second of {video[-1]!r} are not "
                             "a positive number")
        return fps

    def _rate_of(self, video: Parts) -> float:
        """Returns the rate of a video's file; one that is not there is a
        problem, so that all of them are named."""
        name = video[-1]
        try:
            fps = self.options.video_fps(video)
        except InputError as error:
            self.problems.append(f"{name}: its frames need a rate "
                                 f"(--fps=RATE, or the video): {error}")
            return 1.0  # the problem ends the reading
        if fps is None:
            raise InputError(
                f"counts frames of {name!r} and does not state their rate: "
                "give --fps=RATE, or the folder of the videos with "
                "--videos=FOLDER")
        self.remark("videos whose own rate counts their frames (--fps=RATE "
                    "for another)", f"{fps:g} of {name}")
        return fps

    def add(self, video: Parts, label: str, start: float, end: float, *,
            where: str = "", score: Any = None) -> None:
        """Adds an action, or a point if it lasts no time; actions without a
        label, or that end before they start, are left out with a remark."""
        label = self._checked(label, where or f"{start:g} s of {video[-1]}")
        if not label:
            return
        example = where or f"{label!r} at {start:g} s of {video[-1]}"
        if not (math.isfinite(start) and math.isfinite(end)):
            self.problems.append(f"{example}: a time is not finite")
        elif end < start:
            self.remark("actions that end before they start, left out", example)
        elif end - start < _SAME_SECONDS:
            self.point(video, label, start)
        elif end <= _FIRST:
            self.remark("actions that end before their video begins, left "
                        "out", example)
        else:
            if start < _FIRST - _SAME_SECONDS:
                self.remark("actions that begin before their video, cut",
                            example)
            self.actions.append(Action(video, label, max(start, _FIRST), end,
                                       _number(score)))

    def point(self, video: Parts, label: str, seconds: float) -> None:
        """Adds a moment."""
        example = f"{seconds:g} s of {video[-1]}"
        if not math.isfinite(seconds):
            self.problems.append(f"{example}: a time is not finite")
        elif label := self._checked(label, example):
            self.points.append(Moment(video, label, seconds))

    def open_event(self, video: Parts, label: str, start: float) -> None:
        """Adds an action that has no end."""
        example = f"{start:g} s of {video[-1]}"
        if not math.isfinite(start):
            self.problems.append(f"{example}: a time is not finite")
        elif label := self._checked(label, example):
            self.open.append(Moment(video, label, start))

    def predicted(self, example: str) -> bool:
        """Counts a prediction that nobody reviewed; returns whether it is to
        be taken as an action."""
        if not self.options.keep_unreviewed:
            self.unreviewed += 1
            self.remark("predictions that nobody reviewed, left out "
                        "(--unreviewed=keep takes them)", example)
        return self.options.keep_unreviewed

    def remark(self, sentence: str, example: str = "") -> None:
        """Notes what was left out or assumed; equal ones are counted."""
        self.remarks.setdefault(sentence, []).append(example)

    def _checked(self, label: str, example: str) -> str:
        """Returns a label without blanks at its ends; "" if there is none or
        it is background."""
        label = " ".join(nfc(label).split()) if any(
            mark in label for mark in "\n\r\t") else nfc(label).strip()
        if not label:
            self.remark("actions without a label, left out", example)
        elif problem := name_problem(label):
            self.problems.append(f"{example}: the label {label!r} {problem}")
        elif self.options.background is not None and (
                label in self.options.background):
            self.remark("actions labeled as background, left out "
                        "(--background=NAMES)", f"{label!r}")
        else:
            return label
        return ""


def _number(value: Any) -> float | None:
    """Returns a finite number of 0 or more; None for anything else."""
    return float(value) if type(value) in (int, float) and (
        0 <= value <= sys.float_info.max) else None
