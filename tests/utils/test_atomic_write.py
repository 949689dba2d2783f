"""A reader never sees half a file."""

import pytest

from losa_jax.utils.atomic_write import written_whole


def test_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / f"{'n' * 250}.json"  # as long as names may be
    path.write_text("old")
    with written_whole(path) as one, written_whole(path) as other:
        one.write_text("half")
        other.write_text("other")
        assert path.read_text() == "old"
        one.write_text("one")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(KeyError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
