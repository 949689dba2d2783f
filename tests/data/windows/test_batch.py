"""Batches hold what the documentation says."""

import re

import numpy as np
import pytest

from configs import common
from losa_jax.data.records import Action, Video
from losa_jax.data.synthetic import data_set
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import batch, sampling
from losa_jax.data.windows.examples import TrainWindows, join_pieces
from losa_jax.data.windows.readers import FrameReader


def _documented():
    """{name: (dtype or "", symbols of its axes)}, in the page's order."""
    lines = re.findall(r"(?m)^    (\w+) +(?:(\w+) )?\[([^\]]*)\]",
                       batch.__doc__)
    return {name: (dtype, [axis.strip() for axis in axes.split(",")])
            for name, dtype, axes in reversed(lines)}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A training batch of three windows of 16 samples."""
    folder = data_set.render_trimmed_set(
        tmp_path_factory.mktemp("set") / "set", num_training=2,
        num_testing=0, size=32)
    config = common.get_config()
    config.window.samples = config.window.tokens = 16
    config.window.clip_samples = 8
    config.augment.size = 32
    videos = []
    for path in sorted((folder / "videos").glob("*.mp4")):
        info = probe_video(path)
        videos.append(Video(
            path.stem, info, sampling.video_grid(info, config.window),
            (Action(0.2, 0.9, "move"), Action(1.0, 1.5, "move")),
            hard_negatives=(Action(0.0, 0.1, "move"),)))
    windows = TrainWindows(videos, ["move"], config,
                           reader=FrameReader(config))
    return join_pieces([
        windows.example((number, np.random.default_rng(number)), piece)
        for number in (0, 1, 0) for piece in (range(6), range(6, 16))], 2)


def test_a_training_batch_of_frames_holds_what_the_page_says(examples):
    page = _documented()
    assert set(examples) == set(page) - {"last", "taps"}
    sizes = {"b": 3, "f": 16, "S": 32, "a": 2, "3": 3, "2": 2,
             "tokens": 16, "classes": 1}
    for name, array in examples.items():
        dtype, axes = page[name]
        assert np.issubdtype(array.dtype, dtype), name
        assert array.shape == tuple(sizes[axis] for axis in axes), name


def test_the_host_keeps_what_the_page_says(examples):
    last_three = list(_documented())[:3]
    assert set(last_three) == {*batch.HOST_KEYS, "fault"}
