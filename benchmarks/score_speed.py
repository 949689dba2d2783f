"""mAP of 422,000 predictions: ours against a loop over pandas rows, one run.

    python -m benchmarks.score_speed [--predictions=422000] [--no_loop]

A THUMOS-sized set is made up: 211 videos, 20 classes, 3,329 actions, as many
predictions in every video, some near an action. The loop is the algorithm of
ActivityNet's evaluator (one row after another, its video's actions looked up
in a grouped table), written for this comparison; both start from the same
lists in memory. They must agree on every class and threshold, or this stops.
Needs the extra `dev` (pandas).

Then sets of the size of the other data sets' validation, with as many
predictions, are scored (the best of three runs), also per moment. Each may
take twice as long as THUMOS.
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.common.figures import table
from losa_jax.detection.metrics import evaluate_map
from losa_jax.detection.per_frame import evaluate_frames
from losa_jax.detection.segments import Detection

VIDEOS, ACTIONS = 211, 3329
CLASSES = tuple(f"class_{number:02d}" for number in range(20))
# Videos, actions, classes, seconds of a video, thresholds.
OTHER_SETS = {
    "MultiTHUMOS": (213, 20204, 65, 213, 9),
    "EPIC verbs": (138, 9668, 78, 500, 5),
    "EPIC nouns": (138, 9668, 211, 500, 5),
    "EPIC actions": (138, 9668, 1352, 500, 5),
    "Charades": (1863, 16691, 157, 30, 9),
}
# Protocol, moments a second.
MOMENTS = {"MultiTHUMOS": ("multithumos", 7.5), "Charades": ("charades", 0)}
WANTED_TIMES = 2
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MOST_DIFFERENCE = 1e-9
WANTED_RATIO = 30


def make_set(num_predictions: int, seed: int = 0, *, videos: int = VIDEOS,
             actions: int = ACTIONS, classes: tuple[str, ...] = CLASSES,
             seconds: float = 200.0) -> tuple[dict, dict]:
    """Actions and detections of every video; all scores differ."""
    rng = np.random.default_rng(seed)
    names = [f"video_{number:04d}" for number in range(videos)]
    truth: dict = {name: [] for name in names}
    predictions: dict = {name: [] for name in names}
    for number in range(actions):
        start, length = rng.uniform(0, seconds), rng.uniform(0.5, 10)
        truth[names[number % videos]].append(
            (start, start + length, classes[number % len(classes)]))
    scores = rng.permutation(num_predictions) / num_predictions
    for number in range(num_predictions):
        name = names[number % videos]
        start, end, label = truth[name][rng.integers(len(truth[name]))]
        if rng.random() < 0.3:  # near it
            length = end - start
            start += rng.normal(0, 0.3) * length
            end = start + length * rng.uniform(0.6, 1.6)
        else:
            start = rng.uniform(0, seconds)
            end = start + rng.uniform(0.5, 10)
            label = classes[rng.integers(len(classes))]
        predictions[name].append(Detection(start, end, label, scores[number]))
    return truth, predictions


def best_of(function: Callable[[], object], runs: int = 3) -> float:
    """Returns the shortest time of the processor in seconds: it depends less
    on what else runs there."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def compare_sets(num_predictions: int) -> None:
    """Prints the time for each other set, relative to THUMOS."""
    truth, predictions = make_set(num_predictions)
    thumos = best_of(lambda: evaluate_map(
        truth, predictions, class_names=CLASSES, tiou_thresholds=THRESHOLDS))
    rows = [("THUMOS-14", f"{thumos:.2f}", "1.00")]
    for name, (videos, actions, count, seconds, number) in OTHER_SETS.items():
        classes = tuple(f"class_{one:04d}" for one in range(count))
        truth, predictions = make_set(
            num_predictions, videos=videos, actions=actions, classes=classes,
            seconds=seconds)
        thresholds = tuple(round(0.1 * one, 1) for one in range(1, number + 1))
        taken = {name: best_of(functools.partial(
            evaluate_map, truth, predictions, class_names=classes,
            tiou_thresholds=thresholds))}
        if name in MOMENTS:
            protocol, rate = MOMENTS[name]
            taken[f"{name}, per moment"] = best_of(functools.partial(
                evaluate_frames, truth, predictions, class_names=classes,
                durations=dict.fromkeys(truth, float(seconds)),
                protocol=protocol, num_moments=dict.fromkeys(
                    truth, int(seconds * rate)) if rate else None))
        rows += [(what, f"{one:.2f}", f"{one / thumos:.2f}")
                 for what, one in taken.items()]
    print(f"\n{num_predictions:,} predictions, best of three (wanted: "
          f"{WANTED_TIMES} times THUMOS or less)\n")
    print(table(["set", "seconds", "times THUMOS"], rows))


def loop_map(truth: dict, predictions: dict) -> np.ndarray:
    """[classes, thresholds] average precision, row by row."""
    actions = pd.DataFrame(
        [(name, *row) for name, rows in truth.items() for row in rows],
        columns=["video", "start", "end", "label"])
    rows = pd.DataFrame(
        [(name, *row[:4]) for name, rows in predictions.items()
         for row in rows],
        columns=["video", "start", "end", "label", "score"])
    result = []
    with tqdm(total=len(rows), desc="pandas loop", unit="row",
              leave=False) as bar:
        for label in CLASSES:
            result.append(_loop_class(
                actions[actions.label == label].reset_index(drop=True),
                rows[rows.label == label].sort_values(
                    "score", ascending=False).reset_index(drop=True), bar))
    return np.array(result)


def _loop_class(actions: pd.DataFrame, rows: pd.DataFrame, bar: tqdm
                ) -> list[float]:
    taken = np.full((len(THRESHOLDS), len(actions)), False)
    hits = np.zeros((len(THRESHOLDS), len(rows)))
    by_video = actions.groupby("video")
    for number, row in rows.iterrows():
        bar.update()
        try:
            near = by_video.get_group(row["video"])
        except KeyError:
            continue
        shared = (np.minimum(row["end"], near["end"].values)
                  - np.maximum(row["start"], near["start"].values)).clip(0)
        both = (row["end"] - row["start"]
                + near["end"].values - near["start"].values) - shared
        iou = shared / both
        for index, threshold in enumerate(THRESHOLDS):
            for best in iou.argsort()[::-1]:
                if iou[best] < threshold:
                    break
                if not taken[index, near.index[best]]:
                    taken[index, near.index[best]] = True
                    hits[index, number] = 1
                    break
    return [_area(row, len(actions)) for row in hits]


def _area(hits: np.ndarray, num_actions: int) -> float:
    """Under the interpolated precision-recall curve, point by point."""
    true = np.cumsum(hits)
    precision = [0.0, *(true / np.arange(1, len(hits) + 1)), 0.0]
    recall = [0.0, *(true / num_actions), 1.0]
    for point in range(len(precision) - 2, -1, -1):
        precision[point] = max(precision[point], precision[point + 1])
    return sum((recall[point] - recall[point - 1]) * precision[point]
               for point in range(1, len(recall)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=422_000)
    parser.add_argument("--no_loop", action="store_true",
                        help="only the other data sets")
    arguments = parser.parse_args()
    if not arguments.no_loop:
        compare_loop(arguments.predictions)
    compare_sets(arguments.predictions)


def compare_loop(num_predictions: int) -> None:
    """Compares with the loop; SystemExit if the two do not agree."""
    truth, predictions = make_set(num_predictions)
    started = time.perf_counter()
    report = evaluate_map(truth, predictions, class_names=CLASSES,
                          tiou_thresholds=THRESHOLDS)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    wanted = loop_map(truth, predictions)
    loop = time.perf_counter() - started
    difference = np.abs(report.average_precision - wanted).max()
    print(f"{report.num_predictions:,} predictions, {report.num_actions:,} "
          f"actions, {report.num_videos} videos")
    print(f"one pass each; 1/{loop / ours:.0f} of the loop's time (wanted: "
          f"1/{WANTED_RATIO} or less); largest difference of an average "
          f"precision {difference:.1e}\n")
    print(table(["what", "seconds", "average mAP"],
                [("ours", f"{ours:.2f}", f"{100 * report.average_map:.4f}"),
                 ("pandas loop", f"{loop:.2f}",
                  f"{100 * wanted.mean():.4f}")]))
    if difference > MOST_DIFFERENCE:
        raise SystemExit("the two do not agree")


if __name__ == "__main__":
    main()
