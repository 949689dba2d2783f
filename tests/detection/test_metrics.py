"""mAP against a plain loop, by hand, and against published figures."""

import json

import numpy as np
import pytest

from losa_jax.detection.metrics import (
    evaluate_map,
    format_map_table,
    recall_at,
)
from losa_jax.detection.predictions import Detection, read_predictions

TIOUS = (0.3, 0.5, 0.7)


def _iou(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inter / (a[1] - a[0] + b[1] - b[0] - inter)


def _loop_ap(truth, predictions, label, tiou):
    """VOC-2011 average precision with greedy matching, one prediction at a
    time."""
    actions = {video: [a for a in items if a[2] == label]
               for video, items in truth.items()}
    total = sum(map(len, actions.values()))
    rows = [(d.score, video, d) for video, items in predictions.items()
            for d in items if d.label == label and video in truth]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][0])
    used, hits = set(), []
    for i in order:
        _, video, d = rows[i]
        ranked = sorted(
            ((-_iou(d[:2], a[:2]), j) for j, a in enumerate(actions[video])))
        hit = False
        for negative, j in ranked:
            if -negative < tiou:
                break
            if (video, j) not in used:
                used.add((video, j))
                hit = True
                break
        hits.append(hit)
    precision, recall, found = [], [], 0
    for n, hit in enumerate(hits, 1):
        found += hit
        precision.append(found / n)
        recall.append(found / total)
    area, last = 0.0, 0.0
    for n in range(len(hits)):
        if recall[n] > last:
            area += (recall[n] - last) * max(precision[n:])
            last = recall[n]
    return area


def _random_case(seed):
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c"]
    truth, predictions = {}, {}
    for v in range(6):
        starts = rng.uniform(0, 50, rng.integers(0, 6))
        truth[f"v{v}"] = [(s, s + rng.uniform(1, 10), str(rng.choice(names)))
                          for s in starts]
        predictions[f"v{v}"] = [
            Detection(a[0] + rng.normal(), a[1] + rng.normal() + 1,
                      str(rng.choice([a[2], a[2], "b"])),
                      float(rng.random()))
            for a in truth[f"v{v}"] for _ in range(3)] + [
            Detection(s, s + 4, str(rng.choice(names)), float(rng.random()))
            for s in rng.uniform(0, 50, 5)]
    return names, truth, predictions


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_the_loop(seed):
    names, truth, predictions = _random_case(seed)
    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=TIOUS)
    present = [k for k, name in enumerate(names)
               if any(a[2] == name for items in truth.values()
                      for a in items)]
    for k in present:
        for i, tiou in enumerate(TIOUS):
            want = _loop_ap(truth, predictions, names[k], tiou)
            assert report.average_precision[k, i] == pytest.approx(want)
    np.testing.assert_allclose(report.map_per_threshold,
                               report.average_precision[present].mean(0))


def test_by_hand():
    truth = {"v": [(0.0, 10.0, "a"), (20.0, 30.0, "a")]}
    predictions = {"v": [
        Detection(0.0, 10.0, "a", 0.9),    # found
        Detection(0.0, 9.0, "a", 0.8),     # a second of the same: wrong
        Detection(21.0, 30.0, "a", 0.7)],  # found
        "stranger": [Detection(0, 1, "a", 1.0)]}
    report = evaluate_map(truth, predictions, class_names=["a", "b"],
                          tiou_thresholds=(0.5, 0.95))
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    np.testing.assert_allclose(report.average_precision[0],
                               [0.5 * 1 + 0.5 * 2 / 3, 0.5])
    assert np.isnan(report.average_precision[1]).all()
    assert report.num_dropped_predictions == 1
    assert report.num_actions == 2 and report.num_videos == 1
    table = format_map_table(report)
    assert "83.33" in table and "1 predictions of other labels" in table


def test_threshold_is_inclusive_and_duplicates_count_once():
    truth = {"v": [(0.0, 10.0, "a"), (0.0002, 10.0005, "a"),
                   (5.0, 5.0005, "a")]}
    predictions = {"v": [Detection(0.0, 5.0, "a", 0.5)]}
    report = evaluate_map(truth, predictions, class_names=["a"],
                          tiou_thresholds=(0.5,))
    assert report.num_actions == 1 and report.num_removed_actions == 2
    assert report.average_map == 1.0


@pytest.mark.shared
def test_known_figures_of_thumos_detections(shared_dir):
    data = shared_dir / "data"
    database = json.loads(
        (data / "thumos14/thumos14.json").read_text())["database"]
    truth = {video: [(*a["segment"], a["label"])
                     for a in entry["annotations"]]
             for video, entry in database.items()
             if entry["subset"].lower() == "test"}
    names = sorted({a[2] for items in truth.values() for a in items})
    predictions = read_predictions(
        data / "detections/turn_flow_scnn_thumos14.json")
    tious = np.arange(1, 8) / 10
    report = evaluate_map(truth, predictions, class_names=names,
                          tiou_thresholds=tious)
    np.testing.assert_allclose(
        100 * report.map_per_threshold,
        [54.598, 51.151, 45.130, 36.200, 26.034, 14.475, 6.315], atol=1e-3)
    assert 100 * report.average_map == pytest.approx(33.415, abs=1e-3)
    recall = recall_at(truth, predictions, class_names=names,
                       tiou_thresholds=[0.5], multiples=[1, 5])
    np.testing.assert_allclose(100 * recall.ravel(), [41.91, 58.26],
                               atol=5e-3)
