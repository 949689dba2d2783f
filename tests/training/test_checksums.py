"""Damage of a checkpoint is reported with the file, wherever it is."""

import shutil
import threading
import time

import jax
import numpy as np
import pytest
from etils import epath

from losa_jax.errors import InputError
from losa_jax.training import checksums
from losa_jax.training.checkpoint import BEST, LAST, Checkpoints

# Orbax writes the time of the end and this file after the checksums; nothing
# is read from them.
_UNREAD = {"commit_success.txt"}


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """Returns the work directory of a run with two checkpoints."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir)
    state = tiny_model().state
    checkpoints.save(1, state, {})
    checkpoints.set_evaluated(1, 0.5)
    checkpoints.save(2, state, {})
    checkpoints.close()
    return workdir


@pytest.fixture
def run(saved, tmp_path):
    """Returns a copy of the work directory under another name."""
    return shutil.copytree(saved, tmp_path / "renamed")


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _load(workdir, state, which=LAST):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(which, state)[0]
    finally:
        checkpoints.close()


def test_a_flipped_byte_of_any_file_is_reported(saved, run, tiny_model):
    state = tiny_model().state
    rng = np.random.default_rng(0)
    folder = run / "checkpoints" / "2"
    names = [path.relative_to(folder) for path in _files(folder)]
    assert len(names) > 12 and any("ocdbt" in str(name) for name in names)
    want = _load(run, state)
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for place in rng.integers(len(content), size=4):
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            try:
                got = _load(run, state)
            except InputError as error:
                text = str(error)
                assert f"checkpoints/2/{name}" in text or (
                    name.name == checksums.FILE), text
                assert "damaged" in text or "incomplete" in text, text
                assert "copy the run again, or delete" in text
            else:
                assert str(name) in _UNREAD | {"_CHECKPOINT_METADATA"}, name
                jax.tree.map(np.testing.assert_array_equal, got, want)
        path.write_bytes(content)
    _load(run, state)


def test_metadata_that_orbax_writes_late_are_awaited(run):
    """A checksum of half-written metadata would condemn a sound checkpoint."""
    folder = epath.Path(run / "checkpoints" / "2")
    path = folder / "_CHECKPOINT_METADATA"
    late = path.read_text()

    def write_late():
        for text in ('{"custom_metadata": null}', "", late[:40], late):
            time.sleep(0.05)
            path.write_text(text)

    path.unlink()
    writer = threading.Thread(target=write_late)
    writer.start()
    checksums.write(folder)
    writer.join()
    assert checksums.damage(folder, with_arrays=True) == ""


def test_a_half_copied_checkpoint_names_the_missing_file(run, tiny_model):
    state = tiny_model().state
    folder = run / "checkpoints" / "2"
    for path in _files(folder):
        content = path.read_bytes()
        for left in (None, content[:len(content) // 2]):
            if str(path.relative_to(folder)) in _UNREAD:
                continue
            if left is None:
                path.unlink()
            else:
                path.write_bytes(left)
            with pytest.raises(InputError) as caught:
                _load(run, state)
            text = str(caught.value)
            assert str(path) in text, (path, text)
            assert "incomplete" in text or left is not None
            assert "does not fit" not in text and len(text) < 600
            path.write_bytes(content)
    _load(run, state)


@pytest.mark.parametrize("content, message", [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n",
     "is a Git LFS pointer: run `git lfs pull`"),
    ("<!DOCTYPE html><title>Sign in</title>", "is an HTML page")])
def test_pointers_and_pages_are_named_in_place_of_any_file(run, tiny_model,
                                                           content, message):
    state = tiny_model().state
    folder = run / "checkpoints" / "2"
    for path in _files(folder):
        if str(path.relative_to(folder)) in _UNREAD:
            continue
        before = path.read_bytes()
        path.write_text(content)
        with pytest.raises(InputError, match=f"incomplete: {path} {message}"):
            _load(run, state)
        path.write_bytes(before)
    _load(run, state)


def test_the_damaged_checkpoint_can_be_deleted(run, tiny_model):
    state = tiny_model().state
    (run / "checkpoints/2/state/manifest.ocdbt").unlink()
    with pytest.raises(InputError, match="incomplete.*2/state/manifest.ocdbt"):
        _load(run, state, BEST)
    shutil.rmtree(run / "checkpoints/2")
    _load(run, state, LAST)


def test_checkpoints_of_versions_without_checksums_are_read(run, tiny_model):
    state = tiny_model().state
    for step in ("1", "2"):
        folder = run / "checkpoints" / step
        (folder / checksums.FILE).unlink()
        path = folder / "_CHECKPOINT_METADATA"
        path.write_text(path.read_text().replace('"checksums": true', ""))
    _load(run, state)
    (folder / "facts/metadata").unlink()
    with pytest.raises(InputError, match="incomplete.*facts/metadata"):
        _load(run, state)
