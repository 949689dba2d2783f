"""Files of features: times, shapes, and every error."""

import json

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.features.files import (
    FeatureFiles,
    read_record,
    record_path,
    resize_linearly,
    write_record,
)
from losa_jax.data.records import Action, AnnotatedVideo, Video, Window
from losa_jax.errors import InputError
from tests.data.reading import feature_settings


def _video(name="v1", duration=10.0, fps=30.0):
    return AnnotatedVideo(name, "test", duration, fps, (
        Action(1.0, 2.0, "run"),))


def _settings(folder, **changes):
    settings = feature_settings(folder, 4, 16, 3)
    settings.update(changes)
    return settings


@pytest.fixture
def folder(tmp_path):
    # 300 frames: (300 - 16) / 4 + 1 = 72 clips.
    features = np.arange(72 * 3, dtype=np.float32).reshape(72, 3)
    np.save(tmp_path / "v1.npy", features)
    return tmp_path


def test_times_are_those_of_actionformer(folder):
    store = FeatureFiles(_settings(folder))
    grid = store.grid(store.info_of(_video()))
    assert grid.num_samples == 72
    # seconds = (token * stride + 0.5 * clip) / fps, and back.
    tokens = np.array([0.0, 10.0, 71.0])
    seconds = timeline.seconds_from_tokens(tokens, grid, 0, 1.0)
    np.testing.assert_allclose(seconds, (tokens * 4 + 8) / 30)
    np.testing.assert_allclose(
        timeline.tokens_from_seconds(seconds, grid, 0, 1.0), tokens)


def test_upsampled_times_are_those_of_actionformer(folder):
    store = FeatureFiles(_settings(folder), resized_to=192)
    info = store.info_of(_video())
    grid = store.grid(info)
    stride = (71 * 4 + 16) / 192  # and half of it as offset
    seconds = timeline.seconds_from_tokens(np.array([0.0, 100.0]), grid, 0,
                                           1.0)
    np.testing.assert_allclose(seconds,
                               (np.array([0, 100]) * stride + stride / 2)
                               / 30)
    window, = store.read_windows(Video("v1", info, grid, ()),
                                 [Window(0, 192, 192)])
    assert window["last"].shape == (192, 1, 3)


def test_a_window_is_padded_with_zeros(folder):
    store = FeatureFiles(_settings(folder))
    info = store.info_of(_video())
    video = Video("v1", info, store.grid(info), ())
    first, second = (inputs["last"] for inputs in store.read_windows(
        video, [Window(70, 4, 2), Window(68, 4, 4)]))
    np.testing.assert_array_equal(first[:2, 0, 0], [210, 213])
    np.testing.assert_array_equal(first[2:], 0)
    np.testing.assert_array_equal(second[2:, 0], first[:2, 0])
    np.testing.assert_array_equal(store.empty_window(4)["last"], 0 * first)


def test_resizing_is_numpys_interpolation():
    x = np.random.default_rng(0).normal(size=(7, 2))
    places = np.clip((np.arange(19) + 0.5) * 7 / 19 - 0.5, 0, 6)
    want = np.stack([np.interp(places, np.arange(7), x[:, i])
                     for i in range(2)], 1)
    np.testing.assert_allclose(resize_linearly(x, 19), want)


@pytest.mark.parametrize("write, changes, message", [
    (lambda p: None, {}, r"no v2\(\.npy\|\.npz\)"),
    (lambda p: np.save(p, np.zeros((72, 5))), {}, r"shape \(72, 5\), not"),
    (lambda p: np.save(p, np.zeros((3, 72))), {}, "channels_first=True"),
    (lambda p: np.save(p, np.zeros((0, 3))), {}, "holds no features"),
    (lambda p: p.write_bytes(b"nonsense"), {}, "cannot be read"),
    (lambda p: np.save(p, np.array([{}]), allow_pickle=True), {},
     "cannot be read"),
    (lambda p: np.save(p, np.zeros((700, 3))), {}, "700 features.*300"),
])
def test_bad_files_are_named(folder, write, changes, message):
    write(folder / "v2.npy")
    store = FeatureFiles(_settings(folder, **changes))
    with pytest.raises(InputError, match=f"(?s){message}"):
        store.info_of(_video("v2"))
    assert store.info_of(_video()).frame_count == 300


def test_missing_facts_are_named(folder):
    store = FeatureFiles(_settings(folder))
    with pytest.raises(InputError, match="no fps; set config.features.fps"):
        store.info_of(_video(fps=None))
    with pytest.raises(InputError, match="no duration"):
        store.info_of(_video(duration=None))
    assert FeatureFiles(_settings(folder, fps=30.0)).info_of(
        _video(fps=None)).fps == 30.0
    with pytest.raises(InputError, match="features.width=0"):
        FeatureFiles(_settings(folder, width=0))
    with pytest.raises(InputError, match="is no folder"):
        FeatureFiles(_settings(folder / "nowhere"))


def test_layouts_of_npz_and_channels_first(folder):
    np.savez(folder / "v2.npz", feats=np.zeros((72, 3)))
    np.save(folder / "x_v3_y.npy", np.zeros((3, 72)))
    store = FeatureFiles(_settings(folder), cache_gib=1.0)
    assert store.info_of(_video("v2")).path == folder / "v2.npz"
    other = FeatureFiles(_settings(folder, prefix="x_", suffix="_y",
                                   channels_first=True))
    assert other.info_of(_video("v3")).path == folder / "x_v3_y.npy"


def test_records_of_several_processes_are_one(tmp_path):
    facts = {"stride_frames": 4, "width": 8}
    entry = {"fps": 30.0, "frame_count": 90, "length": 19}
    assert read_record(tmp_path) is None
    write_record(tmp_path, facts, {"a": entry}, {"x": "empty"}, 0)
    write_record(tmp_path, facts, {"b": entry}, {}, 1)
    write_record(tmp_path, facts, {"c": entry}, {}, 1)
    record = read_record(tmp_path)
    assert (record.facts, sorted(record.videos)) == (facts, ["a", "b", "c"])
    assert json.loads(record_path(tmp_path).read_text())["broken"] == {
        "x": "empty"}
    with pytest.raises(InputError, match=r"width=8 \(asked for 16\)"):
        write_record(tmp_path, {**facts, "width": 16}, {}, {}, 0)
    record_path(tmp_path).write_text("{")
    with pytest.raises(InputError, match="not JSON.*--mode=extract again"):
        read_record(tmp_path)
