"""Error categories of predictions, their cost in mAP, and missed actions.

After DETAD (Alwassel et al., ECCV 2018), but bins are fifths of the data's own
actions. By descending score, a prediction is in one of these categories:
    true            matches an action of its class that has no match yet
    double          IoU >= threshold only with matched actions of its class
    wrong_label     IoU >= threshold with an action of another class
    localization    0.1 <= IoU < threshold with an action of its class
    confusion       0.1 <= IoU < threshold with an action of another class
    background      IoU < 0.1 with every action
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from losa_jax.detection.metrics import Predictions, Truth, evaluate_map
from losa_jax.detection.segments import iou_of_rows

TRUE = "true"
ERRORS = ("double", "wrong_label", "localization", "confusion", "background")
BACKGROUND_IOU = 0.1
# The profile covers the best 1 G to 10 G predictions, with G actions in all.
RANKS = tuple(range(1, 11))
NUM_BINS = 5

_Place = tuple[str, int]  # video, index in its list of actions or predictions
# A prediction, its category, and the action that it matches.
_Categorized = tuple[_Place, str, _Place | None]


class Bin(NamedTuple):
    """A fifth of the actions, between two values of some measure."""

    low: float
    high: float
    num_actions: int
    average_map: float  # over all classes, if only these actions count
    missed: float  # share without a match among the best 10 G predictions


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`."""

    tiou_threshold: float  # of the error categories
    profile: dict[str, list[float]]  # shares among the best k G predictions
    gain: dict[str, float]  # rise of average mAP without an error category
    average_map: float  # with all predictions
    bins: dict[str, list[Bin]]  # by length_seconds, coverage, actions_in_video
    missed: float  # share without a match among the best 10 G predictions


def diagnose(ground_truth: Truth, predictions: Predictions, *,
             class_names: Sequence[str], tiou_thresholds: Sequence[float],
             durations: Mapping[str, float], tiou_threshold: float = 0.5
             ) -> Diagnosis:
    """Finds the error categories and missed actions of predictions.

    Categories are those at `tiou_threshold`. A video without a duration, in
    seconds, is in no bin of coverage.
    """
    def score(truth: Truth, predictions: Predictions) -> float:
        return evaluate_map(truth, predictions, class_names=class_names,
                            tiou_thresholds=tiou_thresholds).average_map

    rows = _categorize(ground_truth, predictions, tiou_threshold)
    num_actions = sum(map(len, ground_truth.values()))
    categories = np.array([category for _, category, _ in rows])
    best = [categories[:rank * num_actions] for rank in RANKS]
    profile = {name: [float((some == name).mean()) if some.size else 0.0
                      for some in best] for name in (TRUE, *ERRORS)}
    average_map = score(ground_truth, predictions)
    gain = {error: score(ground_truth, _without(predictions, {
        place for place, category, _ in rows if category == error}))
        - average_map for error in ERRORS}

    matched = {action for *_, action in rows[:RANKS[-1] * num_actions]
               if action is not None}

    def make_bin(low: float, high: float, inside: set[_Place]) -> Bin:
        truth = {video: [action for index, action in enumerate(actions)
                         if (video, index) in inside]
                 for video, actions in ground_truth.items()}
        # Matches of actions in other bins are neither true nor false.
        ignored = {place for place, _, action in rows
                   if action is not None and action not in inside}
        return Bin(low, high, len(inside),
                   score(truth, _without(predictions, ignored)),
                   1 - len(matched & inside) / len(inside))

    bins = {name: [make_bin(*fifth) for fifth in _fifths(values)]
            for name, values in _measures(ground_truth, durations).items()}
    return Diagnosis(tiou_threshold, profile, gain, average_map, bins,
                     1 - len(matched) / max(num_actions, 1))


def _categorize(ground_truth: Truth, predictions: Predictions,
                threshold: float) -> list[_Categorized]:
    """Returns the predictions of known videos, best score first."""
    places = [(video, index) for video, rows in predictions.items()
              if video in ground_truth for index in range(len(rows))]
    places.sort(key=lambda place: -predictions[place[0]][place[1]].score)
    overlaps, labels = {}, {}
    for video, actions in ground_truth.items():
        overlaps[video] = iou_of_rows(predictions.get(video, ()), actions)
        labels[video] = np.array([label for *_, label in actions], object)
    free = {(video, index) for video, actions in ground_truth.items()
            for index in range(len(actions))}
    rows = []
    for video, index in places:
        is_same = labels[video] == predictions[video][index].label
        category, action = _category(overlaps[video][index], is_same,
                                     threshold, video, free)
        free.discard(action)
        rows.append(((video, index), category, action))
    return rows


def _category(iou: np.ndarray, is_same: np.ndarray, threshold: float,
              video: str, free: Collection[_Place]
              ) -> tuple[str, _Place | None]:
    near = np.flatnonzero(is_same & (iou >= threshold))
    for index in near[np.argsort(-iou[near], kind="stable")].tolist():
        if (video, index) in free:
            return TRUE, (video, index)
    if near.size:
        return "double", None
    if (iou >= threshold).any():
        return "wrong_label", None
    if (iou[is_same] >= BACKGROUND_IOU).any():
        return "localization", None
    if (iou >= BACKGROUND_IOU).any():
        return "confusion", None
    return "background", None


def _without(predictions: Predictions, removed: Collection[_Place]
             ) -> Predictions:
    return {video: [row for index, row in enumerate(rows)
                    if (video, index) not in removed]
            for video, rows in predictions.items()}


def _measures(ground_truth: Truth, durations: Mapping[str, float]
              ) -> dict[str, dict[_Place, float]]:
    length = {(video, index): end - start
              for video, actions in ground_truth.items()
              for index, (start, end, _) in enumerate(actions)}
    return {"length_seconds": length,
            "coverage": {place: seconds / durations[place[0]]
                         for place, seconds in length.items()
                         if durations.get(place[0])},
            "actions_in_video": {place: len(ground_truth[place[0]])
                                 for place in length}}


def _fifths(values: Mapping[_Place, float]
            ) -> list[tuple[float, float, set[_Place]]]:
    """Returns (low, high, actions) of the bins that are not empty; of whole
    numbers, low and high are the least and the largest in the bin."""
    if not values:
        return []
    edges = np.unique(np.quantile([*values.values()],
                                  np.linspace(0, 1, NUM_BINS + 1)))
    if len(edges) == 1:
        edges = np.append(edges, edges)
    bins = [(float(low), float(high), {
        action for action, value in values.items()
        if low <= value < high or value == high == edges[-1]})
        for low, high in itertools.pairwise(edges)]
    return [
        (min(inside), max(inside), actions)
        if all(isinstance(value, int) for value in inside)
        else (low, high, actions)
        for low, high, actions in bins
        if (inside := [values[action] for action in actions])]


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Returns tables in percent."""
    lines = [f"prediction categories at tIoU {diagnosis.tiou_threshold:g}, "
             "share among the best k G (G actions), %",
             f"{'k':<14}" + "".join(f"{rank:>7}" for rank in RANKS)]
    lines += [f"{name:<14}" + "".join(f"{100 * share:7.1f}" for share in shares)
              for name, shares in diagnosis.profile.items()]
    lines += ["", f"average mAP {100 * diagnosis.average_map:.2f}; rise "
              "without the predictions of an error category:"]
    lines += [f"{error:<14}{100 * value:+7.2f}"
              for error, value in diagnosis.gain.items()]
    lines += ["", f"missed: {100 * diagnosis.missed:.1f} % of the actions"]
    for name, bins in diagnosis.bins.items():
        lines += ["", f"{name:<24}{'actions':>9}{'mAP':>8}{'missed':>8}"]
        lines += [(f"{one.low:9.3g}{'':13}" if one.low == one.high else
                   f"{one.low:9.3g} .. {one.high:<9.3g}")
                  + f"  {one.num_actions:>9}"
                  f"{100 * one.average_map:8.2f}{100 * one.missed:8.1f}"
                  for one in bins]
    return "\n".join(lines)
