"""The files of a folder by name, and the nearest ones to a missing name."""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.utils.names import nearest
from losa_jax.utils.text_files import nfc

# A search compares a name with every other: only the first missing names of a
# folder are searched for.
_MAX_SEARCHES = 20
# Entries of subfolders that are looked at.
_MAX_ENTRIES = 100_000


def require_file_name(video_id: str) -> None:
    """InputError for an id with a separator, which could lead outside its
    folder."""
    if Path(video_id).name != video_id:
        raise InputError(
            f"video id {video_id!r} is no plain file name: rename the video "
            f"in the annotations to {Path(video_id).name!r}, with its file in "
            "the folder itself")


def require_path_inside(video_id: str) -> None:
    """InputError for an id that could lead outside its folder."""
    parts = video_id.split("/")
    if "\\" in video_id or any(part in ("", ".", "..") for part in parts):
        raise InputError(
            f"video id {video_id!r} is no path inside a folder of videos: "
            f"rename the video in the annotations to {Path(video_id).name!r}")


class FolderFiles:
    """The content of a folder; subfolders are searched by `below` alone."""

    def __init__(self, folder: Path, what: str, key: str):
        """Lists a folder; InputError if it cannot be listed.

        `what` it is ("folder of videos") and the key of the configuration
        that names it are for messages.
        """
        self.folder, self._key = folder, key
        self.files: list[str] = []
        self.subfolders: list[str] = []
        # Links to nothing, devices and the like.
        self.special: list[str] = []
        self._by_name: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._searches_left = _MAX_SEARCHES
        self._below: list[str] | None = None
        self._by_name_below: dict[str, list[str]] | None = None
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    self._list_of(entry).append(entry.name)
        except OSError as error:
            reason = ("no such" if isinstance(error, FileNotFoundError)
                      else f"cannot be listed ({error.strerror}); not a")
            raise InputError(f"{folder}: {reason} {what}; set --{key}=FOLDER"
                             ) from error
        for name in (*self.files, *self.special):
            for key in {nfc(name), nfc(os.path.splitext(name)[0])}:
                self._by_name.setdefault(key, []).append(name)

    def _list_of(self, entry: os.DirEntry[str]) -> list[str]:
        try:
            return (self.subfolders if entry.is_dir()
                    else self.files if entry.is_file() else self.special)
        except OSError:  # a link that leads to itself
            return self.special

    def named(self, name: str) -> list[str]:
        """Returns the files of this name with any ending or none."""
        return self._by_name.get(nfc(name), [])

    def below(self, name: str) -> list[str]:
        """Returns the files in subfolders, relative to the folder, whose path
        ends with this name, with any ending or none."""
        parts = nfc(name).split("/")
        with self._lock:
            if self._by_name_below is None:
                self._by_name_below = {}
                for path in self._files_below():
                    file = os.path.basename(path)
                    for key in {nfc(file), nfc(os.path.splitext(file)[0])}:
                        self._by_name_below.setdefault(key, []).append(path)
            folders = [""] + parts[:-1]
            return [path for path in self._by_name_below.get(parts[-1], [])
                    if f"/{nfc(os.path.dirname(path))}".replace(
                        os.sep, "/").endswith("/".join(folders))]

    def _files_below(self) -> list[str]:
        if self._below is None:
            self._below = _files_below(self.folder, self.subfolders)
        return self._below

    def nearest(self, name: str) -> list[str]:
        """Returns a few files whose name is like one that is missing, also
        those in subfolders: other case, separators or endings, a part of the
        name, or nearly the same letters."""
        with self._lock:
            if not self._searches_left:
                return []
            self._searches_left -= 1
            below = self._files_below()
        return nearest(name, {
            file: _beginnings(os.path.basename(file))
            for file in (*self.files, *below) if file[0] != "."})

    def hints(self, near: Sequence[str]) -> list[str]:
        """Returns what to say of the nearest files (see `nearest`)."""
        hints = [f"the nearest there: {quoted(near)}"] if near else []
        if near and (subfolder := os.path.dirname(near[0])):
            hints.append(
                "subfolders are not searched: set "
                f"--{self._key}={quoted([str(self.folder / subfolder)])}, or "
                "move or link all files into one folder")
        return hints


def quoted(names: Iterable[str]) -> str:
    """Returns file names for a message, those in no encoding escaped."""
    return ", ".join(name.encode(errors="backslashreplace").decode()
                     for name in names)


def _beginnings(name: str) -> list[str]:
    """Returns a file name, and it without its last endings."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _files_below(folder: Path, subfolders: list[str]) -> list[str]:
    """Returns relative paths of files in subfolders, hidden ones left out."""
    paths: list[str] = []
    for subfolder in subfolders:
        for root, folders, files in os.walk(folder / subfolder):
            folders[:] = sorted(one for one in folders if one[0] != ".")
            relative = os.path.relpath(root, folder)
            paths += [os.path.join(relative, file) for file in sorted(files)
                      if file[0] != "."]
            if len(paths) > _MAX_ENTRIES:
                return paths
    return paths
