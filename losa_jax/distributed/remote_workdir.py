"""Work directories in a bucket: --workdir=gs://BUCKET/FOLDER.

Orbax writes checkpoints into the bucket itself. The other files are small but
grow line by line, which a bucket's objects cannot. They are written to a
local copy of the folder, which is copied to the bucket with each checkpoint
and at the end, and fetched from it by a new start.
"""

import logging
import tempfile
from pathlib import Path

from etils import epath

from losa_jax.distributed import processes
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import writing

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
# In the bucket itself; see `workdir_lock`.
LOCK_FILE = "lock.json"

# By local folder; (size, modification time) of each local file as copied.
_remote: dict[Path, epath.Path] = {}
_copied: dict[Path, tuple[int, int]] = {}


def local_folder(workdir: str, *, only_reads: bool = False) -> Path:
    """Returns the folder to write to: `workdir` or a bucket's local copy;
    InputError if the bucket cannot be reached.

    With `only_reads`, which is for --checkpoint, every process fetches the
    files, and the folder must exist.
    """
    flag = "--checkpoint" if only_reads else "--workdir"
    if "://" not in workdir:
        return Path(workdir)
    with writing(Path(tempfile.gettempdir()) / "losa_jax"):
        local = Path(tempfile.mkdtemp(prefix="losa_jax-"))
    try:
        remote = epath.Path(workdir)
        if processes.is_first() and not only_reads:
            remote.mkdir(parents=True, exist_ok=True)
        if processes.is_first() or only_reads:
            _fetch(remote, local)
    except ImportError as error:
        raise InputError(f"{flag}={workdir}: needs the extra gcs: pip "
                         "install -e .[gcs]") from error
    except Exception as error:  # each file system raises types of its own
        raise InputError(
            f"{flag}={workdir}: cannot be read or created ({error}): does "
            "this machine's account have write access?") from error
    _remote[local] = remote
    return local


def _fetch(remote: epath.Path, local: Path) -> None:
    for item in remote.iterdir():
        if item.name == LOCK_FILE:
            continue
        if not item.is_dir():
            item.copy(local / item.name, overwrite=True)
        elif item.name != CHECKPOINTS:
            (local / item.name).mkdir(exist_ok=True)
            _fetch(item, local / item.name)


def remote_of(workdir: Path) -> epath.Path | None:
    """Returns the folder in the bucket; None of a folder on disk."""
    return _remote.get(workdir)


def checkpoints_folder(workdir: Path) -> Path:
    """Returns the folder of a run's checkpoints, on disk or in the bucket."""
    return _remote.get(workdir, workdir.absolute()) / CHECKPOINTS


def fetch(workdir: Path, name: str) -> None:
    """Fetches a file that the first process has copied to the bucket.

    A file that is missing or unreadable is no error: it only saves time.
    """
    if workdir not in _remote or processes.is_first():
        return
    remote = _remote[workdir] / name
    try:
        if remote.exists():
            remote.copy(workdir / name, overwrite=True)
    except Exception as error:  # each file system raises types of its own
        logger.warning("%s was not read: %s", remote, error)


def copy_back(workdir: Path) -> None:
    """Copies changed files to the bucket; only the first process does so.

    A failure is a warning, since the next copy includes the file again.
    """
    if workdir not in _remote or not processes.is_first():
        return
    for path in sorted(workdir.rglob("*")):
        # Temporary files of `atomic_write` may be renamed at any time.
        if ".tmp" in path.suffixes or not path.is_file():
            continue
        target = _remote[workdir] / path.relative_to(workdir).as_posix()
        try:
            state = (path.stat().st_size, path.stat().st_mtime_ns)
            if _copied.get(path) != state:
                target.parent.mkdir(parents=True, exist_ok=True)
                epath.Path(path).copy(target, overwrite=True)
                _copied[path] = state
        except Exception as error:  # each file system raises its own types
            logger.warning("%s was not copied: %s", target, error)
