"""Finds the videos that a user names: files, folders, lists, a bucket."""

import collections
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from losa_jax.data.video.folder import (
    video_id_of,
    videos_below,
    warn_left_out,
)
from losa_jax.errors import InputError, listed
from losa_jax.jobs.prediction_files import RESERVED, STDIN, Request
from losa_jax.utils import storage
from losa_jax.utils.atomic_write import writing
from losa_jax.utils.file_type import link_to_nothing
from losa_jax.utils.names import VIDEO_ENDINGS
from losa_jax.utils.text_files import read_lines

# A source of this name is a list of sources, one a line.
LIST_ENDING = ".txt"


class Sources(NamedTuple):
    """What to predict on: see `find_videos`."""

    requests: list[Request]
    failures: dict[str, str]  # {source: why nothing is predicted on it}
    reads_stdin: bool


def find_videos(sources: Sequence[str]) -> Sources:
    """Lists the video files of all sources, each once, with a unique id.

    The id is the first of these that no other file may have, in any case: the
    name without its suffix, the name, folder and name, the whole path.

    Args:
      sources: video files, folders of them (with subfolders), text files
        (.txt) with one of these a line, or "-". All but "-" may be in a
        bucket, gs://BUCKET/PATH.

    Raises:
      InputError: a folder cannot be listed, or there is nothing to predict
        on.
    """
    # {the same in any spelling: as given}; of a bucket, the address.
    places: dict[Path | str, Path | str] = {}
    failures: dict[str, str] = {}
    for source in sources:
        if source == STDIN:
            continue
        lines = [(source, "")]
        if source.lower().endswith(LIST_ENDING) and not Path(source).is_dir():
            try:
                lines = _lines(source)
            except InputError as error:
                failures[source] = str(error)
                continue
        for line, where in lines:
            try:
                for place in _videos(line):
                    places.setdefault(_key(place), place)
            except InputError as error:
                failures.setdefault(line, f"{where}{error}")
    reads_stdin = STDIN in sources
    if not places and not reads_stdin:
        reasons = [*failures.values()]
        raise InputError(reasons[0] if len(reasons) == 1 else
                         f"nothing to predict on:{listed(reasons)}")
    names = _video_ids([*places.values()])
    return Sources([
        Request(name, None if isinstance(place, str) else place, str(place))
        for name, place in zip(names, places.values(), strict=True)
    ], failures, reads_stdin)


def _lines(source: str) -> list[tuple[str, str]]:
    """Returns (line, where it is) of a list of sources."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(source)
        if storage.is_remote(source):
            path = Path(scratch) / path.name
            with contextlib.suppress(FileNotFoundError):  # reading says so
                storage.fetch(source, path)
        try:
            lines = read_lines(path)
        except InputError as error:
            raise InputError(
                str(error).replace(str(path), source)) from error
    if not lines:
        raise InputError(f"{source}: the list is empty: write the path of a "
                         "video or a folder in each line")
    return [(line, f"{source}, line {number}: ") for number, line in lines]


def _videos(source: str) -> list[Path] | list[str]:
    """Returns the videos of a file or folder; addresses of a bucket's."""
    if storage.is_remote(source):
        # An object is looked for when it is copied. One without the ending
        # of a video is a folder.
        if _ending(source) in VIDEO_ENDINGS:
            return [source]
        below = storage.files_below(source)
        urls = [url for url in below if _ending(url) in VIDEO_ENDINGS]
        if len(urls) < len(below):
            warn_left_out(Path(PurePosixPath(source)), {
                "other endings than those of videos": [
                    url for url in below if url not in {*urls}]})
        if not urls:
            raise InputError(f"{source}: the bucket holds no video there: "
                             "give a video or a folder of videos")
        return urls
    path = Path(source)
    if not source:
        raise InputError("an empty name: name a video or a folder")
    if path.is_dir():
        files, left_out = videos_below(path)
        warn_left_out(path, left_out)
        if not files:
            raise InputError(f"{path}: the folder holds no video: give video "
                             "files, or folders of them")
        return files
    if path.exists():
        return [path]
    raise InputError(link_to_nothing(path)
                     or f"{path}: no such file: check the path")


def _ending(url: str) -> str:
    return PurePosixPath(url).suffix.lower()


def _key(place: Path | str) -> Path | str:
    """Returns one path for all spellings of a file; links to files, which may
    have names of their own, stay."""
    return (place if isinstance(place, str)
            else place.parent.resolve() / place.name)


def _video_ids(places: Sequence[Path | str]) -> list[str]:
    def choices(number: int, place: Path | str) -> list[str]:
        whole = (Path("/", place.partition("://")[2])
                 if isinstance(place, str) else place.absolute())
        named = whole if isinstance(place, str) else place
        return list(dict.fromkeys((
            video_id_of(named), named.name, "_".join(named.parts[-2:]),
            "_".join(whole.parts[1:]), f"video_{number}")))

    names = [choices(*numbered) for numbered in enumerate(places)]
    # Some file systems ignore case.
    counts = collections.Counter(
        name.casefold() for some in (*names, RESERVED) for name in some)
    return [next(name for name in some if counts[name.casefold()] == 1)
            for some in names]


@contextlib.contextmanager
def spooled(stream: BinaryIO, folder: Path) -> Iterator[Path]:
    """Copies a pipe to a file: most containers need seeking."""
    with contextlib.ExitStack() as stack:
        with writing(folder / "stdin"):
            file = stack.enter_context(tempfile.NamedTemporaryFile(
                dir=folder, prefix=".stdin-", suffix=".part"))
            shutil.copyfileobj(stream, file, 2**20)
            file.flush()
        yield Path(file.name)
