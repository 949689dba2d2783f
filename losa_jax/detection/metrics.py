"""Mean average precision and recall, as ActivityNet's kit defines them.

Of equal scores, the first in the input ranks first. Public kits use numpy's
unstable sort, which depends on the processor: one public file has 33.41, 33.47
or 33.14 on three processors. `Rules("numpy", "false")` does as they do.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from losa_jax.detection.per_frame import FrameReport
from losa_jax.detection.segments import Detection, column, segment_iou
from losa_jax.errors import InputError
from losa_jax.timeline import SAME_ACTION_SECONDS

Annotation = tuple[float, float, str]  # start_seconds, end_seconds, label
# {video id: actions or detections}; a video without any is listed too.
Truth = Mapping[str, Sequence[Annotation]]
Predictions = Mapping[str, Sequence[Detection]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Where public kits differ from our evaluation."""

    # Order of equal scores: "stable", or "numpy" as its unstable sort.
    ties: str = "stable"
    # Predictions in videos without ground truth: "drop" or "false".
    unknown_videos: str = "drop"
    # Also annotations that are given twice or last no time.
    every_action: bool = False


OURS = Rules()
# So many pairs of predictions and actions are in memory at once.
_MOST_PAIRS = 2 ** 21
# The score threshold of classes without actions or matches.
DEFAULT_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class MapReport:
    """Average precision of predictions, as shares 0..1, not percent.

    Attributes:
      class_names: k classes, in the order of all rows below.
      tiou_thresholds: temporal IoU of a match, in (0, 1].
      average_precision: NaN for a class without actions.
      map_per_threshold: mean over the classes with actions.
      average_map: mean over the thresholds.
      actions_per_class, predictions_per_class: those that were scored.
      num_videos: of the ground truth, with and without actions.
      num_actions, num_predictions: sums over the classes.
      num_dropped_predictions: predictions of other labels or videos.
      num_removed_actions: annotations that are duplicates or too short.
      per_frame: the average precision of moments, if it was asked for.
      recall: the module `recall` describes it; likewise.
    """

    class_names: tuple[str, ...]
    tiou_thresholds: tuple[float, ...]
    average_precision: Float[np.ndarray, "k thresholds"]
    map_per_threshold: Float[np.ndarray, "thresholds"]
    average_map: float
    actions_per_class: Int[np.ndarray, "k"]
    predictions_per_class: Int[np.ndarray, "k"]
    num_videos: int
    num_actions: int
    num_predictions: int
    num_dropped_predictions: int
    num_removed_actions: int
    per_frame: FrameReport | None = None
    recall: Mapping[str, list[float]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the fields as JSON content, None for NaN."""
        precision = self.average_precision
        content = dataclasses.asdict(self) | {"average_precision": np.where(
            np.isnan(precision), np.array(None), precision)}
        del content["per_frame"]
        if self.per_frame is not None:
            content["per_frame"] = self.per_frame.as_json()
        return {key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in content.items()}


class ClassMatches(NamedTuple):
    """The predictions of one class, best score first, and their matches."""

    label: int  # index of the class
    video: Int[np.ndarray, "m"]  # index of each prediction's video
    scores: Float[np.ndarray, "m"]
    hits: Bool[np.ndarray, "thresholds m"]
    actions_per_video: Int[np.ndarray, "videos"]


class _Rows(NamedTuple):
    """Actions or predictions of all videos, in the order of their file."""

    video: Int[np.ndarray, "m"]  # index
    label: Int[np.ndarray, "m"]  # class
    segments: Float[np.ndarray, "m 2"]  # seconds, float64
    scores: Float[np.ndarray, "m"]  # 0 for actions
    num_left_out: int


def evaluate_map(ground_truth: Truth, predictions: Predictions, *,
                 class_names: Sequence[str],
                 tiou_thresholds: Sequence[float], rules: Rules = OURS
                 ) -> MapReport:
    """Scores predictions by the ActivityNet protocol.

    By descending score, each prediction matches the action of its video and
    class with the highest IoU among those without a match, if that IoU reaches
    the threshold; otherwise it is false. Average precision is the area under
    the interpolated precision-recall curve (VOC 2011); mAP is its mean over
    the classes that have actions. Predictions of labels that are not in
    `class_names` are left out and counted. Thresholds are inclusive.

    Raises:
      InputError: no action at all, or an unknown label in the ground truth.
    """
    actions = _ground_truth_rows(ground_truth, class_names, rules)
    predicted = _prediction_rows(ground_truth, predictions, class_names, rules)
    num_classes = len(class_names)
    precision = np.full((num_classes, len(tiou_thresholds)), np.nan)
    for one in _matches(predicted, actions, len(ground_truth),
                        tiou_thresholds, rules.ties):
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


def precision_sums(hits: Bool[np.ndarray, "*#n m"],
                   weight: Real[np.ndarray, "n m"]) -> Float[np.ndarray, "n"]:
    """Returns the sums of the interpolated precision at hits.

    Divided by the number of actions, this is the average precision. Hits are
    in the order of their scores; `weight` is how often each prediction counts.
    """
    gained = weight * hits
    precision = np.cumsum(gained, axis=1) / np.maximum(
        np.cumsum(weight, axis=1), 1)
    # The best precision at this recall or a higher one.
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (best * gained).sum(axis=1)


def make_report(class_names: Sequence[str], tiou_thresholds: Sequence[float],
                precision: Float[np.ndarray, "k thresholds"],
                actions_per_class: Int[np.ndarray, "k"],
                predictions_per_class: Int[np.ndarray, "k"], **counts: int
                ) -> MapReport:
    """Returns a report with its means and sums."""
    if not actions_per_class.any():
        raise InputError(
            "the annotations of this subset have no actions of these classes "
            "to score against: name the subset that has them")
    map_per_threshold = precision[actions_per_class > 0].mean(axis=0)
    return MapReport(
        tuple(class_names), tuple(map(float, tiou_thresholds)), precision,
        map_per_threshold, float(map_per_threshold.mean()), actions_per_class,
        predictions_per_class, num_actions=int(actions_per_class.sum()),
        num_predictions=int(predictions_per_class.sum()), per_frame=None,
        recall=None, **counts)


def match_predictions(ground_truth: Truth, predictions: Predictions, *,
                      class_names: Sequence[str],
                      tiou_thresholds: Sequence[float]) -> list[ClassMatches]:
    """Returns the matches of `evaluate_map` for each class with actions.

    The matches in one video do not depend on the other videos.
    """
    return _matches(
        _prediction_rows(ground_truth, predictions, class_names, OURS),
        _ground_truth_rows(ground_truth, class_names, OURS), len(ground_truth),
        tiou_thresholds, OURS.ties)


def _matches(predicted: _Rows, actions: _Rows, num_videos: int,
             tiou_thresholds: Sequence[float], ties: str) -> list[ClassMatches]:
    matches = []
    for k in np.unique(actions.label).tolist():
        rows = np.flatnonzero(predicted.label == k)
        rows = rows[_best_first(predicted.scores[rows], ties)]
        own = np.flatnonzero(actions.label == k)
        pairs = _overlapping(predicted, actions, rows, own,
                             min(tiou_thresholds))
        # A sum over hits of all thresholds depends on this memory order.
        hits = np.zeros((len(rows), len(tiou_thresholds)), bool).T
        for index, threshold in enumerate(tiou_thresholds):
            _match(_Pairs(*(part[pairs.iou >= threshold] for part in pairs)),
                   hits[index], len(own))
        matches.append(ClassMatches(
            k, predicted.video[rows], predicted.scores[rows], hits,
            np.bincount(actions.video[own], minlength=num_videos)))
    return matches


class _Pairs(NamedTuple):
    """Predictions and actions of one video that overlap, sorted by action and
    then by rank of the prediction."""

    prediction: Int[np.ndarray, "q"]  # rank in its class
    action: Int[np.ndarray, "q"]  # number in its class
    iou: Float[np.ndarray, "q"]


def _overlapping(predicted: _Rows, actions: _Rows, rows: np.ndarray,
                 own: np.ndarray, least_iou: float) -> _Pairs:
    """Returns the pairs of predictions `rows` and actions `own` of one class
    whose IoU is `least_iou` or more."""
    by_video = np.argsort(predicted.video[rows], kind="stable")
    videos = predicted.video[rows[by_video]]
    first = np.searchsorted(videos, actions.video[own], "left")
    count = np.searchsorted(videos, actions.video[own], "right") - first
    ends = np.cumsum(count)
    parts = []
    start = 0
    while start < len(own):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(
            ends, done + _MOST_PAIRS, "right")))
        some = np.arange(start, stop)
        action = np.repeat(some, count[some])
        # 0 .. count - 1 for each action.
        step = np.arange(len(action)) - np.repeat(
            ends[some] - count[some] - done, count[some])
        rank = by_video[first[action] + step]
        iou = segment_iou(predicted.segments[rows[rank]],
                          actions.segments[own[action]])
        is_near = iou >= least_iou
        parts.append((rank[is_near], action[is_near], iou[is_near]))
        start = stop
    return _Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _match(pairs: _Pairs, hits: Bool[np.ndarray, "m"], num_actions: int
           ) -> None:
    """Sets which predictions are hits: by rank, each takes the free action
    with the highest IoU, of equal ones the first."""
    several = np.bincount(pairs.prediction, minlength=len(hits)) > 1
    is_shared = np.zeros(num_actions, bool)
    is_shared[pairs.action[several[pairs.prediction]]] = True
    # An action whose predictions have no other action is taken by the first.
    is_alone = ~is_shared[pairs.action]
    action = pairs.action[is_alone]
    hits[pairs.prediction[is_alone][
        np.flatnonzero(np.diff(action, prepend=-1))]] = True
    left = np.flatnonzero(~is_alone)
    left = left[np.lexsort((pairs.action[left], pairs.prediction[left]))]
    free = set(np.flatnonzero(is_shared).tolist())
    current, best, best_iou = -1, -1, -1.0
    for prediction, number, iou in zip(
            *(part[left].tolist() for part in pairs), strict=True):
        if prediction != current:
            if best >= 0:
                hits[current] = True
                free.discard(best)
            current, best, best_iou = prediction, -1, -1.0
        if iou > best_iou and number in free:
            best, best_iou = number, iou
    if best >= 0:
        hits[current] = True


def _best_first(scores: np.ndarray, ties: str) -> np.ndarray:
    return (np.argsort(scores)[::-1] if ties == "numpy"
            else np.argsort(-scores, kind="stable"))


def recall_at(ground_truth: Truth, predictions: Predictions, *,
              class_names: Sequence[str], tiou_thresholds: Sequence[float],
              multiples: Sequence[int] = (1, 5), rules: Rules = OURS,
              pooled: bool = False
              ) -> Float[np.ndarray, "multiples thresholds"]:
    """Returns Recall@kx of Ego4D, as ActionFormer reports it beside mAP.

    This is the share of actions that are matched by one of the k n best
    predictions of a video and class with n actions; one prediction may match
    several of them. The result, for each k of `multiples`, is the mean over
    the classes that have actions. With `pooled` it is the share of all actions
    together, and a match is above the threshold, as Ego4D's own kit reads it.
    """
    actions = _ground_truth_rows(ground_truth, class_names, rules)
    predicted = _prediction_rows(ground_truth, predictions, class_names, OURS)
    thresholds = np.asarray(tiou_thresholds, np.float64)
    counts = np.zeros((len(class_names), len(multiples), len(thresholds)))
    for k in np.unique(actions.label):
        rows = np.flatnonzero(predicted.label == k)
        own = actions.label == k
        for video in np.unique(actions.video[own]):
            best = rows[predicted.video[rows] == video]
            best = best[_best_first(predicted.scores[best], rules.ties)]
            iou = segment_iou(predicted.segments[best, None],
                              actions.segments[own & (actions.video == video)])
            for index, multiple in enumerate(multiples):
                highest = iou[:multiple * iou.shape[1]].max(axis=0, initial=0)
                reached = (highest > thresholds[:, None] if pooled
                           else highest >= thresholds[:, None])
                counts[k, index] += reached.sum(axis=1)
    if pooled:
        return counts.sum(axis=0) / len(actions.label)
    actions_per_class = np.bincount(actions.label, minlength=len(class_names))
    present = actions_per_class > 0
    return (counts[present]
            / actions_per_class[present][:, None, None]).mean(axis=0)


def best_f1_thresholds(ground_truth: Truth, predictions: Predictions, *,
                       class_names: Sequence[str], tiou_threshold: float = 0.5
                       ) -> dict[str, dict[str, float]]:
    """Returns {class: {"score", "f1", "precision", "recall"}}.

    The figures are those of the predictions with at least this score. A class
    without actions or matches has the score 0.5 and an F1 of 0.
    """
    thresholds = {name: {"score": DEFAULT_THRESHOLD, "f1": 0.0,
                         "precision": 0.0, "recall": 0.0}
                  for name in class_names}
    for one in match_predictions(
            ground_truth, predictions, class_names=class_names,
            tiou_thresholds=(tiou_threshold,)):
        hits = np.cumsum(one.hits[0])
        if not hits.size or not hits[-1]:
            continue
        kept = np.arange(1, len(hits) + 1)
        actions = one.actions_per_video.sum()
        f1 = 2 * hits / (kept + actions)
        # Of equal scores all or none are kept.
        ends = np.append(one.scores[1:] < one.scores[:-1], True)
        best = int(np.argmax(np.where(ends, f1, -1.0)))
        thresholds[class_names[one.label]] = {
            "score": float(one.scores[best]), "f1": float(f1[best]),
            "precision": float(hits[best] / kept[best]),
            "recall": float(hits[best] / actions)}
    return thresholds


def format_map_table(report: MapReport) -> str:
    """Returns a table in percent, a line for each class, counts below."""
    width = max(map(len, ("class", *report.class_names)))

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
                          int(report.actions_per_class[k]),
                          int(report.predictions_per_class[k])))
    lines += [
        line("mean", [*report.map_per_threshold, report.average_map],
             report.num_actions, report.num_predictions),
        f"mAP in percent; {report.num_videos:,} videos, "
        f"{report.num_removed_actions:,} duplicate or too short annotations "
        f"removed, {report.num_dropped_predictions:,} predictions of other "
        "labels or videos left out"]
    if report.per_frame is not None:
        lines.append(str(report.per_frame))
    return "\n".join(lines)


def _ground_truth_rows(ground_truth: Truth, class_names: Sequence[str],
                       rules: Rules) -> _Rows:
    """Returns all actions, without duplicates unless the rules keep them."""
    class_index = {name: k for k, name in enumerate(class_names)}
    unknown = sorted({label for annotations in ground_truth.values()
                      for _, _, label in annotations} - set(class_index))
    if unknown:
        raise InputError("the annotations have labels that are not classes: "
                         f"{', '.join(unknown)}; add them to the file of "
                         "class names")
    rows: list[tuple[float, ...]] = []
    for video, annotations in enumerate(ground_truth.values()):
        kept: dict[str, list[tuple[float, float]]] = {}
        for start, end, label in annotations:
            same_label = kept.setdefault(label, [])
            if (rules.every_action and end >= start) or (
                    end - start >= SAME_ACTION_SECONDS and not any(
                        max(abs(start - other_start), abs(end - other_end))
                        <= SAME_ACTION_SECONDS
                        for other_start, other_end in same_label)):
                same_label.append((start, end))
                rows.append((video, class_index[label], start, end, 0.0))
    return _as_rows(rows, sum(map(len, ground_truth.values())))


def _prediction_rows(ground_truth: Truth, predictions: Predictions,
                     class_names: Sequence[str], rules: Rules) -> _Rows:
    """Returns predictions of known videos and classes."""
    class_index = {name: k for k, name in enumerate(class_names)}
    video_index = {video: index for index, video in enumerate(ground_truth)}
    parts = [_as_rows([], 0)]
    for video, detections in predictions.items():
        if rules.unknown_videos == "false":
            video_index.setdefault(video, len(video_index))
        if video in video_index:
            start, end, score = (column(detections, place)
                                 for place in (0, 1, 3))
            label = np.array([class_index.get(row[2], -1)
                              for row in detections], int)
            known = label >= 0
            parts.append(_Rows(
                np.full(known.sum(), video_index[video]), label[known],
                np.stack([start, end], 1)[known], score[known], 0))
    label = np.concatenate([part.label for part in parts])
    return _Rows(np.concatenate([part.video for part in parts]), label,
                 np.concatenate([part.segments for part in parts]),
                 np.concatenate([part.scores for part in parts]),
                 sum(map(len, predictions.values())) - len(label))


def _as_rows(rows: Sequence[tuple[float, ...]], total: int) -> _Rows:
    values = np.asarray(rows, np.float64).reshape(-1, 5)
    return _Rows(values[:, 0].astype(int), values[:, 1].astype(int),
                 values[:, 2:4], values[:, 4], total - len(values))
