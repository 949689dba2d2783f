"""Atomic writes: a file or folder gets its name only when it is complete.

A disk that is full or read-only becomes an InputError that names the path.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from losa_jax.errors import InputError

REMEDY = ("make room or choose another folder, then start the same command "
          "again")
# There is no way to read it that does not change it for a moment.
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def writing(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turns errors of writing a file, or into a folder, into an InputError.

    Errors that name a file elsewhere, which was being read, are left alone.

    Raises:
      InputError: the disk is full, the folder is read-only, or the like.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        name = getattr(error, "filename", None)
        folder = path.absolute().parent
        if isinstance(name, (str, os.PathLike)) and not (
                Path(name).absolute().is_relative_to(folder)
                or folder.is_relative_to(Path(name).absolute())):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}): {remedy}") from error


def make_folder(path: Path, remedy: str = REMEDY) -> None:
    """Makes a folder and its parents; InputError where this is impossible."""
    with writing(path, remedy):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path, *, remedy: str = REMEDY) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it at the end.

    Readers see the old file or the new one. Several processes may write the
    same file. After an error the old file stays and the temporary one goes.

    Args:
      path: the target; its folder must exist.
      remedy: what the user should do where the disk is full or not writable.

    Raises:
      InputError: as of `writing`.
    """
    # Short, because `path` may have the longest name that is allowed.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp")
    try:
        with writing(path, remedy):
            yield temporary
            # Some libraries make files that only their owner may read.
            temporary.chmod(0o666 & ~_UMASK)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, remedy: str = REMEDY) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that replaces it at the end.

    Parent folders are made. After an error the old folder stays, and the
    temporary one and new parents go. `remedy` and errors are as of
    `atomic_file`.
    """
    new_parents = [folder for folder in path.parents if not folder.exists()]
    temporary = path.parent  # until it is made
    with writing(path, remedy):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.",
                                              dir=path.parent))
            yield temporary
            for item in (temporary, *temporary.rglob("*")):
                item.chmod((0o777 if item.is_dir() else 0o666) & ~_UMASK)
            _replace_folder(temporary, path)
        finally:
            if temporary != path.parent:
                shutil.rmtree(temporary, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty, or not there
                for folder in new_parents:
                    folder.rmdir()


def refuse_others(folder: Path, what: str, *files: str) -> None:
    """Raises InputError unless a folder may be replaced.

    It may where it does not exist, is empty, or holds nothing but `files`,
    with the first among them; `what` is its description in the message.
    """
    names = ({path.name for path in folder.iterdir()} if folder.is_dir()
             else {folder.name} if folder.exists() else set())
    if names and not (files[0] in names and names <= set(files)):
        raise InputError(f"{folder} exists and is no {what}: choose another "
                         "--output")


def _replace_folder(new: Path, path: Path) -> None:
    # The old folder exists, by another name, until the new one is in place.
    retired = new.with_name(new.name + ".old")
    is_replaced = path.exists()
    if is_replaced:
        os.replace(path, retired)
    try:
        os.replace(new, path)
    except OSError:
        if is_replaced:
            os.replace(retired, path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, see `atomic_file`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically, see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
