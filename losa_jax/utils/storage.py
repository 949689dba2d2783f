"""Small files and videos on a disk or in a bucket (gs://BUCKET/PATH).

Paths are strings here, because `pathlib` makes "gs:/" of "gs://".
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import writing

_BUCKET = "gs://"
_CREATE_TRIES = 20


class TransferError(InputError):
    """A bucket's file could not be copied; another attempt may succeed."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket; InputError for other addresses."""
    text = str(path)
    if "://" in text and not text.startswith(_BUCKET):
        raise InputError(f"{text}: name a file or folder of this machine, or "
                         f"{_BUCKET}BUCKET/PATH")
    return text.startswith(_BUCKET)


def create(path: str, text: str) -> bool:
    """Creates a file and its folder; returns False, without any change, where
    it exists. Of several processes one succeeds, also in a bucket."""
    with _named(path), writing(Path(path)):
        try:
            file = _created(path)
        except FileExistsError:
            return False
        try:
            with file:
                file.write(text.encode())
        except FileExistsError:  # of a bucket, at the end of writing
            return False
        except OSError:
            remove(path)
            raise
    return True


def _created(path: str) -> Any:
    folder = os.path.abspath(os.path.dirname(path))
    for _ in range(_CREATE_TRIES - 1):
        # Another process may remove the folder before the file is in it, also
        # while it is made, which reads as a folder that exists.
        try:
            return _files(path).open(path, "xb")
        except FileNotFoundError:
            continue
        except FileExistsError as error:
            if error.filename != folder:
                raise
    return _files(path).open(path, "xb")


def read(path: str) -> str | None:
    """Returns the text of a file, None where there is none."""
    try:
        with _named(path):
            return _files(path).cat_file(path).decode(errors="replace")
    except FileNotFoundError:
        return None


def write(path: str, text: str) -> None:
    """Writes a file and its folder."""
    with _named(path):
        _files(path).pipe_file(path, text.encode())


def remove(path: str) -> None:
    """Removes a file if it is there."""
    with _named(path), contextlib.suppress(FileNotFoundError):
        _files(path).rm_file(path)


def remove_folder(path: str) -> None:
    """Removes a folder with its content if it is there."""
    with _named(path), contextlib.suppress(FileNotFoundError):
        _files(path).rm(path, recursive=True)


def facts(path: str) -> tuple[int, int]:
    """Returns the bytes of a file and when it was modified, in nanoseconds;
    FileNotFoundError where it is missing."""
    if not is_remote(path):
        local = os.stat(path)
        return local.st_size, local.st_mtime_ns
    with _named(path):
        info = _files(path).info(path)
    modified = info.get("mtime") or info.get("created")
    return info["size"], 0 if modified is None else int(
        modified.timestamp() * 1e9)


def fetch(path: str, target: Path) -> None:
    """Copies a bucket's file to this machine; FileNotFoundError where it is
    missing."""
    with _named(path):
        _files(path).get_file(path, str(target))


def store(source: Path, path: str) -> None:
    """Copies a file of this machine to a bucket."""
    with _named(path):
        _files(path).put_file(str(source), path)


def files_below(folder: str) -> list[str]:
    """Returns the paths of all files in a bucket's folder, sorted."""
    with _named(folder):
        names = _files(folder).find(folder)
    return [_BUCKET + name.lstrip("/") for name in sorted(names)]


def _files(path: str) -> Any:
    """Returns the file system of a path."""
    if not is_remote(path):
        return fsspec.filesystem("file", auto_mkdir=True)
    try:
        return fsspec.filesystem("gs")
    except ImportError as error:
        raise InputError(f"{path}: needs the extra gcs: pip install "
                         "'losa_jax[gcs]'") from error


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turns errors of a bucket, of which each client has its own types, into
    TransferError. Errors of a disk and missing files stay."""
    try:
        yield
    except (InputError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise TransferError(f"{path}: the bucket cannot be read or written "
                            f"({error}): does this machine's account have "
                            "access?") from error
