"""A data set is complete or absent, and each build writes the same bytes."""

import dataclasses
import hashlib
import signal
import subprocess
import sys
import time
import types

import pytest
import tensorflow_datasets as tfds

from losa_jax.data import build
from losa_jax.data import tfds as writer
from losa_jax.data.annotations.data_set_index import find_data_set, read_index
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.errors import InputError
from tests.data.tiny_set import SUBSETS, make_tiny_set, write_video

# Each video is a shard.
SMALL = "--shard_mib=0.001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    assert _build(folder, output) == 0
    return output


def _build(folder, output, *more, name="custom"):
    return build.main([name, f"--videos={folder / 'videos'}",
                       f"--annotations={folder / 'annotations.json'}",
                       f"--output={output}", SMALL, *more])


def _files(output):
    return {str(path.relative_to(output)):
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(output.rglob("*")) if path.is_file()}


def test_a_record_holds_the_file_and_all_that_is_known(folder, whole):
    for split, count in SUBSETS.items():
        source = tfds.data_source("custom", split=split, data_dir=whole)
        assert len(source) == count
        for number, record in enumerate(source):
            name = f"{split}.{number}"
            frames = 40 + number
            file = folder / f"videos/{name}.mp4"
            assert record["video_id"].decode() == name
            assert record["video"] == file.read_bytes()
            assert record["path"].decode() == file.name
            assert (record["frame_count"], record["fps"], record["height"],
                    record["is_timed"]) == (frames, 25.0, 32, True)
            # To the last bit, and as they stand in the file.
            assert record["duration_seconds"] == frames / 25
            actions = record["actions"]
            assert [float(x) for x in actions["start_seconds"]] == [0.1, 1.0]
            assert [float(x) for x in actions["end_seconds"]] == [
                1 / 3, frames / 25 + 0.3]
            assert actions["label"] == [0, 1]
    stored = tfds.builder("custom", data_dir=whole)
    assert stored.info.features["actions"]["label"].names == ["hop", "run"]
    assert "tensorflow" not in sys.modules


def test_a_second_build_writes_the_same_bytes_and_a_third_nothing(
        folder, whole, tmp_path, capsys):
    assert _build(folder, tmp_path / "out") == 0
    before = _files(whole)
    assert _files(tmp_path / "out") == before
    assert len([name for name in before if "array_record-" in name]) == 6
    capsys.readouterr()
    assert _build(folder, whole) == 0
    assert "is there already" in capsys.readouterr().out
    assert _files(whole) == before


def test_videos_share_a_shard_up_to_its_size(folder, tmp_path):
    sizes = [(folder / f"videos/training.{number}.mp4").stat().st_size
             for number in range(4)]
    assert _build(folder, tmp_path / "out", "--subsets=training",
                  f"--shard_mib={(sum(sizes[:3]) - 1) / 2**20}") == 0
    info = tfds.builder("custom", data_dir=tmp_path / "out").info
    assert info.splits["training"].shard_lengths == [3, 1]
    assert _build(folder, tmp_path / "paths", "--paths") == 0
    info = tfds.builder("custom", data_dir=tmp_path / "paths").info
    assert info.splits["training"].shard_lengths == [4]


def test_an_interrupted_build_leaves_no_data_set(folder, whole, tmp_path,
                                                 capsys, monkeypatch):
    calls, real = [], writer.examples

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(writer, "examples", dies)
    assert _build(folder, tmp_path / "out") == 75
    assert "start the same command again" in capsys.readouterr().err
    assert not _files(tmp_path / "out")
    with pytest.raises(InputError, match="no finished data set"):
        find_data_set(tmp_path / "out")
    # What a killed process leaves.
    left = tmp_path / "out/custom/incomplete.ABCDEF_1.0.0"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("x")
    with pytest.raises(InputError, match="no finished data set"):
        find_data_set(tmp_path / "out")
    assert _build(folder, tmp_path / "out") == 0
    assert _files(tmp_path / "out") == _files(whole)


def test_a_video_that_changes_during_the_build_is_refused(
        folder, tmp_path, capsys, monkeypatch):
    real = writer.examples

    def grows(entries, *arguments):
        return real([{**entry, "bytes": entry["bytes"] + 1}
                     for entry in entries], *arguments)

    monkeypatch.setattr(writer, "examples", grows)
    assert _build(folder, tmp_path / "out") == 1
    assert "when it was probed" in capsys.readouterr().err
    assert not _files(tmp_path / "out")


def test_a_data_set_of_other_videos_is_not_replaced(folder, whole, tmp_path,
                                                    capsys):
    other = make_tiny_set(tmp_path)
    write_video(other / "videos/training.1.mp4", seed=99, frames=60)
    before = _files(whole)
    assert _build(other, whole) == 1
    assert "data set of other videos" in capsys.readouterr().err
    assert _files(whole) == before


def test_beam_gets_its_runner_and_options(folder, tmp_path, monkeypatch,
                                          capsys):
    """A stand-in: Beam itself needs another protobuf than the package."""
    assert _build(folder, tmp_path, "--beam_runner=DirectRunner") == 1
    assert "pip install 'losa_jax[beam]'" in capsys.readouterr().err
    module = types.ModuleType("pipeline_options")
    module.PipelineOptions = list
    for name in ("apache_beam", "apache_beam.options",
                 "apache_beam.options.pipeline_options"):
        monkeypatch.setitem(sys.modules, name, module)
    configs = []
    monkeypatch.setattr(
        writer.VideoBuilder, "download_and_prepare",
        lambda _, download_dir, download_config: configs.append(
            download_config))
    assert _build(folder, tmp_path, "--beam_runner=DirectRunner",
                  "--beam_options=--direct_num_workers=2 --streaming") == 0
    assert configs[0].beam_runner == "DirectRunner"
    assert configs[0].beam_options == ["--direct_num_workers=2",
                                       "--streaming"]


def test_broken_videos_are_all_named_or_left_out(tmp_path, capsys):
    folder = make_tiny_set(tmp_path)
    (folder / "videos/testing.0.mp4").write_text("no video")
    (folder / "videos/training.2.mp4").unlink()
    assert _build(folder, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "2 of 6 videos are missing or broken" in message
    assert "testing.0: " in message and "training.2: no file" in message
    assert "leave them out with --on_broken_video=skip" in message
    assert _build(folder, tmp_path / "skipped",
                  "--on_broken_video=skip") == 0
    index = read_index(find_data_set(tmp_path / "skipped"))
    assert {split: len(entries) for split, entries in index["videos"].items()
            } == {"training": 3, "testing": 1}
    assert set(index["left_out"]) == {"training.2", "testing.0"}
    source = tfds.data_source("custom", split="training",
                              data_dir=tmp_path / "skipped")
    assert [one["video_id"].decode()[-1] for one in source] == ["0", "1", "3"]


def test_one_subset_of_two_can_be_built(folder, tmp_path):
    assert _build(folder, tmp_path / "out", "--subsets=Testing") == 0
    assert list(read_index(find_data_set(tmp_path / "out"))["videos"]) == [
        "testing"]


def test_annotations_are_read_back_from_the_set(folder, whole):
    want = load_annotations(folder / "annotations.json")
    got = load_annotations(whole)
    without_ids = {
        name: dataclasses.replace(video, actions=tuple(
            action._replace(label_id=None) for action in video.actions))
        for name, video in got.videos.items()}
    assert (without_ids, got.class_names) == (want.videos, want.class_names)
    with pytest.raises(InputError, match="6 wrong entries"):
        clipped_to(got, {}, "error")


@pytest.mark.parametrize("flags, message", [
    (["--shard_mib=0"], "--shard_mib=0.0: give more"),
    (["--videos=/nowhere"], "--videos=/nowhere is no folder"),
    (["--annotations=/nowhere"], "no such annotation file"),
    (["--subsets=train"], "has no 'train' but training, testing"),
    (["--class_names=/nowhere"], "No such file")])
def test_wrong_arguments_are_refused(folder, tmp_path, capsys, flags, message):
    assert _build(folder, tmp_path / "out", *flags) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_public_sets_know_their_classes(folder, tmp_path, capsys):
    assert _build(folder, tmp_path / "out", name="thumos14") == 1
    assert "label 'hop' is in no class list" in capsys.readouterr().err


def test_the_order_of_beams_shards_is_corrected(folder, tmp_path,
                                                monkeypatch):
    flags = ("--subsets=training", "--shard_mib=0.06")
    assert _build(folder, tmp_path / "one", *flags) == 0
    real = tfds.core.ShardBasedBuilder._download_and_prepare

    def as_with_beam(self, **arguments):
        real(self, **arguments)
        lengths = self.info.splits["training"].shard_lengths
        assert lengths != lengths[::-1]
        self.info.set_splits(tfds.core.splits.SplitDict([
            self.info.splits["training"].replace(
                shard_lengths=lengths[::-1])]))
        (self.data_path / "custom-training.shard_infos.json").write_text("{}")

    monkeypatch.setattr(tfds.core.ShardBasedBuilder, "_download_and_prepare",
                        as_with_beam)
    assert _build(folder, tmp_path / "other", *flags) == 0
    assert _files(tmp_path / "one") == _files(tmp_path / "other")


@pytest.mark.shared
def test_a_killed_build_of_gestures_starts_again(shared_dir, tmp_path):
    data = shared_dir / "data/gestures"

    def command(output):
        return [sys.executable, "-m", "losa_jax.data.build", "custom",
                f"--videos={data / 'videos'}", "--shard_mib=0.25",
                f"--annotations={data / 'gestures.json'}",
                f"--output={output}"]

    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    process = subprocess.Popen(command(killed), stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(killed.glob("custom/incomplete.*_1.0.0/*training*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(InputError, match="no finished data set"):
        find_data_set(killed)
    for output in (killed, unbroken):
        assert build.main(command(output)[3:]) == 0
    assert _files(killed) == _files(unbroken)
    assert len(read_index(find_data_set(killed))["videos"]["training"]) == 24
