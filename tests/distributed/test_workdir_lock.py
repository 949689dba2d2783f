"""Only one training writes into a work directory."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from losa_jax.distributed import remote_workdir, workdir_lock
from losa_jax.errors import InputError

_HOLDER = """
import sys, time
from pathlib import Path
from losa_jax.distributed import workdir_lock
with workdir_lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)],
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_other_process_is_named(holder, tmp_path):
    with pytest.raises(InputError, match=(
            rf"--workdir={tmp_path} is in use by process {holder.pid} on "
            r"\S+, since 20\d\d-.*: wait for its end or stop it, or choose")):
        with workdir_lock.held(tmp_path):
            pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_releases_the_folder(holder, tmp_path, how):
    os.kill(holder.pid, how)
    holder.wait()
    with workdir_lock.held(tmp_path):
        content = json.loads((tmp_path / "lock.json").read_text())
        assert content["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_only_the_first_process_of_a_run_holds_it(
        holder, tmp_path, monkeypatch):
    monkeypatch.setattr(workdir_lock.processes, "is_first", lambda: False)
    with workdir_lock.held(tmp_path):
        pass


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def fail(path, *rest):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(workdir_lock.os, "open", fail)
    with pytest.raises(InputError, match="lock.json: cannot be written "
                                         r"\(Read-only file system\)"):
        with workdir_lock.held(tmp_path):
            pass


@pytest.fixture
def bucket(bucket_objects, monkeypatch):
    """Returns the object of a lock; its holders renew it all the time."""
    monkeypatch.setattr(workdir_lock, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(workdir_lock, "DEAD_SECONDS", 0.5)

    def lock():
        return bucket_objects.get("/data/locked/a/lock.json")
    return lock


def test_a_bucket_is_locked_as_long_as_its_object_is_renewed(bucket):
    first = remote_workdir.local_folder("gs://data/locked/a")
    second = remote_workdir.local_folder("gs://data/locked/a")
    with workdir_lock.held(first):
        assert bucket() is not None
        with pytest.raises(InputError, match=(
                rf"gs://data/locked/a is in use by process {os.getpid()} on")):
            with workdir_lock.held(second):
                pass
    assert bucket() is None
    with workdir_lock.held(second):
        # A stale copy of the lock never comes into the bucket.
        third = remote_workdir.local_folder("gs://data/locked/a")
        assert not list(third.iterdir())


@pytest.mark.parametrize("host", ["another", None])
def test_a_lock_of_a_dead_process_in_a_bucket_is_taken(bucket, host):
    folder = remote_workdir.local_folder("gs://data/locked/a")
    remote = remote_workdir.remote_of(folder)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (remote / "lock.json").write_text(json.dumps({
        "host": host or workdir_lock.socket.gethostname(),
        "pid": process.pid, "since": "yesterday", "token": "x"}))
    with workdir_lock.held(folder):
        assert threading.active_count() > 1
