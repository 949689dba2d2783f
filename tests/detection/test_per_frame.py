"""mAP of moments against a loop over rows, and counts of public files."""

import numpy as np
import pytest

from losa_jax.data.annotations.load import load_annotations
from losa_jax.detection.per_frame import evaluate_frames
from losa_jax.detection.segments import Detection

CLASSES = ("a", "b", "c")


def _made_up(seed, num_videos=6):
    rng = np.random.default_rng(seed)
    truth, predictions, durations = {}, {}, {}
    for number in range(num_videos):
        name = f"v{number}"
        durations[name] = float(rng.integers(5, 30))

        def spans(count, seconds=durations[name]):
            for _ in range(count):
                # Halves of a moment's distance: ends coincide with moments.
                start = rng.integers(0, 50) * seconds / 50
                yield start, start + rng.integers(0, 20) * seconds / 50

        truth[name] = [(*span, CLASSES[rng.integers(2)])
                       for span in spans(rng.integers(0, 5))]
        # Few different scores, so that there are ties.
        predictions[name] = [
            Detection(*span, CLASSES[rng.integers(3)],
                      float(rng.integers(1, 6)) / 5)
            for span in spans(rng.integers(0, 9))]
    del predictions["v1"]  # Charades: its rows are at the end
    return truth, predictions, durations


def _loop(truth, predictions, durations, counts, inclusive):
    """Goes through the rows of the classes as the two codes do."""

    def holds(row, moment):
        return (row[0] <= moment <= row[1] if inclusive
                else row[0] < moment < row[1])

    precisions, positives = [], []
    for label in CLASSES:
        rows = []
        for video in truth:
            for j in range(counts[video]):
                moment = j / counts[video] * durations[video]
                scores = [row.score for row in predictions.get(video, [])
                          if row.label == label and holds(row, moment)]
                # Only Charades' kit knows of videos without rows.
                missing = inclusive and video not in predictions
                rows.append((max(scores, default=-1.0 if missing else 0.0), any(
                    row[2] == label and holds(row, moment)
                    for row in truth[video])))
        # Sorted stably, descending.
        order = sorted(range(len(rows)), key=lambda i: -rows[i][0])
        true = false = 0
        total = sum(is_action for _, is_action in rows)
        area = 0.0
        for place in order:
            if rows[place][1]:
                true += 1
                area += true / (true + false)
            else:
                false += 1
        precisions.append(area / total if total else
                          float("nan") if inclusive else 0.0)
        positives.append(total)
    return np.array(precisions), np.array(positives)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", ["charades", "multithumos"])
def test_the_loops_precision(protocol, seed):
    truth, predictions, durations = _made_up(seed)
    counts = {video: 25 if protocol == "charades" else 10 + 3 * place
              for place, video in enumerate(truth)}
    report = evaluate_frames(
        truth, predictions, class_names=CLASSES, durations=durations,
        protocol=protocol,
        num_moments=None if protocol == "charades" else counts)
    want, positives = _loop(truth, predictions, durations, counts,
                            protocol == "charades")
    np.testing.assert_allclose(report.average_precision, want, atol=1e-12)
    np.testing.assert_array_equal(report.positives_per_class, positives)
    assert report.frame_map == pytest.approx(np.nanmean(want))
    weighted = np.nansum(want * positives) / positives.sum()
    assert report.weighted_map == pytest.approx(weighted)
    assert report.num_moments == sum(counts.values())


def test_ends_count_in_any_order_and_only_for_charades():
    """Moments are 0, 1 .. 24; the action from 3 to 5 is written reversed."""
    truth = {"v": [(5.0, 3.0, "a")]}
    for protocol, inside in (("charades", 3), ("multithumos", 1)):
        report = evaluate_frames(
            truth, {}, class_names=("a",), durations={"v": 25.0},
            protocol=protocol, num_moments={"v": 25})
        assert report.positives_per_class.tolist() == [inside]


def test_nothing_to_score_is_no_division():
    report = evaluate_frames({"v": []}, {}, class_names=("a",),
                             durations={"v": 3.0}, protocol="charades")
    assert report.frame_map == 0.0 and report.num_moments == 25
    assert report.as_json()["average_precision"] == [None]


# The reference counts, of these very files, of pairs of moment and class.
@pytest.mark.shared
@pytest.mark.parametrize("name, protocol, positives, moments", [
    ("charades", "charades", 175341, 46575),
    ("charades", "multithumos", 170380, 46575),
    ("multithumos", "charades", 8289, 5325),
    ("multithumos", "multithumos", 8286, 5325)])
def test_moments_of_the_public_files(shared_dir, name, protocol, positives,
                                     moments):
    folder = shared_dir / "data/more_datasets" / name
    annotations = load_annotations(
        f"{folder / name}.json,{folder / 'classes.txt'}")
    videos = annotations.subset("testing")
    truth = {video.video_id: [action[:3] for action in video.actions]
             for video in videos}
    perfect = {video: [Detection(*row, 1.0) for row in rows]
               for video, rows in truth.items()}
    report = evaluate_frames(
        truth, perfect, class_names=annotations.class_names, durations={
            video.video_id: video.duration_seconds for video in videos},
        protocol=protocol, num_moments=dict.fromkeys(truth, 25))
    assert report.positives_per_class.sum() == positives
    assert report.num_moments == moments
    assert (report.positives_per_class > 0).all()
    # Perfect predictions give 100.
    assert report.frame_map == report.weighted_map == 1.0
