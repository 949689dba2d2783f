"""Work directories in a bucket: --workdir=gs://BUCKET/FOLDER.

Orbax writes checkpoints there by itself. Everything else that a run writes
is small but grows line by line, which objects in a bucket cannot: it is
written into a local twin of the folder and copied over with each checkpoint
and at the end. What the bucket holds is fetched first, so a run that lost its
machine goes on with its logs and metrics as of its last checkpoint.
"""

import logging
import tempfile
from pathlib import Path

from etils import epath

from losa_jax.distributed import processes
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"

# Local twins and their folders in buckets; what of a twin has been copied.
_remote: dict[Path, epath.Path] = {}
_copied: dict[Path, tuple[int, int]] = {}


def local_folder(workdir: str) -> Path:
    """Where a run writes: the folder itself, or the twin of one in a bucket.

    Raises:
      InputError: the bucket cannot be reached.
    """
    if "://" not in workdir:
        return Path(workdir)
    twin = Path(tempfile.mkdtemp(prefix="losa_jax-"))
    try:
        remote = epath.Path(workdir)
        if processes.is_first():
            remote.mkdir(parents=True, exist_ok=True)
            _fetch(remote, twin)
    except ImportError as error:
        raise InputError(f"--workdir={workdir}: needs the extra gcs: pip "
                         "install -e .[gcs]") from error
    except Exception as error:  # of several libraries, of many kinds
        raise InputError(
            f"--workdir={workdir}: cannot be read or made ({error}); may "
            "this machine's account write there?") from error
    _remote[twin] = remote
    return twin


def _fetch(remote: epath.Path, local: Path) -> None:
    for item in remote.iterdir():
        if item.is_dir():
            if item.name != CHECKPOINTS:
                (local / item.name).mkdir(exist_ok=True)
                _fetch(item, local / item.name)
        else:
            item.copy(local / item.name, overwrite=True)


def checkpoints_folder(workdir: Path) -> Path:
    """Of a run: on disk, or in the bucket."""
    if workdir in _remote:
        return _remote[workdir] / CHECKPOINTS
    return workdir.absolute() / CHECKPOINTS


def fetch(workdir: Path, name: str) -> None:
    """A file of the bucket into the twin of a process that is not the first.

    That it is not there, or cannot be read, costs time at most.
    """
    if workdir not in _remote or processes.is_first():
        return
    try:
        source = _remote[workdir] / name
        if source.exists():
            source.copy(workdir / name, overwrite=True)
    except Exception as error:  # of several libraries, of many kinds
        logger.warning("%s was not read: %s", source, error)


def copy_back(workdir: Path) -> None:
    """What changed in a twin, to its bucket; by the run's first process.

    A failure is only a warning: the next copy holds it, too.
    """
    if workdir not in _remote or not processes.is_first():
        return
    for path in sorted(workdir.rglob("*")):
        # The run goes on meanwhile: it may have renamed a temporary file.
        if path.suffix == ".tmp" or not path.is_file():
            continue
        target = _remote[workdir] / path.relative_to(workdir).as_posix()
        try:
            facts = path.stat()
            state = (facts.st_size, facts.st_mtime_ns)
            if _copied.get(path) == state:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(path).copy(target, overwrite=True)
        except Exception as error:  # of several libraries, of many kinds
            logger.warning("%s was not copied: %s", target, error)
        else:
            _copied[path] = state
