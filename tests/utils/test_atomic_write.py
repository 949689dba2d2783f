"""Atomic writes: a reader never sees half a file or half a folder."""

import subprocess
import sys

import pytest

from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import (
    atomic_file,
    atomic_folder,
    make_folder,
    write_bytes,
    write_text,
    writing,
)


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / f"{'n' * 250}.json"  # as long as names may be
    path.write_text("old")
    with atomic_file(path) as one, atomic_file(path) as other:
        one.write_text("half")
        other.write_text("other")
        assert path.read_text() == "old"
        one.write_text("one")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    with pytest.raises(InputError), atomic_file(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_text(tmp_path / "text", "ä\r\n")
    write_bytes(tmp_path / "bytes", b"\xff")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\r\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff"


def test_a_remedy_turns_an_os_error_into_a_message_with_the_path(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InputError, match=rf"{path}: .*No space.*: free some"
                       ), atomic_file(path, remedy="free some") as temporary:
        temporary.write_text("half")
        raise OSError("No space left on device")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"/x: cannot be written .*: go"
                       ), atomic_folder(path / "sub" / "x", remedy="go"):
        pass


@pytest.mark.parametrize("old", ["nothing", "a folder"])
def test_a_folder_replaces_what_was_there_when_complete(tmp_path, old):
    path = tmp_path / "made" / "folder"
    if old == "a folder":
        path.mkdir(parents=True)
        (path / "old").write_text("old")
    with pytest.raises(KeyError), atomic_folder(path) as temporary:
        raise KeyError
    # What was there stays, and nothing is left beside it.
    if old == "a folder":
        assert list(path.parent.iterdir()) == [path]
    else:
        assert not path.parent.exists()
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert not (path / "new").exists()
    assert [one.name for one in path.iterdir()] == ["new"]
    assert list(path.parent.iterdir()) == [path]


def test_files_are_readable_by_those_whom_the_umask_allows(tmp_path):
    """Safetensors and mkdtemp make files and folders for their owner only."""
    code = """
import os, sys
from pathlib import Path
os.umask(0o027)
import numpy as np
from safetensors.numpy import save_file
from losa_jax.utils.atomic_write import atomic_file, atomic_folder
folder = Path(sys.argv[1])
arrays = {"a": np.zeros(3)}
with atomic_file(folder / "one.safetensors") as path:
    save_file(arrays, path)
with atomic_folder(folder / "many") as path:
    (path / "sub").mkdir()
    save_file(arrays, path / "sub" / "two.safetensors")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert {path.name: oct(path.stat().st_mode & 0o777)
            for path in tmp_path.rglob("*")} == {
        "one.safetensors": "0o640", "two.safetensors": "0o640",
        "many": "0o750", "sub": "0o750"}


def test_only_errors_of_the_path_itself_become_messages_about_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/sub: cannot be written "
                       r"\(Not a directory\): make room or"):
        make_folder(tmp_path / "file" / "sub")
    with pytest.raises(FileNotFoundError), writing(tmp_path / "output"):
        open("/nowhere/source")
