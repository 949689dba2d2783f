"""A lock on a work directory: only one training writes into it.

On disk the lock is the operating system's, which releases it when the process
ends in any way. A bucket has no locks: there an object is renewed again and
again, and is free when it was not for a while. The first process of a run
holds it for all of them.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from etils import epath

from losa_jax.distributed import processes, remote_workdir
from losa_jax.distributed.remote_workdir import LOCK_FILE
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import writing

logger = logging.getLogger(__name__)

# How often the object in a bucket is renewed, and after how long without that
# its process counts as dead.
RENEW_SECONDS, DEAD_SECONDS = 10.0, 40.0


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the lock of a work directory, which must exist.

    Raises:
      InputError: names the process that holds it.
    """
    if not processes.is_first():
        yield
        return
    remote = remote_workdir.remote_of(workdir)
    with _on_disk(workdir) if remote is None else _in_bucket(remote):
        yield


def owner(**more: str) -> dict[str, Any]:
    """Returns what names this process in a lock."""
    return {"host": socket.gethostname(), "pid_namespace": _pid_namespace(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"), **more}


def _pid_namespace() -> str:
    """Returns what differs between containers of one host name."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""


def _refuse(folder: Path | epath.Path, text: str) -> NoReturn:
    """Raises InputError that names the holder of a lock."""
    who = "another process"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        facts = json.loads(text)
        who = (f"process {facts['pid']} on {facts['host']}, since "
               f"{facts['since']}")
    raise InputError(
        f"--workdir={folder} is in use by {who}: wait for its end or stop "
        f"it, or choose another --workdir")


@contextlib.contextmanager
def _on_disk(workdir: Path) -> Iterator[None]:
    path = workdir / LOCK_FILE
    with writing(path):
        file = _locked(workdir, path)
    try:
        with contextlib.suppress(OSError):  # only information
            os.ftruncate(file, 0)
            os.write(file, json.dumps(owner()).encode() + b"\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _locked(workdir: Path, path: Path) -> int:
    """Returns the open and locked file, which lies at `path`."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(file, 1000, 0).decode(errors="replace")
            os.close(file)
            _refuse(workdir, text)
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s): do not "
                           "start a second training there", workdir, error)
            return file
        # The holder before may have deleted it since it was opened.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)


@contextlib.contextmanager
def _in_bucket(folder: epath.Path) -> Iterator[None]:
    path, token = folder / LOCK_FILE, uuid.uuid4().hex
    mine = owner(token=token)

    def renew() -> None:
        path.write_text(json.dumps({**mine, "renewed": time.time()}))

    _wait_until_dead(folder, path)
    renew()
    ended = threading.Event()
    # Of two that came at the same moment the later one has it.
    time.sleep(min(1.0, RENEW_SECONDS))
    if token not in (text := _read(path)):
        _refuse(folder, text)

    def renew_until_end() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                renew()
            except Exception as error:  # each file system has its own types
                logger.warning("%s was not renewed: %s", path, error)

    thread = threading.Thread(target=renew_until_end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            path.unlink()


def _wait_until_dead(folder: epath.Path, path: epath.Path) -> None:
    """Returns when nothing renews a lock; InputError where something does."""
    text = _read(path)
    if not text or is_dead_here(text):
        return
    print(f"{folder} is locked: waiting whether that process still lives "
          f"(at most {DEAD_SECONDS:.0f} s)")
    end = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < end:
        time.sleep(RENEW_SECONDS / 10)
        if (now := _read(path)) != text and now:
            _refuse(folder, now)


def is_dead_here(text: str) -> bool:
    """Whether the process of a lock ran on this machine and has ended."""
    try:
        facts = json.loads(text)
        if (facts["host"], facts["pid_namespace"]) != (
                socket.gethostname(), _pid_namespace()):
            return False
        os.kill(facts["pid"], 0)
        # One that was killed keeps its number until its parent asks.
        stat = Path(f"/proc/{facts['pid']}/stat").read_text("latin-1")
        return stat.rpartition(")")[2].split()[0] in "ZX"
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        pass
    return False


def _read(path: epath.Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
