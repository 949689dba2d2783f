"""Files of features: times, shapes, and every error."""

import io
import json
import os
import pickle
import shutil
import unicodedata
import zipfile

import ml_dtypes
import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.features.files import (
    FeatureFiles,
    read_record,
    record_path,
    write_record,
)
from losa_jax.data.records import Action, AnnotatedVideo, Video, Window
from losa_jax.errors import InputError
from losa_jax.utils.numpy_file import read_array
from tests.data.reading import feature_settings


def _video(name="v1", duration=10.0, fps=30.0):
    return AnnotatedVideo(name, "test", duration, fps, (
        Action(1.0, 2.0, "run"),))


def _settings(folder, **changes):
    settings = feature_settings(folder, 4, 16, 3)
    settings.update(changes)
    return settings


GOOD = np.random.default_rng(0).normal(size=(72, 3)).astype(np.float32)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _with(array, value, *rows):
    array = array.copy()
    array[list(rows), 1] = value
    return array


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


def test_channels_of_several_folders_are_joined(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    more = np.random.default_rng(1).normal(size=(72, 2)).astype(np.float32)
    np.save(other / "v1.npy", more)
    settings = _settings(f"{folder},{other}", width=5)
    store = FeatureFiles(settings)
    info = store.info_of(_video())
    window, = store.read_windows(Video("v1", info, store.grid(info), ()),
                                 [Window(0, 72, 72)])
    first = np.load(folder / "v1.npy")
    np.testing.assert_array_equal(window["last"][:, 0],
                                  np.hstack([first, more]))
    with pytest.raises(InputError, match=r"have \(3, 2\) channels, and "
                       r"config.head.input_widths=\(2, 3\): give the folders"):
        FeatureFiles(settings, joined_widths=(2, 3)).info_of(_video())
    # And a part of them, of files with another ending.
    np.savez(other / "v1.npz", more)
    (other / "v1.npy").unlink()
    settings.update(channels=(2, 4), width=2)
    store = FeatureFiles(settings)
    window, = store.read_windows(Video("v1", info, store.grid(info), ()),
                                 [Window(0, 72, 72)])
    np.testing.assert_array_equal(
        window["last"][:, 0], np.hstack([first, more])[:, 2:4])
    settings.update(channels=(2, 7), width=5)
    with pytest.raises(InputError, match="has 5 channels, and config.feat"):
        FeatureFiles(settings).info_of(_video())
    (other / "v1.npz").unlink()
    settings.update(channels=(), width=5)
    np.save(other / "v1.npy", more[:70])
    with pytest.raises(InputError, match=r"other/v1.npy has the shape \(70, 2"
                                         r"\) and .*\(72, 3\): features are"):
        FeatureFiles(settings).info_of(_video())
    (other / "v1.npy").unlink()
    with pytest.raises(InputError, match="no file v1.npy or v1.npz in .*other"):
        FeatureFiles(settings).info_of(_video())
    with pytest.raises(InputError, match="/nowhere is no folder"):
        FeatureFiles(_settings(f"{folder},/nowhere"))


def test_extracted_features_are_joined_or_read_in_part(folder, tmp_path):
    """The record of --mode=extract has the width of one folder."""
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "v1.npy", np.ones((72, 2), np.float32))
    write_record(folder, {"stride_frames": 4.0, "clip_frames": 16.0,
                          "width": 3},
                 {"v1": {"fps": 30.0, "frame_count": 300, "length": 72}}, {},
                 0)
    FeatureFiles(_settings(f"{folder},{other}", width=5)).info_of(_video())
    settings = _settings(folder, width=2)
    with pytest.raises(InputError, match="Set .*features.width=3"):
        FeatureFiles(settings)
    settings.channels = (0, 2)
    FeatureFiles(settings).info_of(_video())
    settings.stride_frames = 8.0
    with pytest.raises(InputError, match="Set .*features.stride_frames=4"):
        FeatureFiles(settings)


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


@pytest.mark.parametrize("write, changes, message", [
    (lambda p: None, {}, "no file v2.npy or v2.npz in "),
    (lambda p: np.save(p, np.zeros((72, 5))), {}, r"shape \(72, 5\), not"),
    (lambda p: np.save(p, np.zeros((3, 72))), {}, "channels_first=True"),
    (lambda p: np.save(p, np.zeros((0, 3))), {}, "holds no features"),
    (lambda p: p.write_bytes(b"\xff\xff\0" * 9), {}, "cannot be read"),
    (lambda p: p.write_bytes(b"nonsense"), {}, "but a text file"),
    (lambda p: p.write_text("<html>"), {}, "but an HTML page: a server sent"),
    (lambda p: p.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n"),
     {}, "Git LFS pointer: run `git lfs pull`"),
    (lambda p: p.write_text("[[1, 2, 3]]"), {}, "but a JSON document: save"),
    (lambda p: p.write_bytes(pickle.dumps([1.0])), {}, "but a Python pickle"),
    (lambda p: p.write_bytes(b""), {}, "but an empty file"),
    (lambda p: p.symlink_to("gone"), {}, "is a link to gone, which is not"),
    (lambda p: np.save(p, np.array([{}]), allow_pickle=True), {},
     "holds Python objects .a pickle"),
    (lambda p: np.save(p, np.zeros((72, 3), complex)), {}, "type complex128"),
    (lambda p: np.save(p, np.zeros((72, 3), int)), {}, "type int64"),
    (lambda p: np.save(p, np.full((72, 3), "a")), {}, "type <U1"),
    (lambda p: np.save(p, np.zeros((72, 3), ml_dtypes.bfloat16)), {},
     "bfloat16, which NumPy does not store"),
    (lambda p: np.save(p, np.float32(1)), {}, r"the shape \(\), not"),
    (lambda p: np.save(p, np.zeros(0, np.float32)), {}, r"the shape \(0,\)"),
    (lambda p: p.write_bytes(_npy(GOOD)[:-1]), {}, "864 bytes .* 863 are"),
    (lambda p: p.write_bytes(_npy(GOOD) * 2), {}, "864 bytes .* 1856 are"),
    (lambda p: p.write_bytes(_npy(GOOD).replace(b"(72, 3)", b"(62, 3)")), {},
     "744 bytes .* 864 are"),
    (lambda p: p.write_bytes(_npy(GOOD).replace(b"(72, 3)", b"(9**9,)")), {},
     "cannot be read"),
    (lambda p: p.write_bytes(_npy(GOOD).replace(b"<f4", b">f4")), {},
     "byte order of its numbers wrong"),
    (lambda p: np.save(p, _with(GOOD, np.nan, 3, 70)), {},
     r"2 of 72 rows read are not finite \(rows 3, 70, counted from 0\)"),
    (lambda p: np.save(p, _with(GOOD.astype(float), 1e300, 5)), {},
     "1 of 72 rows"),
    (lambda p: np.save(p, np.zeros((700, 3))), {}, "700 features.*300"),
])
def test_bad_files_are_named(folder, write, changes, message):
    write(folder / "v2.npy")
    for cache_gib in (0.0, 1.0):
        store = FeatureFiles(_settings(folder, **changes),
                             cache_gib=cache_gib)
        with pytest.raises(InputError, match=f"(?s){message}"):
            store.check(_video("v2"))
        assert store.check(_video()).frame_count == 300


@pytest.mark.parametrize("array", [
    GOOD, GOOD.astype(np.float16), GOOD.astype(float), GOOD.astype(">f4"),
    GOOD.astype(">f8"), GOOD.astype(">f2"), np.asfortranarray(GOOD),
    0 * GOOD, np.float32(1e-30) + 0 * GOOD, np.abs(GOOD) ** 20,
    GOOD.astype(ml_dtypes.bfloat16).astype(np.float32), GOOD[None],
    np.exp(GOOD * 20).astype(np.float32)])
@pytest.mark.parametrize("write", [np.save, np.savez, np.savez_compressed])
def test_sound_arrays_are_read(tmp_path, array, write):
    write(tmp_path / f"v1.{'npy' if write is np.save else 'npz'}", array)
    for cache_gib in (0.0, 1.0):
        store = FeatureFiles(_settings(tmp_path), cache_gib=cache_gib)
        info = store.check(_video())
        window, = store.read_windows(
            Video("v1", info, store.grid(info), ()), [Window(0, 72, 72)])
        np.testing.assert_array_equal(
            window["last"][:, 0], array.reshape(72, 3).astype(np.float32))


@pytest.mark.parametrize("resized_to", [0, 36])
def test_numbers_are_checked_in_the_windows_that_are_read(
        folder, resized_to):
    np.save(folder / "v2.npy", _with(GOOD, np.inf, 40, 41))
    store = FeatureFiles(_settings(folder), resized_to)
    info = store.info_of(_video("v2"))
    video = Video("v2", info, store.grid(info), ())
    with pytest.raises(InputError, match=r"video v2: .*v2.npy: 2 of .*40, 41"):
        [*store.read_windows(video, [Window(30, 20, 20)])]
    if not resized_to:
        assert len([*store.read_windows(video, [Window(0, 40, 40)])]) == 1


@pytest.mark.parametrize("write", [np.save, np.savez])
def test_a_file_cut_at_any_byte_is_refused_at_opening(tmp_path, write):
    path = tmp_path / f"v1.{'npy' if write is np.save else 'npz'}"
    write(path, GOOD[:20])
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=path.name):
            read_array(path)


def test_a_file_that_was_cut_since_its_check_is_refused(folder):
    store = FeatureFiles(_settings(folder))
    info = store.check(_video())
    video = Video("v1", info, store.grid(info), ())
    os.truncate(folder / "v1.npy", 500)
    with pytest.raises(InputError, match="video v1: .*864 bytes .* 372 are"):
        [*store.read_windows(video, [Window(60, 10, 10)])]


def _damaged_npz(path, damage):
    np.savez_compressed(path, GOOD)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)


def _flip(place, bit=0x10):
    def damage(content):
        content[place] ^= bit
    return damage


def _encrypted(content):
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(signature) + offset] |= 1


def _method(content):
    for signature, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        content[content.index(signature) + offset] = 97


@pytest.mark.parametrize("damage", [
    _flip(200), _flip(300), _flip(27), _encrypted, _method,
    lambda content: content.__delitem__(slice(-1, None)),
    lambda content: content.__delitem__(slice(400, 500)),
    lambda content: content.__delitem__(slice(0, 1)),
    lambda content: content.extend(content),
    lambda content: content.extend(b"more")])
def test_damaged_archives_are_errors(folder, damage):
    _damaged_npz(folder / "v2.npz", damage)
    with pytest.raises(InputError, match="v2.npz"):
        FeatureFiles(_settings(folder)).check(_video("v2"))


def test_an_array_inside_an_archive_must_fill_its_entry(folder):
    content = _npy(GOOD).replace(b"(72, 3)", b"(62, 3)")
    with zipfile.ZipFile(folder / "v2.npz", "w") as archive:
        archive.writestr("arr_0.npy", content)
    with pytest.raises(InputError, match="744 bytes .* 864 are"):
        FeatureFiles(_settings(folder)).info_of(_video("v2"))


def test_several_arrays_need_a_name(folder):
    np.savez(folder / "v2.npz", rgb=GOOD, flow=2 * GOOD)
    np.savez(folder / "v3.npz", labels=np.zeros(3, int), feats=GOOD)
    with pytest.raises(InputError, match="the arrays rgb, flow: name the one "
                       "to read with --config.features.array=NAME"):
        FeatureFiles(_settings(folder)).info_of(_video("v2"))
    assert FeatureFiles(_settings(folder)).check(_video("v3"))
    store = FeatureFiles(_settings(folder, array="flow"))
    info = store.info_of(_video("v2"))
    window, = store.read_windows(Video("v2", info, store.grid(info), ()),
                                 [Window(0, 72, 72)])
    np.testing.assert_array_equal(window["last"][:, 0], 2 * GOOD)
    with pytest.raises(InputError, match="holds the arrays labels, feats"):
        store.info_of(_video("v3"))


@pytest.mark.parametrize("name, wanted, message", [
    ("v2.csv", "v2", r"v2.csv is not read: save .*numpy.save\('v2.npy'"),
    ("v2.pt", "v2", "v2.pt is not read: python -m losa_jax.convert .* "
     "--output=FEATURES makes .npy files"), ("v2.h5", "v2", "v2.h5 is not"),
    ("v2.mat", "v2", "v2.mat is not"), ("v2.pkl", "v2", "v2.pkl is not"),
    ("V2.npy", "v2", "nearest there: V2.npy"),
    ("sub/v2.npy", "v2", "nearest there: sub/v2.npy; subfolders are not "
     "searched: set --config.features.folder=.*/sub, or"),
    ("v2.mp4", "v2", "v2.mp4 is a video: make .* --mode=extract --output="),
    ("v2.MKV", "v2.mkv", "nearest there: v2.MKV"),
    ("clip.mp4", "v2", r"\.npz in [^;]*$"),
    ("v_abc_rgb.npy", "abc", "--config.features.prefix=v_ "
     "--config.features.suffix=_rgb"),
    ("v1.npz", "v1", "several files: v1.npy, v1.npz"),
    ("v1.npy", "../v1", "is no plain file name"),
])
def test_a_missing_file_names_the_nearest(folder, name, wanted, message):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(InputError, match=message):
        FeatureFiles(_settings(folder)).info_of(_video(wanted))


@pytest.mark.parametrize("wanted", ["v2", "v2.mp4", "other"])
def test_a_folder_of_videos_in_place_of_features_is_named(tmp_path, wanted):
    (tmp_path / "v2.mp4").touch()
    with pytest.raises(InputError, match=(
            "v2.mp4 is a video: make features of the videos with "
            f"--config.data.videos={tmp_path} --mode=extract --output=FOLDER, "
            "and set --config.features.folder=FOLDER$")):
        FeatureFiles(_settings(tmp_path)).info_of(_video(wanted))


def test_one_file_for_all_videos_is_named(tmp_path):
    (tmp_path / "all.h5").touch()
    with pytest.raises(InputError, match="no .npy or .npz file but all.h5"):
        FeatureFiles(_settings(tmp_path)).info_of(_video("jump"))


@pytest.mark.parametrize("name", [
    unicodedata.normalize("NFC", "étude.npy"),
    unicodedata.normalize("NFD", "étude.npy"), "étude.NPY"])
def test_names_of_macos_are_those_of_the_ids(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.save(file, GOOD)
    assert FeatureFiles(_settings(tmp_path)).check(_video("étude"))


def test_an_id_may_be_the_name_of_the_video(folder):
    settings = _settings(folder)
    for name in ("v1", "v1.mp4", "v1.MTS"):
        assert FeatureFiles(settings).info_of(_video(name)).path.stem == "v1"
    np.save(folder / "v1.mp4.npy", GOOD)
    assert FeatureFiles(settings).info_of(_video("v1.mp4")).path == (
        folder / "v1.mp4.npy")
    with pytest.raises(InputError, match="no file v1.xyz.npy"):
        FeatureFiles(settings).info_of(_video("v1.xyz"))


def test_an_empty_setting_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="features.folder= is no folder"):
        FeatureFiles(_settings(""))


@pytest.mark.shared
@pytest.mark.parametrize("name, message", [
    ("a", "--config.features.array"), ("bad_crc", "cannot be read"),
    ("html_page", "HTML page"), ("nan", "3 of 72 rows")])
def test_files_of_users_are_explained(shared_dir, name, message):
    folder = shared_dir / "data/public_cases/features"
    width = np.load(folder / "nan.npy").shape[1]
    store = FeatureFiles(feature_settings(folder, 4, 16, width))
    with pytest.raises(InputError, match=message):
        store.check(_video(name))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["w.pth", "hf/model.safetensors"])
def test_a_public_pointer_in_place_of_features_is_named(
        shared_dir, folder, name):
    shutil.copy(shared_dir / "data/public_cases/lfs" / name, folder / "v2.npy")
    with pytest.raises(InputError, match="v2.npy: .*run `git lfs pull`"):
        FeatureFiles(_settings(folder)).check(_video("v2"))


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
