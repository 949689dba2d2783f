"""Fetches checkpoints of the Hugging Face hub by their name, OWNER/NAME.

Only the files that conversion reads are fetched, into the hub's own cache
(`HF_HOME`). No code of a repository is executed.
"""

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import (
    HfApi,
    ModelInfo,
    constants,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from losa_jax.errors import InputError, listed
from losa_jax.utils.atomic_write import writing
from losa_jax.weights.checkpoint_file import FOLDER_FILES

# Endings of single files, the preferred first.
SUFFIXES = (".safetensors", ".npz", ".pth", ".pth.tar", ".pt", ".ckpt", ".bin")
_ROOM = "make room, or set HF_HOME to a folder on another disk"
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def download(name: str, revision: str | None = None
             ) -> tuple[Path, dict[str, str]]:
    """Fetches a checkpoint; prints its commit, license and size before.

    The copy in the cache is taken, and this is printed, where the hub cannot
    be reached or `HF_HUB_OFFLINE` is set.

    Args:
      name: OWNER/NAME of a model's repository.
      revision: a branch, tag or commit; None is the branch `main`.

    Returns:
      what `open_checkpoint` takes, and facts for the converted folder:
      `source`, OWNER/NAME@COMMIT, and `license` where one is stated.

    Raises:
      InputError: no such repository or revision, no access, no network and no
        copy in the cache, no or several checkpoints, or a full disk.
    """
    with writing(Path(constants.HF_HUB_CACHE), _ROOM), _explained(
            name, revision):
        try:
            info = HfApi().model_info(name, revision=revision,
                                      files_metadata=True,
                                      timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except (httpx2.TransportError, OfflineModeIsEnabled,
                HfHubHTTPError) as error:
            if (isinstance(error, HfHubHTTPError)
                    and error.response.status_code < 500):
                raise
            return _from_cache(name, revision, error)
        except HFValidationError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{constants.ENDPOINT} does not answer as the Hugging Face hub "
                f"does ({error!r}): check HF_ENDPOINT and whether your network "
                "asks you to log in") from error
        return _from_hub(name, revision, info)


def choose_files(name: str, files: Collection[str]) -> list[str]:
    """Returns the files to fetch: the config, and at the end the weights.

    The order of preference is `model.safetensors`, whole or in parts with an
    index, which is then the last file; `pytorch_model.bin`, likewise; and the
    single file with the first of SUFFIXES that occurs, in any folder.

    Raises:
      InputError: no such file, or several.
    """
    for title in FOLDER_FILES:
        stem, suffix = title.rsplit(".", 1)
        parts = sorted(file for file in files if re.fullmatch(
            rf"{stem}-\d+-of-\d+\.{suffix}", file))
        index = f"{title}.index.json"
        if title in files:
            chosen = [title]
        elif index in files and parts and len(parts) == int(
                parts[0].removesuffix(f".{suffix}").rpartition("-")[2]):
            chosen = [*parts, index]
        else:
            continue
        break
    else:
        chosen = next((matches for suffix in SUFFIXES if (matches := sorted(
            file for file in files if file.endswith(suffix)))), [])
        if len(chosen) > 1:
            raise InputError(
                f"{name}: holds several checkpoints: fetch the one you want "
                f"with `hf download {name} FILE`, and convert the file whose "
                f"path this prints:{listed(chosen)}")
        if not chosen:
            others = ", ".join(sorted(files)[:8]) or "no file"
            raise InputError(f"{name}: holds no weights that can be converted "
                             f"({', '.join(SUFFIXES)}), but {others}: name "
                             "another repository")
    config = str(PurePosixPath(chosen[-1]).parent / "config.json")
    return [*([config] if config in files else []), *chosen]


def _from_hub(name: str, revision: str | None, info: ModelInfo
              ) -> tuple[Path, dict[str, str]]:
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files, commit = choose_files(name, sizes), str(info.sha)
    card = info.card_data
    license = (card.license_name or card.license) if card else None
    total = sum(sizes[file] for file in files)
    missing = sum(sizes[file] for file in files if not isinstance(
        try_to_load_from_cache(name, file, revision=commit), str))
    print(f"{name}: commit {commit}, license "
          f"{license or 'not stated'}; {', '.join(files)}: "
          f"{total / 2**20:,.1f} MiB, {missing / 2**20:,.1f} MiB to download",
          flush=True)
    _check_room(name, missing)
    # One after the other in this thread, so that a signal stops them at once.
    # By the revision's name, so that the cache knows its commit offline.
    paths = [Path(hf_hub_download(name, file, revision=revision))
             for file in files]
    if any(commit not in path.parts for path in paths):
        raise InputError(f"{name}: has changed while it was fetched: start the "
                         "same command again")
    facts = {"source": f"{name}@{commit}"}
    return _opened(paths[-1]), facts | ({"license": license} if license else {})


def _from_cache(name: str, revision: str | None, error: Exception
                ) -> tuple[Path, dict[str, str]]:
    reason = ("HF_HUB_OFFLINE is set"
              if isinstance(error, OfflineModeIsEnabled) else
              f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})")
    try:
        folder = Path(snapshot_download(name, revision=revision,
                                        local_files_only=True))
    except IncompleteSnapshotError as incomplete:
        # Files that are not fetched here are missing: `choose_files` decides.
        folder = Path(incomplete.snapshot_path)
    except LocalEntryNotFoundError as absent:
        what = f"revision {revision} of it" if revision else "it"
        raise InputError(
            f"{name}: no such file or folder, and as a name of the Hugging "
            f"Face hub it cannot be fetched: {reason}, and the cache "
            f"{constants.HF_HUB_CACHE} does not hold {what}") from absent
    cached = [path.relative_to(folder).as_posix() for path in folder.rglob("*")
              if path.is_file()]
    try:
        files = choose_files(name, cached)
    except InputError as problem:
        raise InputError(f"{problem}\nThis is the copy in the cache, "
                         f"{folder}, because {reason}") from problem
    print(f"{name}: commit {folder.name} from the cache, because {reason}")
    return _opened(folder / files[-1]), {"source": f"{name}@{folder.name}"}


def _opened(weights: Path) -> Path:
    """Returns the file of weights, or the folder of an index."""
    return weights.parent if weights.suffix == ".json" else weights


def _check_room(name: str, missing: int) -> None:
    """Raises InputError unless the cache's disk has so many bytes free."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    disk = next(folder for folder in (cache, *cache.parents)
                if folder.exists())
    free = shutil.disk_usage(disk).free
    if missing > free:
        raise InputError(
            f"{name}: needs {missing / 2**20:,.1f} MiB in {cache}, whose disk "
            f"has {free / 2**20:,.1f} MiB free: {_ROOM}")


@contextlib.contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Turns the errors of huggingface_hub into InputError."""
    page = f"{constants.ENDPOINT}/{name}"
    try:
        yield
    except GatedRepoError as error:
        raise InputError(f"{name}: is gated, and you have no access yet: "
                         f"accept its terms at {page}, and {_LOG_IN}"
                         ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{name}: {_why_unknown(name)}") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{name}: has no revision {revision}: give --revision "
                         f"a branch, tag or commit of {page}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = (f"{_LOG_IN}, with a valid token" if status in (401, 403)
                  else "start the same command again later")
        raise InputError(f"{name}: {constants.ENDPOINT} answers with status "
                         f"{status} ({_first_line(error)}): {remedy}"
                         ) from error
    except HFValidationError as error:
        raise InputError(f"{name}: no such file or folder, and no name of the "
                         f"Hugging Face hub ({_first_line(error)}): check the "
                         "path") from error
    except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{name}: the connection was lost ("
            f"{_first_line(error.__cause__ or error)}): start the same command "
            "again; complete files are not fetched again") from error


def _why_unknown(name: str) -> str:
    try:
        HfApi().dataset_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (httpx2.HTTPError, OfflineModeIsEnabled):
        return ("no such file or folder, and no model of "
                f"{constants.ENDPOINT} that you may see: check the name; if "
                f"the model is private, {_LOG_IN}")
    return (f"is a data set ({constants.ENDPOINT}/datasets/{name}), not a "
            "model: name a model")


def _first_line(error: BaseException) -> str:
    """Returns the message of the server, or the error's own first line."""
    message = getattr(error, "server_message", None) or str(error)
    return message.strip().split("\n")[0] or type(error).__name__
