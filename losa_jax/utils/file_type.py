"""Recognizes what a file is by its first bytes, whatever its name."""

import codecs
import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

_HEAD_BYTES = 4096
_SHOWN_CHARACTERS = 60
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
          (codecs.BOM_UTF16_BE, "utf-16"))
_AGAIN = "download or copy it again from its source"
# How titles begin of what a server or a version control stores in place of a
# file.
_STAND_INS = ("an HTML", "a Git", "a git")
# (Offset, bytes there, title, remedy).
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\0\x05\x16", "macOS's AppleDouble file (attributes of another "
     "file)", "delete it and take the file without \"._\""),
    (0, b"\x93NUMPY", "a NumPy array", ""),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (512, b"\x89HDF\r\n\x1a\n", "a MATLAB file", ""),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file", ""),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it"),
    (0, b"BZh", "a bzip2 archive", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"PAR1", "a Parquet table", ""),
    (0, b"SQLite format 3\0", "an SQLite database", ""),
    (0, b"\x89PNG\r\n\x1a\n", "an image", ""),
    (0, b"\xff\xd8\xff", "an image", ""),
    (8, b"WEBP", "an image", ""),
    (4, b"ftyp", "a video (MP4, MOV)", ""),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska, WebM)", ""),
    (8, b"AVI ", "a video (AVI)", ""),
)


class FileType(NamedTuple):
    """What a file is, with an article, and what to do ("" if it depends on
    what the file should be)."""

    title: str
    remedy: str = ""


def misplaced(path: Path, accepted: str | tuple[str, ...], wanted: str,
              remedy: str) -> str:
    """Returns what a file is in place of `wanted`, and what to do.

    Args:
      accepted: how the titles of the right types begin, as "a video".
      wanted: the right type, for the message.
      remedy: for files that are sound but of another type.

    Returns:
      "" if the file is of the right type, is not recognized or cannot be
      opened.
    """
    if reason := link_to_nothing(path):
        return reason
    file_type = recognize(path)
    if file_type is None or file_type.title.startswith(accepted):
        return ""
    return (f"{path}: not {wanted} but {file_type.title}: "
            f"{file_type.remedy or remedy}")


def link_to_nothing(path: Path) -> str:
    """Returns the message for a link to a file that is missing, else ""."""
    if not path.is_symlink() or path.exists():
        return ""
    return (f"{path}: is a link to {os.readlink(path)}, which is not there: "
            "copy the file itself, or fetch it (git annex get)")


def stand_in(path: Path) -> str:
    """Returns which page or pointer a server or a version control has put in
    place of a file, and what to do, else ""."""
    file_type = recognize(path)
    if file_type is None or not file_type.title.startswith(_STAND_INS):
        return ""
    return f"{file_type.title}: {file_type.remedy}"


def recognize(path: Path) -> FileType | None:
    """Returns the type of a file; None for any other, or without access."""
    if not path.is_file():  # opening a pipe would wait
        return None
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0, 2)
            num_bytes = file.tell()
            file.seek(max(0, num_bytes - 1))
            last = file.read(1)
    except OSError:
        return None
    if not head:
        return FileType("an empty file", _AGAIN)
    for offset, signature, title, remedy in _SIGNATURES:
        if head.startswith(signature, offset):
            return FileType(title, remedy)
    if head.startswith(b"PK"):
        return _zip_type(path)
    if not any(head) and (len(head) == _HEAD_BYTES or len(head) == num_bytes):
        return FileType("a file of zeros (an incomplete copy or download)",
                        _AGAIN)
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 2**30:
        return FileType("a safetensors file", "")
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" or (
            head[:1] in b"(c" and last == b"." and _is_text_pickle(head)):
        return FileType("a Python pickle, which can run code when it is "
                        "loaded")
    text = _as_text(head)
    return None if text is None else _text_type(text)


def _zip_type(path: Path) -> FileType:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive can raise anything
        return FileType("a damaged zip archive", _AGAIN)
    if any(name.endswith("/data.pkl") for name in names):
        return FileType("a PyTorch checkpoint")
    if any(name.endswith(".npy") for name in names):
        return FileType("a NumPy archive (.npz)")
    return FileType(f"a zip archive ({', '.join(names[:3]) or 'empty'})",
                    "unpack it")


def _is_text_pickle(head: bytes) -> bool:
    """Whether this begins as a pickle of protocol 0; nothing is loaded."""
    try:
        operations = pickletools.genops(head)
        return all(next(operations) is not None for _ in range(3))
    except (ValueError, StopIteration):
        return False


def _as_text(head: bytes) -> str | None:
    encoding = next((encoding for mark, encoding in _MARKS
                     if head.startswith(mark)), "utf-8")
    try:
        # Without `final`, a character cut in two at the end is no error.
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None
    is_text = all(character.isprintable() or character.isspace()
                  for character in text)
    return text if is_text and text else None


def _text_type(text: str) -> FileType:
    start = text.lstrip()
    lower = start.lower()
    if re.match(r"version https?://(git-lfs|git-media|hawser)", lower):
        return FileType(
            "a Git LFS pointer", "run `git lfs pull` in its repository, or "
            "download the file itself")
    if re.match(r"[^\n]*/annex/objects/", start):
        return FileType("a git-annex pointer", "run `git annex get` in its "
                        "repository")
    if re.match(r"<(!doctype html|html|head|body|script|!--)", lower):
        title = re.search(r"<title[^>]*>\s*([^<]+)", start, re.IGNORECASE)
        quoted = f" (\"{_shown(title[1])}\")" if title else ""
        return FileType(
            f"an HTML page{quoted}", "a server sent a page in place of the "
            "file; download it again from its source, logged in if needed")
    if start.startswith("<"):
        return FileType(
            "an XML document (an error message of a server?)", _AGAIN)
    if start[:1] in ("{", "["):
        return FileType("a JSON document")
    return FileType(f"a text file (\"{_shown(start)}\")")


def _shown(text: str) -> str:
    """Returns the first words of a text, in one line."""
    words = " ".join(text.split())
    return (words if len(words) <= _SHOWN_CHARACTERS
            else words[:_SHOWN_CHARACTERS] + " ...")
