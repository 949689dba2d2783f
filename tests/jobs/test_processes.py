"""A run of several real processes equals a run of one process."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.jobs.flags import flags_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def small(config):
    """Returns a config with a small head and low tIoU thresholds."""
    small = config.copy_and_resolve_references()
    small.adapter.kind = "none"
    small.head.num_levels = small.head.num_stem_blocks = 1
    small.head.num_embedding_convs = small.head.head_layers = 1
    small.train.epochs = small.train.schedule_epochs = 8
    # Long enough that a signal comes before the end, yet few evaluations.
    small.train.evaluate_every_epochs = 4
    small.evaluate.tiou_thresholds = (0.01, 0.1)
    return small


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    # Every start after the first finds its programs compiled.
    return {**os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("jax")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def _start(config, environment, workdir, count, **extra):
    return subprocess.Popen(
        ["bash", str(ROOT / "launch/local_processes.sh"), str(count),
         *flags_of(config), f"--workdir={workdir}"],
        env={**environment, **extra}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _lines(workdir):
    """Returns the complete lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True)
            if line.endswith("\n")]


def _signal_at(step, number, process_id, launcher, workdir):
    """Sends one process a signal once a checkpoint and a step are there.

    A step that this start has made: its first act is a new metrics file.
    """
    path = workdir / "metrics.jsonl"
    old = path.stat().st_ino if path.exists() else None
    while not (path.exists() and path.stat().st_ino != old
               and list((workdir / "checkpoints").glob("[0-9]"))
               and any(line["step"] >= step for line in _lines(workdir))):
        assert launcher.poll() is None, launcher.stdout.read()
        time.sleep(0.02)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children"
                    ).read_text().split()
    for child in children:
        command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if f"--process_id={process_id}" in command:
            os.kill(int(child), number)


def _same_run(workdir, unbroken):
    def trace(folder):
        return [(line["step"], key, line[key]) for line in _lines(folder)
                for key in ("loss", "map") if key in line]

    ours, theirs = trace(workdir), trace(unbroken)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert [row[2] for row in ours] == pytest.approx(
        [row[2] for row in theirs], rel=2e-5)
    for name in ("map.json", "predictions.json"):
        ours, theirs = (json.loads((folder / name).read_text())
                        for folder in (workdir, unbroken))
        if name == "map.json":
            assert ours["average_map"] == pytest.approx(theirs["average_map"])
            assert ours["step"] == theirs["step"]
        else:
            assert list(ours["results"]) == list(theirs["results"])
            for video, rows in theirs["results"].items():
                assert len(ours["results"][video]) == len(rows)
                assert [row["score"] for row in ours["results"][video]] == (
                    pytest.approx([row["score"] for row in rows], rel=1e-3))


def test_a_run_of_several_processes_that_is_stopped_equals_a_run_of_one(
        small, environment, tmp_path):
    """Kills one of four processes, stops two by SIGTERM, ends with one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    launcher = _start(small, environment, whole, 1)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    assert json.loads((whole / "map.json").read_text())["average_map"] > 0

    launcher = _start(small, environment, broken, 4)
    _signal_at(3, signal.SIGKILL, 3, launcher, broken)
    killed = time.monotonic()
    output, _ = launcher.communicate(timeout=240)
    assert time.monotonic() - killed < 60, output
    assert launcher.returncode >= 128, output
    assert output.count("another process was lost") == 3, output

    launcher = _start(small, environment, broken, 2)
    _signal_at(5, signal.SIGTERM, 1, launcher, broken)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 75, output
    assert output.count("start the same command again to continue") == 2, (
        output)
    assert output.count("resumed ") == 1, output  # the first one speaks
    assert 5 <= _lines(broken)[-1]["step"] < 16

    launcher = _start(small, environment, broken, 1)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    _same_run(broken, whole)
