"""Anybody's predictions are scored by the protocol that is asked for."""

from pathlib import Path

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
    perfect = {}
    loaded = load_annotations(Path(annotations))
    for video in loaded.subset("testing"):
        perfect[video.video_id] = [
            losa_jax.Detection(*action, 1.0) for action in video.actions]
    for protocol in ("activitynet", "thumos"):
        report = losa_jax.evaluate(perfect, annotations, protocol=protocol)
        assert report.average_map == pytest.approx(1.0)
