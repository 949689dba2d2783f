"""Atomic writes: a file or folder gets its name only when it is complete."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from losa_jax.errors import InputError


@contextlib.contextmanager
def atomic_file(path: Path, *, remedy: str = "") -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it at the end.

    Readers see the old file or the new one. Several processes may write the
    same file. After an error the old file stays and the temporary one goes.

    Args:
      path: the target; its folder must exist.
      remedy: what the user should do where the disk is full or not writable.

    Raises:
      InputError: with a remedy, in place of an OSError.
    """
    # Short, because `path` may have the longest name that is allowed.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp")
    try:
        with _explained(path, remedy):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, remedy: str = "") -> Iterator[Path]:
    """Yields a temporary folder beside `path` that replaces it at the end.

    Parent folders are made. After an error the old folder stays and the new
    ones go. `remedy` is as of `atomic_file`.
    """
    with _explained(path, remedy):
        parents = [one for one in path.parents if not one.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.",
                                          dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp's folders are private
            _replace_folder(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for parent in parents:
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise


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


@contextlib.contextmanager
def _explained(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not remedy:
            raise
        raise InputError(
            f"{path}: cannot be written ({error}): {remedy}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, see `atomic_file`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically, see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
