"""Evaluation, with a model that detects marked features."""

import types

import jax
import numpy as np
import pytest

from configs import thumos_features
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import Action, AnnotatedVideo, Video
from losa_jax.data.windows.readers import FeatureReader
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.detection.segments import Segments
from losa_jax.distributed import sharding
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.jobs.evaluate import Evaluator
from tests.data.reading import feature_settings


def _detect_marked_tokens(parameters, statistics, frozen, batch):
    """Gives one candidate a window, from its first marked token to its last."""
    marked = np.asarray(batch["last"])[:, :, 0, 1] > 0
    first = marked.argmax(1)
    last = marked.shape[1] - 1 - marked[:, ::-1].argmax(1)
    # A token's coordinate is its middle.
    segments = np.stack([first - 0.5, last + 0.5], 1).astype(np.float32)
    valid = marked.any(1, keepdims=True)
    return Segments(segments[:, None], 0.9 * valid.astype(np.float32),
                    np.zeros(valid.shape, np.int32), valid)


@pytest.mark.parametrize("batch_windows", [1, 2, 8])
def test_every_window_of_every_video_counts(batch_windows, tmp_path):
    """The padding of the last batch changes nothing."""
    store = FeatureFiles(feature_settings(tmp_path, 1, 1, 2))
    videos = []
    for number, (length, start, end) in enumerate(
            [(20, 17, 19), (5, 1, 3), (11, 4, 7), (8, 0, 8)]):
        features = np.ones((length, 2), np.float32)
        features[:, 1] = 0
        features[start:end, 1] = 1
        np.save(tmp_path / f"v{number}.npy", features)
        action = Action(float(start), float(end), "jump")
        video = AnnotatedVideo(f"v{number}", "testing", float(length), 1.0,
                               (action,))
        info = store.info_of(video)
        videos.append(Video(video.video_id, info, store.grid(info),
                                  (action,)))
    config = thumos_features.get_config()
    config.window.samples = config.window.tokens = 8
    config.window.overlap, config.window.test_whole = 0.0, False
    config.evaluate.batch_windows = batch_windows
    config.evaluate.tiou_thresholds = (0.99,)
    data = types.SimpleNamespace(test=videos, class_names=("jump",),
                                 label_names=("jump",))
    model = types.SimpleNamespace(encode=None, detector=None, frozen={})
    evaluator = Evaluator(
        config, data, model, sharding.make_mesh((1, 1, 1), jax.devices()[:1]),
        FeatureReader(store, config), BrokenVideos())
    evaluator._predict = _detect_marked_tokens
    report, predictions = evaluator.run({}, None, StopSignal())
    # Windows: 3 + 1 + 2 + 1.
    assert [len(rows) for rows in predictions.values()] == [1, 1, 2, 1]
    assert (report.num_videos, report.average_map) == (4, 1.0)
