"""Malicious pickles do not run code in the reader of PyTorch's files."""

import datetime
import pathlib
import pickle
import pickletools
import timeit
import zipfile

import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.weights.torch_pickle import load_torch_zip


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info)
                   for info in archive.infolist()}
    return entries, next(n for n in entries if n.endswith("data.pkl"))


def _write(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_calls_that_are_on_no_list_are_refused(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "attack.pth"
    call = _Call(timeit.timeit, f"open({str(marker)!r}, 'w')")
    _write(path, {"x/data.pkl": pickle.dumps({"module": {}, "x": call})})
    with pytest.raises(InputError, match="timeit.timeit.*refused"):
        load_torch_zip(path)
    assert not marker.exists()


@pytest.mark.torch
def test_a_pickle_cannot_point_a_tensor_to_another_file(tmp_path):
    torch = pytest.importorskip("torch")
    path, other = tmp_path / "attack.pth", tmp_path / "other.pth"
    torch.save({"w": torch.ones(3)}, path)
    torch.save({"w": torch.full((3,), 7.0)}, other)
    entries, key = _pickle_of(path)
    text = entries[key]
    # Behind the rebuilt tensor: BUILD with {"path": other}.
    end = 1 + [place for op, _, place in pickletools.genops(text)
               if op.name == "REDUCE"][-1]

    def string(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    entries[key] = (text[:end] + b"}" + string("path") + string(str(other))
                    + b"sb" + text[end:])
    _write(path, entries)
    with pytest.raises(InputError, match="alters a tensor"):
        load_torch_zip(path)


@pytest.mark.torch
def test_negative_strides_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "attack.pth"
    torch.save({"w": torch.ones(5, 77)}, path)
    entries, key = _pickle_of(path)
    # Strides (77, 1): the first becomes -77 in a two-byte integer.
    assert entries[key].count(b"K\x4dK\x01\x86") == 1
    entries[key] = entries[key].replace(
        b"K\x4dK\x01\x86", b"J\xb3\xff\xff\xffK\x01\x86")
    _write(path, entries)
    with pytest.raises(InputError, match="makes no sense"):
        load_torch_zip(path)


@pytest.mark.torch
def test_harmless_calls_beside_the_weights_are_ignored(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "train.pth"
    torch.save({"model": {"w": torch.ones(2)}, "empty": b"", "bytes": b"ab",
                "array": bytearray(b"x"), "slice": slice(1, 2),
                "complex": 1j, "when": datetime.datetime(2020, 1, 1),
                "folder": pathlib.Path("runs"), "best": np.float64(3.0)},
               path)
    content = load_torch_zip(path)
    np.testing.assert_array_equal(content["model"]["w"].read(), [1, 1])
