"""mAP and recall: by hand, against loops, and known figures."""

import csv
import hashlib
import json
import time

import numpy as np
import pytest

from losa_jax.data.predictions import read_predictions
from losa_jax.detection.metrics import (
    evaluate_map,
    format_map_table,
    recall_at,
)
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError

THUMOS_THRESHOLDS = (np.arange(1, 8) / 10).tolist()


def detections(*rows):
    return [Detection(*row) for row in rows]


def test_average_precision_by_hand():
    truth = {"v": [(0, 10, "a"), (20, 30, "a")], "w": [(0, 10, "a")]}
    predictions = {
        "v": detections((0, 10, "a", 0.9),     # matched
                        (0, 9, "a", 0.8),      # false: matched before
                        (21, 30, "a", 0.6)),   # matched
        "w": detections((40, 50, "a", 0.7)),   # false
    }
    report = evaluate_map(truth, predictions, class_names=["a"],
                          tiou_thresholds=[0.5, 0.95])
    # Precision 1, 1/2, 1/3, 2/4 at recall 1/3, 1/3, 1/3, 2/3.
    np.testing.assert_allclose(report.average_precision,
                               [[(1 + 0.5) / 3, 1 / 3]])
    np.testing.assert_allclose(report.map_per_threshold, [0.5, 1 / 3])
    assert report.average_map == pytest.approx(5 / 12)
    assert report.num_videos == 2
    assert report.num_actions == 3 and report.num_predictions == 4


def test_precision_is_interpolated():
    truth = {"v": [(0, 1, "a"), (2, 3, "a"), (4, 5, "a"), (6, 7, "a")]}
    predictions = {"v": detections(
        (10, 11, "a", 0.9), (0, 1, "a", 0.8), (2, 3, "a", 0.7),
        (4, 5, "a", 0.6))}
    report = evaluate_map(truth, predictions, class_names=["a"],
                          tiou_thresholds=[0.5])
    # Precision 1/2, 2/3, 3/4 rises: each recall step counts 3/4.
    np.testing.assert_allclose(report.average_precision, [[3 * 0.75 / 4]])


def test_best_action_still_free_is_matched():
    truth = {"v": [(0, 10, "a"), (1, 11, "a")]}
    predictions = {"v": detections(
        (1, 11, "a", 0.9),    # takes its own
        (1.2, 11, "a", 0.8),  # nearest is taken
        (0, 10, "a", 0.7))}   # nothing left at 0.5
    report = evaluate_map(truth, predictions, class_names=["a"],
                          tiou_thresholds=[0.5, 0.9])
    # At 0.9 the second has no action but its taken one: false; the third
    # matches the first action.
    np.testing.assert_allclose(report.average_precision,
                               [[1, (1 + 2 / 3) / 2]])


def test_threshold_is_inclusive():
    report = evaluate_map({"v": [(0, 2, "a")]},
                          {"v": detections((0, 1, "a", 1))},
                          class_names=["a"], tiou_thresholds=[0.5, 0.51])
    np.testing.assert_array_equal(report.average_precision, [[1, 0]])


def test_equal_scores_rank_by_input_order():
    truth = {"first": [(0, 1, "a")], "second": [(0, 1, "a")]}
    hit, miss = Detection(0, 1, "a", 0.5), Detection(5, 6, "a", 0.5)
    for predictions, expected in [
            ({"first": [hit, miss]}, 0.5),
            ({"first": [miss, hit]}, 0.25),
            # The order of the predictions, not that of the ground truth.
            ({"second": [miss], "first": [hit]}, 0.25),
            ({"second": [hit], "first": [miss]}, 0.5)]:
        report = evaluate_map(truth, predictions, class_names=["a"],
                              tiou_thresholds=[0.5])
        np.testing.assert_allclose(report.average_map, expected)


def test_mean_runs_over_classes_with_actions():
    report = evaluate_map(
        {"v": [(0, 1, "a"), (2, 3, "c")]},
        {"v": detections((0, 1, "a", 1), (0, 1, "b", 1))},
        class_names=["a", "b", "c"], tiou_thresholds=[0.5])
    np.testing.assert_array_equal(report.average_precision,
                                  [[1], [np.nan], [0]])
    assert report.average_map == 0.5
    assert report.actions_per_class.tolist() == [1, 0, 1]
    assert report.predictions_per_class.tolist() == [1, 1, 0]


def test_duplicates_and_empty_actions_are_removed():
    truth = {"v": [(0, 1, "a"), (0.0009, 1.0009, "a"), (0, 1, "b"),
                   (0.002, 1, "a"), (3, 3.0005, "a")],
             "w": [(0, 1, "a")]}
    report = evaluate_map(truth, {}, class_names=["a", "b"],
                          tiou_thresholds=[0.5])
    assert report.actions_per_class.tolist() == [3, 1]
    assert report.num_removed_actions == 2
    assert report.average_map == 0


def test_dropped_predictions_are_counted():
    predictions = {
        "v": detections((0, 1, "a", 0.5), (0, 1, "z", 0.9)),
        "other": detections((5, 6, "a", 0.9), (5, 6, "z", 0.9))}
    truth = {"v": [(0, 1, "a")]}
    report = evaluate_map(truth, predictions, class_names=["a"],
                          tiou_thresholds=[0.5])
    assert report.num_dropped_predictions == 3
    assert report.num_predictions == 1 and report.average_map == 1
    # A video listed without actions is background: predictions are false.
    report = evaluate_map(truth | {"other": []}, predictions, class_names=["a"],
                          tiou_thresholds=[0.5])
    assert report.num_dropped_predictions == 2
    assert report.num_predictions == 2 and report.average_map == 0.5
    assert report.num_videos == 2


def test_bad_ground_truth():
    with pytest.raises(InputError, match="not classes: x, y"):
        evaluate_map({"v": [(0, 1, "y"), (0, 1, "a"), (0, 1, "x")]}, {},
                     class_names=["a"], tiou_thresholds=[0.5])
    for truth in ({}, {"v": []}, {"v": [(1, 1, "a")]}):
        with pytest.raises(InputError, match="no actions"):
            evaluate_map(truth, {}, class_names=["a"],
                         tiou_thresholds=[0.5])


def test_recall_by_hand():
    truth = {"v": [(0, 10, "a"), (5, 15, "a"), (40, 50, "b")],
             "w": [(0, 10, "a")]}
    predictions = {
        "v": detections((2.5, 12.5, "a", 0.9),   # 0.6 with both actions
                        (80, 90, "a", 0.8), (0, 10, "a", 0.7),
                        (40, 50, "b", 0.1)),
        "w": detections((80, 90, "a", 0.9), (0, 10, "a", 0.8))}
    recall = recall_at(truth, predictions, class_names=["a", "b", "c"],
                       tiou_thresholds=[0.5, 0.6, 0.7], multiples=(1, 2))
    # Class a: v keeps 2 (then 4) predictions, w keeps 1 (then 2); 0.6 is
    # reached exactly.
    np.testing.assert_allclose(
        recall, [[(2 / 3 + 1) / 2, (2 / 3 + 1) / 2, (0 + 1) / 2],
                 [(3 / 3 + 1) / 2, (3 / 3 + 1) / 2, (2 / 3 + 1) / 2]])


def iou_of(a, b):
    intersection = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return intersection / (a[1] - a[0] + b[1] - b[0] - intersection)


def average_precision_by_loops(truth, predictions, label, threshold):
    """The protocol, prediction by prediction."""
    taken = {video: [False] * len(actions)
             for video, actions in truth.items()}
    ranked = sorted(
        [(video, row) for video, rows in predictions.items() for row in rows
         if row.label == label and video in truth],
        key=lambda pair: -pair[1].score)  # sorted() is stable
    hits = []
    for video, row in ranked:
        free = [(iou_of(row, action), -index)
                for index, action in enumerate(truth[video])
                if action[2] == label and not taken[video][index]]
        best, index = max(free, default=(0, 0))
        hits.append(best >= threshold)
        if hits[-1]:
            taken[video][-index] = True
    total = sum(action[2] == label
                for actions in truth.values() for action in actions)
    area, num_true = 0.0, 0
    precisions = []
    for rank, hit in enumerate(hits):
        num_true += hit
        precisions.append(num_true / (rank + 1))
    for rank, hit in enumerate(hits):
        if hit:
            area += max(precisions[rank:]) / total
    return area


def recall_by_loops(truth, predictions, label, threshold, multiple):
    num_matched = total = 0
    for video, actions in truth.items():
        actions = [action for action in actions if action[2] == label]
        rows = sorted((row for row in predictions.get(video, [])
                       if row.label == label), key=lambda row: -row.score)
        rows = rows[:multiple * len(actions)]
        total += len(actions)
        num_matched += sum(any(iou_of(row, action) >= threshold
                             for row in rows) for action in actions)
    return num_matched / total


def random_case(seed, num_videos=8, ties=True):
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c"]
    truth, predictions = {}, {}
    for video in rng.permutation(num_videos):
        start = rng.uniform(0, 60, rng.integers(0, 9))
        truth[f"v{video}"] = [
            (s, s + rng.exponential(6) + 0.1, names[rng.integers(3)])
            for s in start]
    for video in rng.permutation(num_videos + 1):
        start = rng.uniform(0, 60, rng.integers(0, 60))
        predictions[f"v{video}"] = [
            Detection(s, s + rng.exponential(6), names[rng.integers(3)],
                      rng.integers(10) / 10 if ties else rng.random())
            for s in start]
    return truth, predictions, names


@pytest.mark.parametrize("seed", range(4))
def test_against_loops(seed):
    truth, predictions, names = random_case(seed, ties=seed % 2 == 0)
    thresholds = [0.1, 0.3, 0.5]
    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=thresholds)
    expected = [[average_precision_by_loops(truth, predictions, name, threshold)
                 for threshold in thresholds] for name in names]
    np.testing.assert_allclose(report.average_precision, expected,
                               rtol=1e-12)
    assert report.map_per_threshold[0] > report.map_per_threshold[2] > 0
    recall = recall_at(truth, predictions, class_names=names,
                       tiou_thresholds=thresholds, multiples=(1, 3))
    np.testing.assert_allclose(recall, [
        [np.mean([recall_by_loops(truth, predictions, name, threshold, multiple)
                  for name in names]) for threshold in thresholds]
        for multiple in (1, 3)], rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_pooled_recall_is_that_of_all_actions_above_the_threshold(seed):
    """As the kit of Ego4D: instances of all classes together."""
    truth, predictions, names = random_case(seed)
    truth["w"], predictions["w"] = [(0, 10, "a")], detections((0, 6, "a", 0.9))
    thresholds, multiples = (0.3, 0.5, 0.6), (1, 2, 5)
    want = np.zeros((3, 3))
    for i, multiple in enumerate(multiples):
        for j, threshold in enumerate(thresholds):
            matched = 0
            for video, actions in truth.items():
                for action in actions:
                    number = sum(one[2] == action[2] for one in actions)
                    rows = sorted((row for row in predictions.get(video, [])
                                   if row.label == action[2]),
                                  key=lambda row: -row.score)
                    matched += any(iou_of(row, action) > threshold
                                   for row in rows[:multiple * number])
            want[i, j] = matched / sum(map(len, truth.values()))
    np.testing.assert_allclose(recall_at(
        truth, predictions, class_names=names, tiou_thresholds=thresholds,
        multiples=multiples, pooled=True), want, rtol=1e-12)


def test_pairs_are_compared_in_blocks(monkeypatch):
    truth, predictions, names = random_case(1)
    whole = evaluate_map(truth, predictions, class_names=names,
                         tiou_thresholds=(0.1, 0.5))
    monkeypatch.setattr("losa_jax.detection.metrics._MOST_PAIRS", 7)
    blocks = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=(0.1, 0.5))
    np.testing.assert_array_equal(blocks.average_precision,
                                  whole.average_precision)


def test_table_for_people():
    report = evaluate_map(
        {"v": [(0, 2, "LongJump"), (5, 9, "LongJump"), (0, 2, "a")]},
        {"v": detections((0, 2, "LongJump", 1), (0, 2, "zzz", 1),
                         (0, 1, "a", 1))},
        class_names=["LongJump", "a", "b"], tiou_thresholds=[0.5, 0.75])
    assert format_map_table(report).splitlines() == [
        "tIoU         0.5    0.75 average   actions  predictions",
        "LongJump   50.00   50.00   50.00         2            1",
        "a         100.00    0.00   50.00         1            1",
        "b              -       -       -         0            0",
        "mean       75.00   25.00   50.00         3            2",
        "mAP in percent; 1 videos, 0 duplicate or too short annotations "
        "removed, 1 predictions of other labels or videos left out"]


def test_many_predictions_take_seconds():
    rng = np.random.default_rng(0)
    names = [f"c{k}" for k in range(20)]
    truth, predictions = {}, {}
    for video in range(211):
        label = names[rng.integers(20)]
        start = rng.uniform(0, 300, (16, 1))
        truth[str(video)] = [(*row, label) for row in np.concatenate(
            [start, start + rng.exponential(5, (16, 1)) + 0.1], 1).tolist()]
        start = rng.uniform(0, 300, 2000)
        rows = np.stack([start, start + rng.exponential(5, 2000),
                         rng.random(2000)], axis=1).tolist()
        other = names[rng.integers(20)]
        predictions[str(video)] = [
            Detection(row[0], row[1], (label, other)[i % 2], row[2])
            for i, row in enumerate(rows)]
    begin = time.perf_counter()
    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=THUMOS_THRESHOLDS)
    assert report.num_predictions == 422_000
    assert time.perf_counter() - begin < 10  # about 1.2 on 2 quiet cores


# Known figures. Public kits rank by `scores.argsort()[::-1]`, which orders
# equal scores at will, and hold predictions in videos without ground truth
# to be false. Many scores of these files are equal, so the tests below
# first make the scores distinct in exactly that order, and list such videos
# without actions. numpy's order is that of the processor: the quoted average
# 33.415 is AVX-512's, AVX2 gives 33.472 and neither 33.141.


ORDER_OF_THE_FIGURES = ("58467eedce91c2b9", "c0dade0647638d08")


def with_distinct_scores(predictions, group_of):
    """Replaces scores by ranks within a group, ties broken by numpy.

    Skips the test where numpy's order is not that of the known figures.
    """
    groups = {}
    for video, rows in predictions.items():
        for index, row in enumerate(rows):
            groups.setdefault(group_of(video, row), []).append(
                (video, index))
    distinct = {video: list(rows) for video, rows in predictions.items()}
    orders = []
    for places in groups.values():
        scores = np.array([predictions[video][index].score
                           for video, index in places])
        orders.append(scores.argsort()[::-1])
        for rank, place in enumerate(orders[-1]):
            video, index = places[place]
            distinct[video][index] = distinct[video][index]._replace(
                score=-rank)
    order = hashlib.sha256(
        np.concatenate(orders).astype("<i8").tobytes()).hexdigest()
    if order[:16] not in ORDER_OF_THE_FIGURES:
        pytest.skip("numpy on this processor breaks ties differently from "
                    "the one that gave the known figures (AVX-512)")
    return distinct


def thumos_test_set(shared_dir):
    database = json.loads(
        (shared_dir / "data/thumos14/thumos14.json").read_text())["database"]
    truth = {video: [(*action["segment"], action["label"])
                     for action in entry["annotations"]]
             for video, entry in database.items()
             if entry["subset"] == "Test"}
    names = sorted({action[2] for actions in truth.values()
                    for action in actions})
    predictions = read_predictions(
        shared_dir / "data/detections/turn_flow_scnn_thumos14.json")
    return truth, predictions, names


@pytest.mark.shared
def test_thumos_detections_as_public_kits_score_them(shared_dir):
    truth, predictions, names = thumos_test_set(shared_dir)
    predictions = with_distinct_scores(predictions, lambda _, row: row.label)
    report = evaluate_map(truth | {"video_test_0001292": []}, predictions,
                          class_names=names,
                          tiou_thresholds=THUMOS_THRESHOLDS)
    np.testing.assert_allclose(
        100 * report.map_per_threshold,
        [54.598, 51.151, 45.130, 36.200, 26.034, 14.475, 6.315], atol=6e-4)
    assert 100 * report.average_map == pytest.approx(33.415, abs=6e-4)
    assert report.num_actions == 3358 and report.num_predictions == 16565


@pytest.mark.shared
def test_thumos_recall_as_public_kits_score_it(shared_dir):
    truth, predictions, names = thumos_test_set(shared_dir)
    predictions = with_distinct_scores(predictions,
                                 lambda video, row: (video, row.label))
    recall = 100 * recall_at(truth, predictions, class_names=names,
                             tiou_thresholds=[0.5])
    np.testing.assert_allclose(recall[:, 0], [41.91, 58.26], atol=6e-3)


@pytest.mark.shared
def test_thumos_detections_as_we_score_them(shared_dir):
    # Stable order, the unknown video left out; the same on every machine.
    # Figures of a separate evaluator in plain loops.
    truth, predictions, names = thumos_test_set(shared_dir)
    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=THUMOS_THRESHOLDS)
    np.testing.assert_allclose(
        100 * report.map_per_threshold,
        [54.241, 50.874, 44.881, 36.041, 25.940, 14.478, 6.179], atol=6e-4)
    assert 100 * report.average_map == pytest.approx(33.233, abs=6e-4)
    assert (report.num_videos, report.num_actions, report.num_predictions,
            report.num_dropped_predictions, report.num_removed_actions
            ) == (212, 3358, 16549, 16, 0)


@pytest.mark.shared
def test_activitynet_sample(shared_dir):
    folder = shared_dir / "data/activitynet"
    with open(folder / "video_info_new.csv", newline="") as file:
        validation = {row["video"] for row in csv.DictReader(file)
                      if row["subset"] == "validation"}
    database = json.loads((folder / "anet_anno_action.json").read_text())
    truth = {video.removeprefix("v_"): [
        (*action["segment"], action["label"])
        for action in entry["annotations"]]
        for video, entry in database.items() if video in validation}
    names = sorted({action[2] for actions in truth.values()
                    for action in actions})
    predictions = read_predictions(folder / "sample_detection_prediction.json")
    # Every score is 1; reversed, the last entry ranks first.
    predictions = {video: rows[::-1]
                   for video, rows in reversed(predictions.items())}
    thresholds = np.linspace(0.5, 0.95, 10).tolist()

    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=thresholds)
    assert 100 * report.average_map == pytest.approx(99.8881, abs=1e-4)
    assert report.num_videos == 4728 and report.num_removed_actions == 22
    assert report.num_predictions == 7293
    assert report.num_dropped_predictions == 361

    everything = dict.fromkeys(predictions, ()) | truth
    report = evaluate_map(everything, predictions, class_names=names,
                          tiou_thresholds=thresholds)
    assert 100 * report.average_map == pytest.approx(97.0738, abs=1e-4)
    assert report.num_videos == 4926
