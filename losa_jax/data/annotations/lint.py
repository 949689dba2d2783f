"""What is odd about annotations, video by video, and what is done about it.

    actions outside      reach past the end: data.on_outside says whether the
                         run stops, or they are cut and those wholly outside
                         dropped; scoring keeps them, as other tools do
    empty actions        last no time: data.on_outside=clip drops them
    shorter than a frame kept; nothing can find them
    given twice          one label, both ends within a millisecond: kept for
                         training, where a copy changes nothing; scored once
    nearly given twice   one label, tIoU of 0.9 and more: kept, scored twice
    under two labels     one segment, two labels (THUMOS-14's CliffDiving is
                         Diving too): both are trained and scored
    wrong duration       of a THUMOS-14 file that takes 30 frames a second
                         for every video: put right (`thumos.SLOW_VIDEOS`)

"Outside" is measured by the annotated duration, unless the video's file says
another (by more than 1 %) or the annotations say none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from losa_jax.data.annotations.outside import outside_slack_seconds
from losa_jax.data.records import Action, AnnotatedVideo
from losa_jax.detection.segments import iou_of_times
from losa_jax.timeline import SAME_ACTION_SECONDS

OUTSIDE = "actions outside"
EMPTY = "empty actions"
SHORT = "actions shorter than a frame"
TWICE = "actions given twice"
NEARLY_TWICE = "actions nearly given twice"
TWO_LABELS = "actions under two labels"
WRONG_DURATION = "a wrong duration that is known"
NEARLY_IOU = 0.9
# Where the annotations say no rate.
_USUAL_FPS = 25.0


class Fault(NamedTuple):
    """Something odd about the actions of one video."""

    video_id: str
    kind: str
    detail: str


def find_faults(video: AnnotatedVideo, duration_seconds: float | None = None
                ) -> list[Fault]:
    """All that is odd about a video's actions, a fault a kind.

    Args:
      video: with the segments that the file has.
      duration_seconds: of its file; None takes what the annotations say.
    """
    end = duration_seconds or video.duration_seconds
    frame_seconds = 1 / (video.fps or _USUAL_FPS)
    found: dict[str, list[str]] = defaultdict(list)
    if video.correction:
        found[WRONG_DURATION].append(video.correction)
    for action in video.actions:
        seconds = action.end_seconds - action.start_seconds
        if seconds < SAME_ACTION_SECONDS:
            found[EMPTY].append(_show(action))
        elif seconds < frame_seconds:
            found[SHORT].append(_show(action))
        if end is not None and _is_outside(action, end):
            found[OUTSIDE].append(f"{_show(action)} of {end:.2f} s")
    for one, other in _overlapping(video.actions):
        same = (abs(one.start_seconds - other.start_seconds)
                <= SAME_ACTION_SECONDS
                and abs(one.end_seconds - other.end_seconds)
                <= SAME_ACTION_SECONDS)
        if one.label != other.label:
            if same:
                pair = " and ".join(sorted((one.label, other.label)))
                found[TWO_LABELS].append(pair)
        elif same:
            found[TWICE].append(_show(one))
        elif iou_of_times(one.start_seconds, one.end_seconds,
                          other.start_seconds, other.end_seconds
                          ) >= NEARLY_IOU:
            found[NEARLY_TWICE].append(f"{_show(one)} and {_show(other)}")
    return [Fault(video.video_id, kind, _list(kind, entries))
            for kind, entries in found.items()]


def _overlapping(actions: Iterable[Action]
                 ) -> Iterator[tuple[Action, Action]]:
    """Pairs that share time, or begin and end together."""
    running: list[Action] = []
    for action in sorted(actions):
        running = [one for one in running if one.end_seconds
                   >= action.start_seconds - SAME_ACTION_SECONDS]
        for one in running:
            yield one, action
        running.append(action)


def _is_outside(action: Action, end: float) -> bool:
    slack = outside_slack_seconds(end)
    return action.start_seconds < -slack or action.end_seconds > end + slack


def _show(action: Action) -> str:
    return (f"{action.label} [{action.start_seconds:g}, "
            f"{action.end_seconds:g}]")


def _list(kind: str, entries: list[str]) -> str:
    if kind == WRONG_DURATION:
        return entries[0]
    if kind == TWO_LABELS:
        return ", ".join(f"{count} x {pair}"
                         for pair, count in Counter(entries).items())
    more = f", and {len(entries) - 1} more" if len(entries) > 1 else ""
    return f"{entries[0]}{more}"


def summarize(faults: Iterable[Fault], most: int = 5) -> list[str]:
    """A line a kind: how many videos, and the names of some."""
    names: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        names[fault.kind].append(fault.video_id)
    return [f"{kind}: {len(found)} videos ({', '.join(found[:most])}"
            + (", ...)" if len(found) > most else ")")
            for kind, found in names.items()]
