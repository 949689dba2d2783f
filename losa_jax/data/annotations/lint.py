"""Faults in annotations, by category, and what is done about them."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from losa_jax.data.annotations.outside import is_outside, seeming_unit
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.detection.segments import iou_of_times
from losa_jax.timeline import SAME_ACTION_SECONDS
from losa_jax.utils.names import alike

# A run stops or cuts these (data.on_outside); scoring keeps them.
OUTSIDE = "actions outside"
EMPTY = "empty actions"  # dropped by data.on_outside=clip
REVERSED = "actions that end before they start"  # likewise
SHORT = "actions shorter than a frame"  # kept; no detection can match them
# One label, both ends within a millisecond: kept for training, scored once.
TWICE = "actions given twice"
NEARLY_TWICE = "actions nearly given twice"  # scored twice
NEARLY_IOU = 0.9
# One segment (each CliffDiving of THUMOS-14 is a Diving too): scored twice.
TWO_LABELS = "actions under two labels"
# Corrected while reading.
WRONG_DURATION = "a wrong duration or frame rate that is known"


def find_faults(video: AnnotatedVideo, duration_seconds: float | None = None,
                fps: float | None = None) -> dict[str, str]:
    """Returns {category: detail} of the faults in a video's annotations as
    read; length and frame rate are of its file, None: as annotated."""
    end = duration_seconds or video.duration_seconds
    fps = fps or video.fps
    frame_seconds = 1 / (fps or 25.0)
    details: dict[str, list[str]] = defaultdict(list)
    if video.correction:
        details[WRONG_DURATION].append(video.correction)
    for action in video.actions:
        seconds = action.end_seconds - action.start_seconds
        if seconds < 0:
            details[REVERSED].append(_show(action))
        elif seconds < SAME_ACTION_SECONDS:
            details[EMPTY].append(_show(action))
        elif seconds < frame_seconds:
            details[SHORT].append(_show(action))
        if end is not None and is_outside(action, end):
            details[OUTSIDE].append(f"{_show(action)} of {end:.2f} s")
    running: list[Action] = []  # those that overlap the next one
    for other in sorted(video.actions, key=lambda action: action[:3]):
        running = [one for one in running if one.end_seconds
                   >= other.start_seconds - SAME_ACTION_SECONDS]
        for one in running:
            same = max(abs(one.start_seconds - other.start_seconds),
                       abs(one.end_seconds - other.end_seconds)
                       ) <= SAME_ACTION_SECONDS
            if same and one.label != other.label:
                pair = " and ".join(sorted((one.label, other.label)))
                details[TWO_LABELS].append(pair)
            elif same:
                details[TWICE].append(_show(one))
            elif one.label == other.label and iou_of_times(
                    one.start_seconds, one.end_seconds, other.start_seconds,
                    other.end_seconds) >= NEARLY_IOU:
                details[NEARLY_TWICE].append(
                    f"{_show(one)} and {_show(other)}")
        running.append(other)
    faults = {category: _joined(category, entries)
              for category, entries in details.items()}
    unit = seeming_unit(video.actions, end, fps) if end else ""
    if unit:
        faults[OUTSIDE] += (f"; the times look like {unit}: convert them to "
                            "seconds")
    return faults


def _show(action: Action) -> str:
    return (f"{action.label} [{action.start_seconds:g}, "
            f"{action.end_seconds:g}]")


def _joined(category: str, entries: list[str]) -> str:
    if category == TWO_LABELS:
        return ", ".join(f"{count} x {pair}"
                         for pair, count in Counter(entries).items())
    more = f", and {len(entries) - 1} more" if len(entries) > 1 else ""
    return f"{entries[0]}{more}"


def summarize(faults: Mapping[str, Mapping[str, str]], most: int = 5
              ) -> list[str]:
    """Returns one line per category: the number of videos, and some ids. Takes
    {video id: its faults}.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for video_id, categories in faults.items():
        for category in categories:
            names[category].append(video_id)
    return [f"{category}: {len(videos)} videos ({', '.join(videos[:most])}"
            + (", ...)" if len(videos) > most else ")")
            for category, videos in names.items()]


def similar_names(annotations: Annotations) -> list[str]:
    """Returns a line for each group of labels, or of video ids, that differ
    only in case, blanks, "_" or "-", or in the ending of a file."""
    return [f"{what} that are nearly equal: " + ", ".join(map(repr, group))
            for what, names in (("labels", annotations.class_names),
                                ("video ids", annotations.videos))
            for group in alike(names)]


def class_counts(annotations: Annotations) -> dict[str, dict[str, int]]:
    """Returns {class: {subset: number of actions}}, in label order."""
    counts = Counter((action.label, video.subset)
                     for video in annotations.videos.values()
                     for action in video.actions)
    subsets = dict.fromkeys(
        video.subset for video in annotations.videos.values())
    return {name: {subset: counts[name, subset] for subset in subsets}
            for name in annotations.class_names}
