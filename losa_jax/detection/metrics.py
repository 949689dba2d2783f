"""Mean average precision and recall, as ActivityNet's kit defines them.

Of equal scores, the first in the input ranks first. Public kits use numpy's
unstable sort, which depends on the processor: for one public file they give
33.41, 33.47 or 33.14 on three processors, and we 33.15 on all.
`Rules("numpy", "false")` does as they do.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from losa_jax.detection.segments import Detection, segment_iou
from losa_jax.errors import InputError
from losa_jax.timeline import SAME_ACTION_SECONDS

Annotation = tuple[float, float, str]  # start_seconds, end_seconds, label
# {video id: actions or detections}; a video without any is listed too.
Truth = Mapping[str, Sequence[Annotation]]
Predictions = Mapping[str, Sequence[Detection]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Where public kits differ from our evaluation."""

    # Of equal scores: "stable", or "numpy" as its unstable sort; "file" ranks
    # by the order of the file instead of the scores.
    ties: str = "stable"
    # Predictions in videos without ground truth: "drop" or "false".
    unknown_videos: str = "drop"


OURS = Rules()


@dataclasses.dataclass(frozen=True)
class MapReport:
    """Average precision of predictions, as shares 0..1, not percent.

    Attributes:
      class_names: k classes, in the order of all rows below.
      tiou_thresholds: temporal IoU of a match, in (0, 1].
      average_precision: [k, thresholds]; NaN for a class without actions.
      map_per_threshold: [thresholds], mean over the classes with actions.
      average_map: mean over the thresholds.
      actions_per_class, predictions_per_class: int64 [k], that were scored.
      num_videos: of the ground truth, with and without actions.
      num_actions, num_predictions: sums over the classes.
      num_dropped_predictions: predictions of other labels or videos.
      num_removed_actions: annotations that are duplicates or too short.
    """

    class_names: tuple[str, ...]
    tiou_thresholds: tuple[float, ...]
    average_precision: np.ndarray
    map_per_threshold: np.ndarray
    average_map: float
    actions_per_class: np.ndarray
    predictions_per_class: np.ndarray
    num_videos: int
    num_actions: int
    num_predictions: int
    num_dropped_predictions: int
    num_removed_actions: int


class ClassMatches(NamedTuple):
    """The predictions of one class, best score first, and their matches."""

    label: int  # index of the class
    video: np.ndarray  # [m] index of each prediction's video
    scores: np.ndarray  # [m]
    hits: np.ndarray  # bool [thresholds, m]
    actions_per_video: np.ndarray  # [videos]


class _Rows(NamedTuple):
    """Segments of all videos by group, predictions also by score."""

    group: np.ndarray  # [m] video x number of classes + class, ascending
    label: np.ndarray  # [m] class
    segments: np.ndarray  # [m, 2] seconds, float64
    num_left_out: int
    scores: np.ndarray = np.empty(0)  # [m]
    ranking: np.ndarray = np.empty(0, np.int64)  # [m] rows, best score first


def evaluate_map(ground_truth: Truth, predictions: Predictions, *,
                 class_names: Sequence[str],
                 tiou_thresholds: Sequence[float], rules: Rules = OURS
                 ) -> MapReport:
    """Scores predictions by the ActivityNet protocol.

    By descending score, each prediction matches the action of its video and
    class with the highest IoU among those without a match, if that IoU reaches
    the threshold; otherwise it is false. Average precision is the area under
    the interpolated precision-recall curve (VOC 2011); mAP is its mean over
    the classes that have actions.

    Args:
      ground_truth: all videos, also those without actions.
      predictions: a missing video has none.
      class_names: predictions of other labels are left out and counted.
      tiou_thresholds: temporal IoU of a match, inclusive.
      rules: `Rules("numpy", "false")` gives the numbers of ActivityNet's kit.

    Raises:
      InputError: no action at all, or an unknown label in the ground truth.
    """
    actions = _ground_truth_rows(ground_truth, class_names)
    predicted = _prediction_rows(ground_truth, predictions, class_names, rules)
    num_classes = len(class_names)
    precision = np.full((num_classes, len(tiou_thresholds)), np.nan)
    for one in _matches(predicted, actions, ground_truth, num_classes,
                        tiou_thresholds):
        precision[one.label] = precision_sums(
            one.hits, np.ones_like(one.hits, float)
            ) / one.actions_per_video.sum()
    return make_report(
        class_names, tiou_thresholds, precision,
        np.bincount(actions.label, minlength=num_classes),
        np.bincount(predicted.label, minlength=num_classes),
        num_videos=len(ground_truth),
        num_dropped_predictions=predicted.num_left_out,
        num_removed_actions=actions.num_left_out)


def precision_sums(hits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns the sums [n] of the interpolated precision at hits.

    Divided by the number of actions, this is the average precision: the recall
    rises by one action's share at every hit.

    Args:
      hits: bool [m] or [n, m], best score first.
      weight: [n, m], how often each prediction counts.
    """
    gained = weight * hits
    precision = np.cumsum(gained, axis=1) / np.maximum(
        np.cumsum(weight, axis=1), 1)
    # The best precision at this recall or a higher one.
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (best * gained).sum(axis=1)


def make_report(class_names: Sequence[str], tiou_thresholds: Sequence[float],
                precision: np.ndarray, actions_per_class: np.ndarray,
                predictions_per_class: np.ndarray, **counts: int) -> MapReport:
    """Returns a report with its means and sums.

    Raises:
      InputError: no action at all.
    """
    if not actions_per_class.any():
        raise InputError(
            "the annotations of this subset have no actions of these classes "
            "to score against: name the subset that has them")
    map_per_threshold = precision[actions_per_class > 0].mean(axis=0)
    return MapReport(
        tuple(class_names), tuple(map(float, tiou_thresholds)), precision,
        map_per_threshold, float(map_per_threshold.mean()), actions_per_class,
        predictions_per_class, num_actions=int(actions_per_class.sum()),
        num_predictions=int(predictions_per_class.sum()), **counts)


def match_predictions(ground_truth: Truth, predictions: Predictions, *,
                      class_names: Sequence[str],
                      tiou_thresholds: Sequence[float]
                      ) -> list[ClassMatches]:
    """Returns the matches of `evaluate_map` for each class with actions.

    The matches in one video do not depend on the other videos.
    """
    return _matches(
        _prediction_rows(ground_truth, predictions, class_names, OURS),
        _ground_truth_rows(ground_truth, class_names), ground_truth,
        len(class_names), tiou_thresholds)


def _matches(predicted: _Rows, actions: _Rows, ground_truth: Truth,
             num_classes: int, tiou_thresholds: Sequence[float]
             ) -> list[ClassMatches]:
    hits = np.zeros((len(tiou_thresholds), len(predicted.group)), bool)
    for rows, _, iou in _shared_groups(predicted, actions):
        for index, threshold in enumerate(tiou_thresholds):
            hits[index, rows] = _match(iou, threshold)
    ranked_labels = predicted.label[predicted.ranking]
    matches: list[ClassMatches] = []
    for k in np.unique(actions.label):
        ranked = predicted.ranking[ranked_labels == k]
        matches.append(ClassMatches(
            int(k), predicted.group[ranked] // num_classes,
            predicted.scores[ranked], hits[:, ranked],
            np.bincount(actions.group[actions.label == k] // num_classes,
                        minlength=len(ground_truth))))
    return matches


def recall_at(ground_truth: Truth, predictions: Predictions, *,
              class_names: Sequence[str], tiou_thresholds: Sequence[float],
              multiples: Sequence[int] = (1, 5), rules: Rules = OURS
              ) -> np.ndarray:
    """Returns Recall@kx of Ego4D, as ActionFormer reports it beside mAP.

    This is the share of actions that are matched by one of the k n best
    predictions of a video and class with n actions; one prediction may match
    several of them. k is one of `multiples`; other arguments are as in
    `evaluate_map`.

    Returns:
      [multiples, thresholds] mean over the classes that have actions.
    """
    actions = _ground_truth_rows(ground_truth, class_names)
    predicted = _prediction_rows(ground_truth, predictions, class_names,
                                 Rules("file"))
    thresholds = np.asarray(tiou_thresholds, np.float64)
    counts = np.zeros((len(class_names), len(multiples), len(thresholds)))
    for rows, columns, iou in _shared_groups(predicted, actions):
        scores = predicted.scores[rows]
        iou = iou[np.argsort(scores)[::-1] if rules.ties == "numpy"
                  else np.argsort(-scores, kind="stable")]
        for index, multiple in enumerate(multiples):
            best = iou[:multiple * iou.shape[1]].max(axis=0)
            counts[actions.label[columns.start], index] += (
                best >= thresholds[:, None]).sum(axis=1)
    actions_per_class = np.bincount(actions.label, minlength=len(class_names))
    present = actions_per_class > 0
    return (counts[present]
            / actions_per_class[present][:, None, None]).mean(axis=0)


def format_map_table(report: MapReport) -> str:
    """Returns a table in percent, a line for each class, counts below."""
    width = max(len("class"), len("mean"),
                *(len(name) for name in report.class_names))

    def line(name: str, values: Sequence[float], actions: int,
             predictions: int) -> str:
        cells = "".join("       -" if np.isnan(value)
                        else f"{100 * value:8.2f}" for value in values)
        return f"{name:<{width}}{cells}{actions:10,}{predictions:13,}"

    head = "".join(f"{value:>8g}" for value in report.tiou_thresholds)
    lines = [f"{'tIoU':<{width}}{head} average   actions  predictions"]
    for k, name in enumerate(report.class_names):
        precision = report.average_precision[k]
        lines.append(line(name, [*precision, precision.mean()],
                          report.actions_per_class[k],
                          report.predictions_per_class[k]))
    lines.append(line("mean", [*report.map_per_threshold,
                               report.average_map],
                      report.num_actions, report.num_predictions))
    lines.append(
        f"mAP in percent; {report.num_videos:,} videos, "
        f"{report.num_removed_actions:,} duplicate or too short annotations "
        f"removed, {report.num_dropped_predictions:,} predictions of other "
        "labels or videos left out")
    return "\n".join(lines)


def _ground_truth_rows(ground_truth: Truth, class_names: Sequence[str]
                       ) -> _Rows:
    """Returns all actions without duplicates, by video and class."""
    class_index = {name: k for k, name in enumerate(class_names)}
    unknown = sorted({label for annotations in ground_truth.values()
                      for _, _, label in annotations} - set(class_index))
    if unknown:
        raise InputError("the annotations have labels that are not classes: "
                         f"{', '.join(unknown)}; add them to the file of "
                         "class names")
    groups, segments, num_left_out = [], [], 0
    for video, annotations in enumerate(ground_truth.values()):
        kept: dict[int, list[tuple[float, float]]] = {}
        for start, end, label in annotations:
            same_label = kept.setdefault(class_index[label], [])
            if (end - start < SAME_ACTION_SECONDS
                    or any(abs(start - other_start) <= SAME_ACTION_SECONDS
                           and abs(end - other_end) <= SAME_ACTION_SECONDS
                           for other_start, other_end in same_label)):
                num_left_out += 1
            else:
                same_label.append((start, end))
        for k in sorted(kept):
            groups += [video * len(class_names) + k] * len(kept[k])
            segments += kept[k]
    group = np.asarray(groups, np.int64)
    return _Rows(group, group % len(class_names),
                 np.asarray(segments, np.float64).reshape(-1, 2), num_left_out)


def _prediction_rows(ground_truth: Truth, predictions: Predictions,
                     class_names: Sequence[str], rules: Rules) -> _Rows:
    """Returns predictions of known videos and classes by group and score."""
    class_index = {name: k for k, name in enumerate(class_names)}
    video_index = {video: index for index, video in enumerate(ground_truth)}
    groups, rows, total = [], [], 0
    for video, detections in predictions.items():
        total += len(detections)
        if video not in video_index:
            if rules.unknown_videos == "drop":
                continue
            video_index[video] = len(video_index)
        first_group = video_index[video] * len(class_names)
        for start, end, label, score, *_ in detections:
            k = class_index.get(label)
            if k is not None:
                groups.append(first_group + k)
                rows.append((start, end, score))
    group = np.asarray(groups, np.int64)
    values = np.asarray(rows, np.float64).reshape(-1, 3)
    if rules.ties == "file":
        ranking = np.arange(len(values))
    elif rules.ties == "stable":
        ranking = np.argsort(-values[:, 2], kind="stable")
    else:  # class by class, as the kits sort
        labels = group % len(class_names)
        of_class = [np.flatnonzero(labels == k)
                    for k in range(len(class_names))]
        ranking = np.concatenate([
            one[np.argsort(values[one, 2])[::-1]] for one in of_class])
    order = ranking[np.argsort(group[ranking], kind="stable")]
    row_of_input = np.empty_like(order)
    row_of_input[order] = np.arange(len(order))
    return _Rows(group[order], group[order] % len(class_names),
                 values[order, :2], total - len(group), values[order, 2],
                 row_of_input[ranking])


def _shared_groups(predicted: _Rows, actions: _Rows
                   ) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yields (predictions, actions, IoU) of each video and class with both."""
    shared = np.intersect1d(predicted.group, actions.group)
    bounds = [np.searchsorted(rows.group, shared, side=side)
              for rows in (predicted, actions) for side in ("left", "right")]
    for first, last, first_action, last_action in zip(*bounds, strict=True):
        rows, columns = slice(first, last), slice(first_action, last_action)
        yield rows, columns, segment_iou(predicted.segments[rows, None],
                                         actions.segments[columns])


def _match(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which predictions match an action, bool [m].

    Args:
      iou: [m, n] of m predictions, best score first, with n actions.
    """
    true = np.zeros(len(iou), bool)
    free = np.where(iou >= threshold, iou, -1.0)
    matches = np.any(free >= 0, axis=1)
    row = 0
    # Each round is a match: fewer rounds than predictions.
    while matches[row:].any():
        row += int(np.argmax(matches[row:]))
        true[row] = True
        free[:, np.argmax(free[row])] = -1.0
        row += 1
        matches[row:] = np.any(free[row:] >= 0, axis=1)
    return true
