"""Files are recognized by their content, whatever their name."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from losa_jax.utils.file_type import misplaced, recognize

LFS = ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\n"
       "size 12345\n")


def _zip(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_", "."),
                             content)
    return file.getvalue()


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("content, title", [
    (b"", "an empty file"),
    (LFS, "a Git LFS pointer"),
    (LFS.replace("\n", "\r\n"), "a Git LFS pointer"),
    ("version https://hawser.github.com/spec/v1\noid sha256:1\nsize 2\n",
     "a Git LFS pointer"),
    ("../.git/annex/objects/9x/Q/SHA256E-s9--a.mp4/a.mp4",
     "a git-annex pointer"),
    ("\n <!DOCTYPE html><html><head><title>\nQuota exceeded</title>",
     'an HTML page ("Quota exceeded")'),
    ("<html lang=en><body>", "an HTML page"),
    ("\ufeff<HTML>", "an HTML page"),
    ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
     "an XML document (an error message of a server?)"),
    (json.dumps({"error": "not found"}), "a JSON document"),
    ("Not Found", 'a text file ("Not Found")'),
    ("Überlänge" * 1000, 'a text file ("' + ("Überlänge" * 9)[:60] + ' ...")'),
    ("No access".encode("utf-16"), 'a text file ("No access")'),
    (pickle.dumps([1, 2]), "a Python pickle, which can run code when it is "
     "loaded"),
    (pickle.dumps({"a": 1}, 0), "a Python pickle, which can run code when it "
     "is loaded"),
    (pickle.dumps(np.zeros(3), 2), "a Python pickle, which can run code when "
     "it is loaded"),
    (_npy(np.zeros(3)), "a NumPy array"),
    (_zip(arr_npy=b"x"), "a NumPy archive (.npz)"),
    (_zip(model__data_pkl=b"x"), "a PyTorch checkpoint"),
    (_zip(model_pth=b"x"), "a zip archive (model.pth)"),
    (b"PK\3\4 and no more", "a damaged zip archive"),
    ((16).to_bytes(8, "little") + b'{"a": 1}        ', "a safetensors file"),
    (b"\x89HDF\r\n\x1a\n...", "an HDF5 file"),
    (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file"),
    (b"\x1f\x8b\x08\0", "a gzip archive"),
    (bytes(100), "a file of zeros (an incomplete copy or download)"),
    (bytes(10**5), "a file of zeros (an incomplete copy or download)"),
])
def test_files_are_recognized(tmp_path, content, title):
    path = tmp_path / "file.dat"
    path.write_bytes(content.encode() if isinstance(content, str)
                     else content)
    assert recognize(path).title == title
    reason = misplaced(path, "a PyTorch", "a checkpoint", "convert it")
    assert reason.startswith(f"{path}: not a checkpoint but {title}: ") != (
        title == "a PyTorch checkpoint")


@pytest.mark.parametrize("content", [
    np.random.default_rng(0).bytes(5000), b"\xff" * 9, b"\x80\x99\x98"])
def test_others_are_not(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert recognize(tmp_path / "file") is None
    assert misplaced(tmp_path / "file", "a video", "a video", "x") == ""
    assert recognize(tmp_path / "none") is None


def test_the_remedy_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text(LFS)
    assert "git lfs pull" in misplaced(
        path, "a video", "a video", "give a video")
    path.write_text("{}")
    assert misplaced(
        path, "a video", "a video", "give a video").endswith(
        "give a video")
