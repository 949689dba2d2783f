"""Why a mAP is what it is: kinds of errors, what they cost, what is missed.

After DETAD (Alwassel et al., ECCV 2018), without its extra annotations: bins
of length, coverage and count are fifths of the data's own actions.

A prediction, best score first, is at a threshold a
    true            it found an action of its class that was free
    double          IoU >= a with an action of its class found before
    wrong_label     IoU >= a with an action of another class
    localization    0.1 <= IoU < a with an action of its class
    confusion       0.1 <= IoU < a with an action of another class
    background      IoU < 0.1 with every action
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from losa_jax.detection.metrics import Annotation, evaluate_map
from losa_jax.detection.segments import Detection

TRUE = "true"
ERRORS = ("double", "wrong_label", "localization", "confusion", "background")
# Below this overlap a prediction has nothing to do with an action.
BACKGROUND_IOU = 0.1
# The profile looks at the best 1 G to 10 G predictions, G actions in all.
RANKS = tuple(range(1, 11))
NUM_BINS = 5


Truth = Mapping[str, Sequence[Annotation]]
Found = Mapping[str, Sequence[Detection]]


class Bin(NamedTuple):
    """A fifth of the actions by some measure.

    Attributes:
      low, high: of the measure.
      num_actions: in it.
      average_map: over all classes, when only these actions count.
      missed: share that no prediction among the best 10 G found.
    """

    low: float
    high: float
    num_actions: int
    average_map: float
    missed: float


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found at one threshold.

    Attributes:
      tiou_threshold: a.
      profile: {kind: [ranks] share among the best k G predictions}.
      gain: {error: how much mAP rises, over all thresholds, if no prediction
        made this error}.
      average_map: as it is.
      bins: {"length_seconds", "coverage", "actions_in_video": bins}.
      missed: share of all actions not found among the best 10 G.
    """

    tiou_threshold: float
    profile: dict[str, list[float]]
    gain: dict[str, float]
    average_map: float
    bins: dict[str, list[Bin]]
    missed: float


_Place = tuple[str, int]  # video, number of its action


class _Matched(NamedTuple):
    """Kinds of predictions and who found which action, best score first."""

    kind: list[str]
    video: list[str]
    place: list[int]  # in the video's list of predictions
    action: list[_Place | None]  # that was found


def diagnose(ground_truth: Truth, predictions: Found, *,
             class_names: Sequence[str], tiou_thresholds: Sequence[float],
             durations: Mapping[str, float], tiou_threshold: float = 0.5
             ) -> Diagnosis:
    """Looks into a set of predictions.

    Args:
      ground_truth, predictions, class_names, tiou_thresholds: as in
        `evaluate_map`.
      durations: of each video in seconds, for coverage; a video without one
        is in no bin of it.
      tiou_threshold: at which predictions are told apart.
    """
    matched = _match(ground_truth, predictions, tiou_threshold)
    num_actions = sum(len(actions) for actions in ground_truth.values())
    kinds = np.array(matched.kind)
    profile = {}
    for kind in (TRUE, *ERRORS):
        shares = []
        for rank in RANKS:
            best = kinds[:rank * num_actions]
            shares.append(float((best == kind).mean()) if best.size else 0.0)
        profile[kind] = shares

    def score(truth: Truth, found: Found) -> float:
        return evaluate_map(truth, found, class_names=class_names,
                            tiou_thresholds=tiou_thresholds).average_map

    average_map = score(ground_truth, predictions)
    gain = {error: score(ground_truth, _without(predictions, matched, error))
            - average_map for error in ERRORS}

    found = {action for action in matched.action[:RANKS[-1] * num_actions]
             if action is not None}
    bins = {name: _bins(measure, ground_truth, predictions, matched, found,
                        score)
            for name, measure in _measures(ground_truth, durations).items()}
    return Diagnosis(tiou_threshold, profile, gain, average_map, bins,
                     1 - len(found) / max(num_actions, 1))


def _match(ground_truth: Truth, predictions: Found, threshold: float
           ) -> _Matched:
    rows = sorted(
        ((found.score, video, place) for video, list_ in predictions.items()
         if video in ground_truth for place, found in enumerate(list_)),
        key=lambda row: -row[0])
    overlaps = {video: _overlaps(ground_truth[video], predictions[video])
                for video in predictions if video in ground_truth}
    labels = {video: np.array([label for *_, label in actions])
              for video, actions in ground_truth.items()}
    taken: set[tuple[str, int]] = set()
    matched = _Matched([], [], [], [])
    for _, video, place in rows:
        iou = overlaps[video][place]
        same = (labels[video] == predictions[video][place].label
                if iou.size else np.zeros(0, bool))
        kind, action = _kind(iou, same, threshold, video, taken)
        if action is not None:
            taken.add(action)
        matched.kind.append(kind)
        matched.video.append(video)
        matched.place.append(place)
        matched.action.append(action)
    return matched


def _kind(iou: np.ndarray, same: np.ndarray, threshold: float, video: str,
          taken: set[tuple[str, int]]
          ) -> tuple[str, tuple[str, int] | None]:
    near = np.flatnonzero(same & (iou >= threshold))
    for number in near[np.argsort(-iou[near], kind="stable")]:
        if (video, int(number)) not in taken:
            return TRUE, (video, int(number))
    if near.size:
        return "double", None
    if (iou >= threshold).any():
        return "wrong_label", None
    if (iou[same] >= BACKGROUND_IOU).any():
        return "localization", None
    if (iou >= BACKGROUND_IOU).any():
        return "confusion", None
    return "background", None


def _overlaps(actions: Sequence[Annotation], found: Sequence[Detection]
              ) -> np.ndarray:
    """IoU [predictions, actions]."""
    one = np.array([(row.start_seconds, row.end_seconds) for row in found]
                   ).reshape(-1, 2)
    two = np.array([(start, end) for start, end, _ in actions]).reshape(-1, 2)
    shared = np.maximum(np.minimum(one[:, None, 1], two[None, :, 1])
                        - np.maximum(one[:, None, 0], two[None, :, 0]), 0)
    union = ((one[:, 1] - one[:, 0])[:, None] + (two[:, 1] - two[:, 0])[None]
             - shared)
    return shared / np.maximum(union, 1e-12)


def _without(predictions: Found, matched: _Matched, error: str) -> Found:
    """All predictions but those that made this error."""
    wrong: dict[str, set[int]] = {}
    for kind, video, place in zip(matched.kind, matched.video, matched.place,
                                  strict=True):
        if kind == error:
            wrong.setdefault(video, set()).add(place)
    return {video: [row for place, row in enumerate(rows)
                    if place not in wrong.get(video, ())]
            for video, rows in predictions.items()}


def _measures(ground_truth: Truth, durations: Mapping[str, float]
              ) -> dict[str, dict[_Place, float]]:
    length, coverage, count = {}, {}, {}
    for video, actions in ground_truth.items():
        for number, (start, end, _) in enumerate(actions):
            length[video, number] = end - start
            count[video, number] = float(len(actions))
            if durations.get(video):
                coverage[video, number] = (end - start) / durations[video]
    return {"length_seconds": length, "coverage": coverage,
            "actions_in_video": count}


def _bins(measure: Mapping[_Place, float], ground_truth: Truth,
          predictions: Found, matched: _Matched, found: set[_Place],
          score: Callable[[Truth, Found], float]) -> list[Bin]:
    if not measure:
        return []
    values = np.array(list(measure.values()))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)))
    if len(edges) == 1:
        edges = np.append(edges, edges)
    bins = []
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:],
                                             strict=True)):
        last = number == len(edges) - 2
        inside = {action for action, value in measure.items()
                  if low <= value and (value <= high if last
                                       else value < high)}
        if not inside:
            continue
        truth = {video: [action for place, action in enumerate(actions)
                         if (video, place) in inside]
                 for video, actions in ground_truth.items()}
        # What found an action of another bin is neither true nor false.
        spared = {(video, place) for video, place, action in zip(
            matched.video, matched.place, matched.action, strict=True)
            if action is not None and action not in inside}
        kept = {video: [row for place, row in enumerate(rows)
                        if (video, place) not in spared]
                for video, rows in predictions.items()}
        missed = 1 - len(found & inside) / len(inside)
        bins.append(Bin(float(low), float(high), len(inside),
                        score(truth, kept), missed))
    return bins


def format_diagnosis(found: Diagnosis) -> str:
    """Tables for people, percent."""
    lines = [f"kinds of predictions at tIoU {found.tiou_threshold:g}, share "
             "among the best k G (G actions), %",
             f"{'k':<14}" + "".join(f"{rank:>7}" for rank in RANKS)]
    lines += [f"{kind:<14}" + "".join(f"{100 * share:7.1f}"
                                      for share in shares)
              for kind, shares in found.profile.items()]
    lines += ["", f"average mAP {100 * found.average_map:.2f}; it would rise "
              "by this much without"]
    lines += [f"{error:<14}{100 * value:+7.2f}"
              for error, value in found.gain.items()]
    lines += ["", f"missed: {100 * found.missed:.1f} % of the actions"]
    for name, bins in found.bins.items():
        lines += ["", f"{name:<24}{'actions':>9}{'mAP':>8}{'missed':>8}"]
        lines += [f"{one.low:9.3g} .. {one.high:<9.3g}  {one.num_actions:>9}"
                  f"{100 * one.average_map:8.2f}{100 * one.missed:8.1f}"
                  for one in bins]
    return "\n".join(lines)
