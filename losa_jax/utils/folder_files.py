"""The files of a folder by name, and the nearest ones to a missing name."""

import difflib
import os
import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from losa_jax.errors import InputError

# A search compares a name with every other: only the first missing names of a
# folder are searched for.
_MAX_SEARCHES = 20
_MAX_SHOWN = 3
# Entries of subfolders that are looked at.
_MAX_ENTRIES = 100_000


def composed(name: str) -> str:
    """Returns a name in Unicode NFC: macOS stores file names in NFD."""
    return unicodedata.normalize("NFC", name)


def require_file_name(video_id: str) -> None:
    """InputError for an id with a separator, which could lead outside its
    folder."""
    if Path(video_id).name != video_id:
        raise InputError(f"video id {video_id!r} is no plain file name: "
                         "rename the video in the annotations")


class FolderFiles:
    """The content of a folder, without that of its subfolders."""

    def __init__(self, folder: Path, what: str):
        """Lists a folder; InputError, which names `what` ("folder of videos;
        set --flag"), if it cannot be listed."""
        self.folder = folder
        self.files: list[str] = []
        self.subfolders: list[str] = []
        # Links to nothing, devices and the like.
        self.special: list[str] = []
        self._by_name: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._searches_left = _MAX_SEARCHES
        self._below: list[str] | None = None
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    (self.subfolders if entry.is_dir()
                     else self.files if entry.is_file()
                     else self.special).append(entry.name)
        except OSError as error:
            reason = ("no such" if isinstance(error, FileNotFoundError)
                      else f"cannot be listed ({error.strerror}); not a")
            raise InputError(f"{folder}: {reason} {what}") from error
        for name in (*self.files, *self.special):
            for key in {composed(name), composed(os.path.splitext(name)[0])}:
                self._by_name.setdefault(key, []).append(name)

    def named(self, name: str) -> list[str]:
        """Returns the files of this name with any ending or none."""
        return self._by_name.get(composed(name), [])

    def nearest(self, name: str) -> list[str]:
        """Returns a few files whose name is like one that is missing, also
        those in subfolders: other case, separators or endings, a part of the
        name, or nearly the same letters."""
        with self._lock:
            if not self._searches_left:
                return []
            self._searches_left -= 1
            if self._below is None:
                self._below = _files_below(self.folder, self.subfolders)
        wanted = _letters(name)
        files = [file for file in (*self.files, *self._below)
                 if file[0] != "."]
        names = {file: _letters(os.path.basename(file)) for file in files}
        stems = {file: _letters(_stem(file)) for file in files}
        exact = [file for file in files
                 if wanted and wanted in (names[file], stems[file])
                 or composed(os.path.basename(file)).startswith(f"{name}.")]
        parts = [file for file in files
                 if len(wanted) > 2 and wanted in names[file] or (
                     len(stems[file]) > 2 and stems[file] in wanted)]
        close = difflib.get_close_matches(
            wanted, set(stems.values()), _MAX_SHOWN, cutoff=0.75)
        similar = [file for stem in close for file in files
                   if stems[file] == stem]
        return (exact or similar or parts)[:_MAX_SHOWN]


def quoted(names: Iterable[str]) -> str:
    """Returns file names for a message, those in no encoding escaped."""
    return ", ".join(name.encode(errors="backslashreplace").decode()
                     for name in names)


def _stem(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _letters(name: str) -> str:
    """Returns what remains of a name without case and separators."""
    return "".join(filter(str.isalnum, unicodedata.normalize(
        "NFKC", name).casefold()))


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
