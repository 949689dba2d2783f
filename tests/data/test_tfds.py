"""Training from a TFDS data set is training from the folder."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from losa_jax.data import build
from losa_jax.data.records import EncodedVideo
from losa_jax.data.tfds import StoredVideos
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import examples
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.readers import test_rows as rows_of_tests
from losa_jax.data.windows.stream import WindowStream
from losa_jax.errors import InputError
from losa_jax.jobs.check_data import check_data
from losa_jax.jobs.setup import load_data
from tests.custom_recipe import custom_config
from tests.data.reading import read_frames
from tests.data.tiny_set import make_tiny_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The folder, and data sets that embed it and name its paths."""
    folder = make_tiny_set(tmp_path_factory.mktemp("tiny"))
    for mode in ("embed", "paths"):
        assert build.main([
            "custom", f"--videos={folder / 'videos'}", f"--{mode}",
            f"--annotations={folder / 'annotations.json'}",
            f"--output={folder / mode}"]) == 0
    return folder


def _config(**data):
    config = custom_config()
    config.data.on_outside = "clip"
    config.data.update(data)
    config.window.samples = config.window.tokens = 16
    config.window.sample_fps = 25.0
    config.augment.size = 24
    return config


def _batches(config, workdir):
    workdir.mkdir(exist_ok=True)
    data = load_data(config, workdir)
    reader = FrameReader(config)
    train = examples.train_batches(
        examples.TrainWindows(data.train, data.class_names, config,
                              reader=reader),
        len(data.train), seed=3,
        batch_windows=2, num_threads=2,
        num_batches=len(data.train))
    test = WindowStream(
        range(len(data.test)), rows_of_tests(reader, data.test),
        batch_windows=2, num_threads=1)
    return data, [*train, *(batch.inputs for batch in test)]


@pytest.mark.parametrize("mode", ["embed", "paths"])
def test_batches_are_those_of_the_folder(sets, tmp_path, mode):
    folder, want = _batches(_config(
        annotations=str(sets / "annotations.json"),
        videos=str(sets / "videos")), tmp_path / "one")
    data, got = _batches(_config(tfds=str(sets / mode)), tmp_path / "two")
    assert data.class_names == folder.class_names
    assert all((video.read_encoded is None) == (mode == "paths")
               for video in data.train + data.test)
    assert len(got) == len(want) > 4
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key], key)


def test_a_damaged_record_is_a_video_that_cannot_be_decoded(sets, tmp_path):
    video = load_data(_config(tfds=str(sets / "embed")), tmp_path).train[0]
    places = video.read_encoded.func.__self__._places
    other = next(name for name in places if name != video.video_id)
    places[video.video_id] = places[other]
    with pytest.raises(VideoDecodeError, match="of another video"):
        video.open()


@pytest.mark.shared
@pytest.mark.parametrize("name", [
    "bframes_start_offset.mp4", "flipping_a_pancake.mkv", "vp9.webm",
    "v_SoccerJuggling_g23_c01.avi", "portrait_rotated.mp4"])
def test_bytes_decode_as_the_file(shared_dir, name):
    path = shared_dir / "data/odd_videos" / name
    info = probe_video(path, check="none")
    chosen = [0, info.frame_count // 2]
    stored = EncodedVideo("set: video", path.read_bytes())
    np.testing.assert_array_equal(read_frames(stored, chosen, info=info),
                                  read_frames(path, chosen, info=info))
    cut = EncodedVideo("set: video", b"no video")
    with pytest.raises(InputError, match="set: video: not a readable video"):
        read_frames(cut, chosen, info=info)


@pytest.mark.parametrize("old, new", [
    # JSON may write a letter as a number.
    ("pythonClassName", r"python\u0043lassName"),
    # TFDS reads these names of the field too.
    ("pythonClassName", "python_class_name"), ("pythonClassName", "type")])
def test_a_set_that_names_code_is_refused(sets, tmp_path, old, new):
    shutil.copytree(sets / "paths", tmp_path / "set")
    features, = tmp_path.rglob("features.json")
    text = features.read_text()
    features.write_text(text.replace(
        '"tensorflow_datasets.core.features.text_feature.Text"',
        r'"evil\u002eThing"').replace(old, new))
    assert features.read_text() != text
    with pytest.raises(InputError, match="could run code of others"):
        StoredVideos(tmp_path / "set")


def test_a_changed_file_is_refused(sets, tmp_path):
    shutil.copytree(sets / "videos", tmp_path / "videos")
    assert build.main([
        "custom", f"--videos={tmp_path / 'videos'}", "--paths",
        f"--annotations={sets / 'annotations.json'}",
        f"--output={tmp_path / 'out'}"]) == 0
    (tmp_path / "videos/training.0.mp4").unlink()
    (tmp_path / "videos/testing.1.mp4").write_bytes(b"another")
    config = _config(tfds=str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"training.0.mp4: is missing or"):
        load_data(config, tmp_path)
    config.data.on_broken_video = "skip"
    data = load_data(config, tmp_path)
    assert (len(data.train), len(data.test)) == (3, 1)
    assert "1.mp4: is missing or has another size" in (
        data.broken["testing.1"])


def test_check_data_reads_the_set(sets, tmp_path, capsys):
    findings = check_data(_config(tfds=str(sets / "embed")), tmp_path)
    assert {one.category for one in findings} == {"actions outside"}
    assert "6 of 6 videos can be read" in capsys.readouterr().out


def test_damage_and_wrong_settings_are_named(sets, tmp_path):
    config = _config(tfds=str(sets / "embed"), videos=str(sets / "videos"))
    with pytest.raises(InputError, match="are both set"):
        load_data(config, tmp_path)
    with pytest.raises(InputError, match="no finished data set of"):
        StoredVideos(tmp_path)
    shutil.copytree(sets / "embed", tmp_path / "copy")
    stored = StoredVideos(tmp_path / "copy")
    unknown = SimpleNamespace(video_id="stranger")
    with pytest.raises(InputError, match="^is not in"):
        stored.info_of(unknown)
    for path in stored.path.glob("*training*record*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 4] ^= 255
        path.write_bytes(content)
    with pytest.raises(InputError, match="training.* cannot be read"):
        for number in range(4):
            stored.read(f"training.{number}")
