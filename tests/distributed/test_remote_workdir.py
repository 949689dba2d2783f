"""Work directories in a bucket, replaced by a file system in memory."""

import pytest

from losa_jax.distributed import remote_workdir
from losa_jax.errors import InputError


def test_a_new_start_fetches_the_files_of_the_bucket(bucket_objects):
    first = remote_workdir.local_folder("gs://data/runs/a")
    (first / "tensorboard").mkdir()
    (first / "tensorboard/events").write_bytes(b"\0\1")
    with (first / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1}\n')
    remote_workdir.copy_back(first)
    events = bucket_objects["/data/runs/a/tensorboard/events"]
    assert events.getvalue() == b"\0\1"
    with (first / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2}\n')
    remote_workdir.copy_back(first)
    checkpoints = remote_workdir.checkpoints_folder(first)
    assert str(checkpoints) == "gs://data/runs/a/checkpoints"
    (checkpoints / "last").mkdir(parents=True)
    (checkpoints / "last/large").write_bytes(b"x")

    second = remote_workdir.local_folder("gs://data/runs/a")
    assert second != first
    assert (second / "metrics.jsonl").read_text().count("step") == 2
    assert (second / "tensorboard/events").read_bytes() == b"\0\1"
    # Checkpoints stay in the bucket.
    assert not (second / "checkpoints").exists()


def test_another_process_fetches_a_file_of_the_first(
        bucket_objects, monkeypatch):
    first = remote_workdir.local_folder("gs://data/runs/b")
    (first / "probed.json").write_text("{}")
    (first / "half.json.tmp").write_text("{")
    remote_workdir.copy_back(first)
    remote_workdir.fetch(first, "probed.json")  # the first process has it
    monkeypatch.setattr(remote_workdir.processes, "is_first", lambda: False)
    other = remote_workdir.local_folder("gs://data/runs/b")
    assert other != first and not list(other.iterdir())
    remote_workdir.fetch(other, "probed.json")
    remote_workdir.fetch(other, "nothing.json")
    remote_workdir.fetch(other, "half.json.tmp")
    assert [path.name for path in other.iterdir()] == ["probed.json"]


def test_a_folder_on_disk_is_used_itself(tmp_path):
    assert remote_workdir.local_folder(str(tmp_path)) == tmp_path
    assert remote_workdir.checkpoints_folder(
        tmp_path) == tmp_path / "checkpoints"
    remote_workdir.copy_back(tmp_path)
    remote_workdir.fetch(tmp_path, "probed.json")


def test_an_unknown_address_is_refused():
    with pytest.raises(InputError, match="--workdir=ftp://x/y"):
        remote_workdir.local_folder("ftp://x/y")


def test_every_process_reads_a_checkpoint(bucket_objects, monkeypatch):
    first = remote_workdir.local_folder("gs://data/runs/c")
    (first / "config.json").write_text("{}")
    remote_workdir.copy_back(first)
    monkeypatch.setattr(remote_workdir.processes, "is_first", lambda: False)
    read = remote_workdir.local_folder("gs://data/runs/c", only_reads=True)
    assert (read / "config.json").read_text() == "{}"
    with pytest.raises(InputError, match="--checkpoint=gs://data/none: cannot"):
        remote_workdir.local_folder("gs://data/none", only_reads=True)
