"""Predictions of any program are scored by either protocol."""

from pathlib import Path

import numpy as np
import pytest

import losa_jax
from losa_jax.data.annotations.load import load_annotations
from tests.jobs.conftest import config  # noqa: F401


def test_evaluate_scores_the_subset_of_the_predicted_videos(
        config, tmp_path):  # noqa: F811
    annotations = config.data.annotations
    with pytest.raises(losa_jax.InputError, match="name the subset"):
        losa_jax.evaluate({"stranger": []}, annotations)
    with pytest.raises(losa_jax.InputError, match="protocol='coco'"):
        losa_jax.evaluate({}, annotations, protocol="coco")
    with pytest.raises(losa_jax.InputError, match="of type list: give a file"):
        losa_jax.evaluate([], annotations)
    with pytest.raises(losa_jax.InputError, match="of type dict: give a file"):
        losa_jax.evaluate({}, {"database": {}})
    perfect = {}
    loaded = load_annotations(Path(annotations))
    for video in loaded.subset("testing"):
        perfect[video.video_id] = [
            losa_jax.Detection(*action[:3], 1.0) for action in video.actions]
    for protocol in ("activitynet", "thumos"):
        report = losa_jax.evaluate(perfect, annotations, protocol=protocol)
        assert report.average_map == pytest.approx(1.0)
    tuples = {video: [tuple(row) for row in rows]
              for video, rows in perfect.items()}
    for tiou in (0.5, [0.5], np.array([0.5], np.float32)):
        report = losa_jax.evaluate(tuples, annotations, tiou=tiou)
        assert report.tiou_thresholds == (0.5,)
        assert report.average_map == pytest.approx(1.0)
    with_prefix = {f"v_{video}": rows for video, rows in perfect.items()}
    report = losa_jax.evaluate(with_prefix, annotations)
    assert report.average_map == pytest.approx(1.0)


NAN = float("nan")


@pytest.mark.parametrize("row, fault", [
    (losa_jax.Detection(NAN, 1.0, "jump", 0.5), "is not .start, end. in sec"),
    (losa_jax.Detection(2.0, 1.0, "jump", 0.5), "ends before it starts"),
    (losa_jax.Detection(0.0, 1.0, "jump", NAN), "score nan is not a number"),
    (losa_jax.Detection(0.0, 1.0, "jump", np.float32(NAN)), "score nan"),
    (losa_jax.Detection(0.0, 1.0, 3, 0.5), "label 3 is not a class name"),
    ((0.0, 1.0), "is not an object")])
def test_detections_are_checked_as_a_file_is(row, fault):
    good = losa_jax.Detection(np.float32(0), 1, "jump", np.float64(1))
    with pytest.raises(losa_jax.InputError, match=(
            f"video 'b', entry 1: .*{fault}")):
        losa_jax.evaluate({"a": [good], "b": [good, row]}, "none.json")


@pytest.mark.parametrize("tiou", [(), 0, 1.5, NAN, (0.5, NAN), "half", None,
                                  [[0.5]]])
def test_thresholds_outside_0_to_1_are_refused(tiou):
    with pytest.raises(losa_jax.InputError, match="tiou=.*above 0 and up to"):
        losa_jax.evaluate({}, "none.json", tiou=tiou)
