"""Several processes predict on one archive, on a disk or in a bucket."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.archive import holders
from losa_jax.distributed.claims import Claims
from losa_jax.errors import InputError
from losa_jax.inference.load import load
from losa_jax.jobs.predict import predict
from losa_jax.jobs.prediction_files import Settings
from losa_jax.jobs.setup import write_json
from losa_jax.jobs.video_sources import find_videos
from losa_jax.utils.storage import TransferError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run(config, fake_run, tmp_path_factory):
    """Returns the work directory of a run, with its settings."""
    run = tmp_path_factory.mktemp("predict") / "run"
    shutil.copytree(fake_run, run)
    write_json(run / "config.json", config.to_dict())
    return run


@pytest.fixture(scope="module")
def model(run):
    return load(run)


@pytest.fixture(scope="module")
def archive(config, tmp_path_factory):
    """Returns a folder of 24 videos, one of which is broken."""
    folder = tmp_path_factory.mktemp("archive") / "videos"
    folder.mkdir()
    paths = sorted(Path(config.data.videos).iterdir())
    for number in range(23):
        os.link(paths[number % len(paths)], folder / f"{number:02}.mp4")
    (folder / "broken.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def alone(model, archive, tmp_path_factory):
    """Returns what one process writes."""
    output = tmp_path_factory.mktemp("alone") / "out"
    failures = predict(find_videos([str(archive)]), model,
                       Settings(output, 0.5, report=True))
    assert [*failures] == [str(archive / "broken.mp4")]
    return output


@pytest.fixture(scope="module")
def process_alone(run, archive, one_device, tmp_path_factory):
    """As `alone`, by a process with one device as the processes below."""
    output = tmp_path_factory.mktemp("process_alone") / "out"
    process = _start(run, archive, output, one_device)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 1, shown
    return output


def _require_same(output, alone, *names):
    for name in ("predictions.json", "failures.json", *names):
        assert (output / name).read_bytes() == (alone / name).read_bytes()
    assert not list(output.glob(".*"))


def _start(run, archive, output, environment, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "losa_jax.predict", str(archive),
         f"--checkpoint={run}", f"--output={output}", "--threshold=0.5",
         "--report", *more], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [
    (signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_three_processes_do_what_a_fourth_one_leaves(
        run, archive, process_alone, one_device, tmp_path, number, status):
    output = tmp_path / "out"
    processes = [_start(run, archive, output, one_device) for _ in range(4)]
    end = time.monotonic() + 300
    while not (pids := holders(output)) and time.monotonic() < end:
        time.sleep(0.01)
    victim = next(one for one in processes if one.pid in pids)
    victim.send_signal(number)
    shown = {one: one.communicate(timeout=300)[0] for one in processes}
    assert victim.returncode == status, shown[victim]
    for one in processes:
        if one is not victim:
            assert one.returncode == 1, shown[one]
            assert "23 of 24 videos done" in shown[one]
            assert "broken.mp4: the file is empty" in shown[one]
    _require_same(output, process_alone, "index.html")
    # Each video was done by one process.
    lines = [line for text in shown.values() for line in text.splitlines()
             if " actions in " in line]
    finished = {line.rpartition("\r")[2].partition(": ")[0].strip()
                for line in lines}
    assert len(lines) == len(finished) >= 22  # one may be killed unseen


@pytest.mark.slow
def test_the_processes_of_one_program_share_the_videos(
        run, archive, process_alone, one_device, tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "launch/local_processes.sh"), "2", str(archive),
         f"--checkpoint={run}", f"--output={tmp_path / 'out'}",
         "--threshold=0.5", "--report"],
        env={**one_device, "PROGRAM": "losa_jax.predict"}, cwd=ROOT, text=True,
        capture_output=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("23 of 24 videos done") == 1
    assert 0 < done.stdout.count(" actions in ") < 23
    _require_same(tmp_path / "out", process_alone, "index.html")


@pytest.mark.slow
@pytest.mark.beam
def test_a_pipeline_of_beam_writes_the_same(run, archive, process_alone,
                                            one_device, tmp_path):
    pytest.importorskip("apache_beam")
    process = _start(run, archive, tmp_path / "out", one_device,
                     "--beam_runner=DirectRunner",
                     "--beam_options=--direct_num_workers=2 "
                     "--direct_running_mode=multi_threading")
    shown, _ = process.communicate(timeout=500)
    assert process.returncode == 1, shown
    assert "23 of 24 videos are done already" in shown
    _require_same(tmp_path / "out", process_alone, "index.html")


def _counted(model, counts):
    def predict_windows(inputs):
        counts.append(len(inputs["valid_samples"]))
        return model.predict_windows(inputs)
    return dataclasses.replace(model, predict_windows=predict_windows)


def test_a_restart_does_only_what_is_missing_or_has_changed(
        model, archive, alone, tmp_path, capsys):
    output, videos = tmp_path / "out", tmp_path / "videos"
    shutil.copytree(archive, videos)  # with the times of the files
    settings = Settings(output, 0.5)
    predict(find_videos([str(videos)]), model, settings)
    assert json.loads((output / "predictions.json").read_text()) == json.loads(
        (alone / "predictions.json").read_text())
    whole = (output / "predictions.json").read_bytes()
    counts = []
    counted = _counted(model, counts)
    assert len(predict(find_videos([str(videos)]), counted, settings)) == 1
    assert counts == []
    (output / "03.json").unlink()
    os.utime(videos / "05.mp4")
    capsys.readouterr()
    predict(find_videos([str(videos)]), counted, settings)
    shown = capsys.readouterr().out
    assert "21 of 24 videos are done already" in shown
    assert counts and shown.count(" actions in ") == 2
    assert (output / "predictions.json").read_bytes() == whole
    # A broken video is opened again when it has changed.
    shutil.copy(videos / "00.mp4", videos / "broken.mp4")
    assert predict(find_videos([str(videos)]), model, settings) == {}
    assert not {"failures.json", "broken.error"} & {
        path.name for path in output.iterdir()}


def test_a_fault_of_the_output_is_none_of_a_video(model, archive, tmp_path,
                                                  monkeypatch):
    output = tmp_path / "out"

    def take(claims, item):
        raise InputError(f"{item}: no room")

    with monkeypatch.context() as patch:
        patch.setattr(Claims, "take", take)
        with pytest.raises(InputError, match="no room"):
            predict(find_videos([str(archive / "00.mp4")]), model,
                    Settings(output, 0.5))
    assert not list(output.glob("*.error"))
    assert not predict(find_videos([str(archive / "00.mp4")]), model,
                       Settings(output, 0.5))


def test_the_merge_has_what_another_process_has_done_since(
        model, archive, tmp_path, monkeypatch):
    """Here a video cannot be copied; another process does it meanwhile."""
    output, sources = tmp_path / "out", find_videos(
        [str(archive / name) for name in ("00.mp4", "01.mp4")])
    real_take = Claims.take

    def take(claims, item):
        if item == "predictions" and not (output / "00.json").exists():
            monkeypatch.undo()
            assert not predict(sources, model, Settings(output, 0.5))
        return real_take(claims, item)

    monkeypatch.setattr(Claims, "take", take)

    @contextlib.contextmanager
    def local(one, scratch):
        if one.video_id == "00":
            raise TransferError("the bucket is away")
        yield one.path

    monkeypatch.setattr("losa_jax.jobs.predict._local", local)
    assert not predict(sources, model, Settings(output, 0.5))
    results = json.loads((output / "predictions.json").read_text())["results"]
    assert [*results] == ["00", "01"]
    assert not (output / "failures.json").exists()


def test_what_a_dead_process_has_claimed_is_done(model, archive, alone,
                                                 tmp_path, monkeypatch):
    output = tmp_path / "out"
    (output / ".claims").mkdir(parents=True)
    dead = subprocess.run([sys.executable, "-c", "import json\n"
                           "from losa_jax.distributed import workdir_lock\n"
                           "print(json.dumps(workdir_lock.owner()))"],
                          capture_output=True, text=True).stdout
    # It is seen at once, not after a time without a renewal.
    monkeypatch.setattr("losa_jax.distributed.claims.DEAD_SECONDS", 1e6)
    for name in ("03", "predictions"):
        (output / f".claims/{name}.0").write_text(dead)
    predict(find_videos([str(archive)]), model, Settings(output, 0.5))
    _require_same(output, alone)


def test_a_bucket_holds_the_videos_the_list_and_the_output(
        model, archive, alone, tmp_path, bucket_objects, monkeypatch):
    import fsspec

    files = fsspec.filesystem("gs")
    for path in archive.iterdir():
        files.pipe_file(f"gs://data/videos/{path.name}", path.read_bytes())
    files.pipe_file("gs://data/videos/notes.md", b"no video")
    files.pipe_file("gs://data/list.txt",
                    b"gs://data/videos\ngs://data/none.mp4\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    settings = Settings("gs://data/out", 0.5, report=True)
    failures = predict(find_videos(["gs://data/list.txt"]), model, settings)
    assert {source: reason.partition(": ")[2][:12]
            for source, reason in failures.items()} == {
        "gs://data/videos/broken.mp4": "the file is ",
        "gs://data/none.mp4": "no such file"}
    assert bucket_objects["/data/out/predictions.json"].getvalue() == (
        alone / "predictions.json").read_bytes()
    names = {name.removeprefix("/data/out/") for name in bucket_objects
             if name.startswith("/data/out/")}
    assert names == {path.name for path in alone.iterdir()}
    assert not list(scratch.iterdir())
    # Nothing is predicted again, another threshold is.
    counts = []
    for threshold in (0.5, 0.1):
        predict(find_videos(["gs://data/list.txt"]), _counted(model, counts),
                dataclasses.replace(settings, threshold=threshold))
        content = json.loads(bucket_objects["/data/out/03.json"].getvalue())
        assert set(content["shown_from"].values()) == {threshold}
    assert counts == []
    assert bucket_objects["/data/out/predictions.json"].getvalue() == (
        alone / "predictions.json").read_bytes()
