"""A disk that is full or read-only: the path, nothing half-written, and on."""

import contextlib
import json
import os
import resource
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import logging as absl_logging

from losa_jax import score, sweep
from losa_jax.errors import InputError
from losa_jax.inference.load import load
from losa_jax.jobs import cache as cache_job
from losa_jax.jobs import check_data, convert, evaluate, export, extract
from losa_jax.jobs import predict as predict_job
from losa_jax.jobs.prediction_files import Settings
from losa_jax.jobs.train import train
from losa_jax.jobs.video_sources import find_videos
from losa_jax.training.checkpoint import LAST, Checkpoints
from losa_jax.utils import atomic_write

pytestmark = pytest.mark.slow


class Disk:
    """A small tmpfs."""

    def __init__(self, path):
        path.mkdir()
        self.path, self._path = path / "disk", path
        self._mount("size=400k")
        self.path.mkdir()
        self._filler = path / "filler"

    def _mount(self, options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs",
                               str(self._path)], capture_output=True,
                              text=True)
        if done.returncode:
            self._path.rmdir()
            pytest.skip(f"a tmpfs needs root: {done.stderr.strip()}")

    def fill(self):
        with contextlib.suppress(OSError), open(self._filler, "wb",
                                                buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass

    def free(self):
        self._filler.unlink(missing_ok=True)
        self._mount("remount,rw,size=64m")

    def protect(self):
        self._mount("remount,ro")

    def files(self):
        return sorted(str(path.relative_to(self.path))
                      for path in self.path.rglob("*") if path.is_file())

    def close(self):
        subprocess.run(["umount", "-l", str(self._path)], check=True)


@pytest.fixture(autouse=True)
def _quiet():
    """As the command lines do."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    yield
    absl_logging.set_verbosity(verbosity)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "mounted")
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def source(config):
    """Returns a backbone's checkpoint to convert."""
    return config.backbone.checkpoint + ".safetensors"


@pytest.fixture(scope="module")
def run(config, fake_run):
    (fake_run / "config.json").write_text(json.dumps(config.to_dict()))
    return fake_run


def _cached(config, folder):
    config = config.copy_and_resolve_references()
    config.window.align_to_clips = True
    config.data.cache = str(folder / "cache")
    return config


def _prediction_file(config, folder):
    path = folder / "predictions.json"
    database = json.loads(Path(config.data.annotations).read_text())["database"]
    path.write_text(json.dumps({"results": {
        name: [{"segment": one["segment"], "label": one["label"],
                "score": 0.5} for one in video["annotations"]]
        for name, video in database.items()}}))
    return path


def _command(main, *arguments):
    """Runs a command line that prints its errors."""
    def run(capsys):
        status = main([*map(str, arguments)])
        text = capsys.readouterr().err
        if status:
            raise InputError(text[text.index("error: "):].rstrip())
    return run


@pytest.fixture
def commands(config, run, source, tmp_path):
    """Returns {name: function of the folder to write to}."""
    def scored(folder):
        return _command(
            score.main, _prediction_file(config, tmp_path),
            f"--annotations={config.data.annotations}", "--subset=testing",
            f"--json={folder / 'score.json'}")

    def diagnosed(folder):
        return _command(
            score.main, _prediction_file(config, tmp_path),
            f"--annotations={config.data.annotations}", "--subset=testing",
            f"--diagnose={folder / 'diagnosis'}")

    def quietly(function, *arguments, **options):
        return lambda capsys: function(*arguments, **options)

    def saved(folder):
        def save(capsys):
            checkpoints = Checkpoints(folder, only_writer=True)
            state = {"a": np.arange(2e5, dtype=np.float32)}
            state = jax.tree.map(jax.numpy.asarray, state)
            try:
                checkpoints.save(1, state, {})
                checkpoints.restore(LAST, state)
            finally:
                with contextlib.suppress(InputError):
                    checkpoints.close()
        return save

    return {
        "checkpoint": saved,
        "convert": lambda folder: quietly(
            convert.convert, Path(source),
            folder / "backbone"),
        "convert to torch": lambda folder: quietly(
            convert.to_torch, Path(
                config.backbone.checkpoint), folder / "back.safetensors"),
        "score --json": scored,
        "score --diagnose": diagnosed,
        "check_data": lambda folder: quietly(
            check_data.check_data, config, folder / "checked"),
        "cache": lambda folder: quietly(
            cache_job.cache, _cached(config, folder), tmp_path / "caching"),
        "extract": lambda folder: quietly(
            extract.extract, config, tmp_path / "extracting",
            extract.ExtractSettings(folder / "features")),
        "export": lambda folder: quietly(
            export.export, config, run, output=folder / "exported",
            platforms=("cpu",)),
        "eval --report": lambda folder: quietly(
            evaluate.evaluate, config, run, output=folder / "evaluated",
            report_pages=0),
        "predict --report": lambda folder: quietly(
            predict_job.predict,
            find_videos([config.data.videos]), load(run),
            Settings(folder / "predicted", report=True)),
        "sweep": lambda folder: _command(
            sweep.main, "--config=configs/nowhere.py", "--vary=a: seed=1",
            f"--workdir={folder / 'sweep'}"),
        "train": lambda folder: quietly(train, config, folder / "trained"),
    }


NAMES = ("checkpoint", "convert", "convert to torch", "score --json",
         "score --diagnose", "check_data", "cache", "extract", "export",
         "eval --report", "predict --report", "sweep", "train")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_named_and_the_command_goes_on_when_there_is_room(
        name, commands, disk, capsys):
    command = commands[name](disk.path)
    disk.fill()
    with pytest.raises(InputError) as caught:
        command(capsys)
    text = str(caught.value)
    assert str(disk.path) in text and "No space left on device" in text, text
    assert len(text.splitlines()) == 1 and "Traceback" not in text
    left = disk.files()
    assert not [path for path in left if ".tmp" in path or "/." in path
                or path.endswith((".npy", ".safetensors", ".png"))], left
    assert "Traceback" not in "".join(capsys.readouterr())
    if name == "sweep":
        return  # its runs are those of `train`
    disk.free()
    command(capsys)
    assert disk.files()


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder_is_named(name, commands, disk, capsys):
    command = commands[name](disk.path)
    disk.protect()
    with pytest.raises(InputError) as caught:
        command(capsys)
    text = str(caught.value)
    assert str(disk.path) in text and "Read-only file system" in text, text
    assert len(text.splitlines()) == 1
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", [
    "convert", "score --json", "score --diagnose", "check_data"])
def test_files_that_may_not_grow_are_a_full_disk_without_root(
        name, commands, tmp_path, capsys):
    """The limit of a process stands for a full disk."""
    command = commands[name](tmp_path / "output")
    (tmp_path / "output").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError) as caught:
            command(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = str(caught.value)
    assert str(tmp_path / "output") in text and "File too large" in text
    assert not [path for path in (tmp_path / "output").rglob("*.tmp")]
    command(capsys)


def test_a_folder_without_permission_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="Permission denied"):
        atomic_write.write_text(tmp_path / "file", "")
