"""Parts of training that need no whole run."""

import types

import jax
import numpy as np
import pytest

from configs import thumos_features
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import AnnotatedVideo, Video
from losa_jax.data.windows.readers import FeatureReader
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.distributed import sharding
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.jobs.train import measure_statistics
from losa_jax.training.encoder import feature_encoder
from tests.data.reading import feature_settings


@pytest.mark.parametrize("lengths", [(16, 9, 16, 5), (16,)])
def test_feature_statistics_cover_every_training_video(lengths, tmp_path):
    """A set of one video in batches of two is covered as well."""
    rng = np.random.default_rng(0)
    features = [rng.normal((3, -1), (0.5, 4), (length, 2)).astype(np.float32)
                for length in lengths]
    store = FeatureFiles(feature_settings(tmp_path, 1, 1, 2))
    videos = []
    for number, part in enumerate(features):
        np.save(tmp_path / f"v{number}.npy", part)
        video = AnnotatedVideo(f"v{number}", "training", float(len(part)),
                               1.0, ())
        info = store.info_of(video)
        videos.append(Video(video.video_id, info, store.grid(info), ()))
    config = thumos_features.get_config()
    config.window.samples = config.window.tokens = 16
    config.window.short_crop_ratio = ()
    config.train.batch_windows = 2
    encoder = feature_encoder()
    measured = measure_statistics(
        config, types.SimpleNamespace(train=videos, class_names=()),
        types.SimpleNamespace(encode=encoder.encode, frozen=encoder.frozen,
                              trained={}, tubelet=1),
        sharding.make_mesh((1, 1, 1), jax.devices()[:1]),
        FeatureReader(store, config), BrokenVideos(), StopSignal())
    rows = np.concatenate(features)
    np.testing.assert_allclose(measured.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(measured.deviation, rows.std(0), rtol=1e-5)
