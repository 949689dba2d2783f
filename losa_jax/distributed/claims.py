"""Divides work among independent processes that share one folder.

An item belongs to the process that creates its claim, a small file. On disks
and in buckets only one process can create a file. The holder writes its claims
again every `RENEW_SECONDS`. A claim that did not change for `DEAD_SECONDS`,
or whose process ran on this machine and has ended, is abandoned: of the others
one creates the next claim of that item, with a higher number. Only changes are
observed, so the clocks of the machines may differ.

If a process pauses longer than `DEAD_SECONDS` and goes on, its item is done
twice, so results must be equal and written atomically.
"""

import contextlib
import itertools
import json
import logging
import threading
import time
import uuid

from losa_jax.distributed import workdir_lock
from losa_jax.errors import InputError
from losa_jax.utils import storage

logger = logging.getLogger(__name__)

RENEW_SECONDS = workdir_lock.RENEW_SECONDS
DEAD_SECONDS = workdir_lock.DEAD_SECONDS


class Claims:
    """The claims of this process in a folder; a context manager.

    At its end everything is released.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._owner = workdir_lock.owner(token=uuid.uuid4().hex)
        self._renewals = itertools.count()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._held: dict[str, list[str]] = {}  # {item: files to remove}
        # {file: (its text, when it was first seen with that text)}
        self._seen: dict[str, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Claims":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        # A claim that stays is abandoned, which the others notice.
        with contextlib.suppress(Exception):
            for item in [*self._held]:
                self.release(item)

    def take(self, item: str) -> bool:
        """Claims an item; returns False where a living process has it."""
        paths: list[str] = []
        while True:
            paths.append(self._path(item, len(paths)))
            with self._lock:
                if storage.create(paths[-1], self._text()):
                    self._held[item] = paths
                    return True
            if not self._is_abandoned(paths[-1]):
                return False

    def is_held(self, item: str) -> bool:
        """Whether any process has the item, or had it when it died."""
        return storage.read(self._path(item, 0)) is not None

    def release(self, item: str) -> None:
        """Gives an item of this process back."""
        with self._lock:
            # The oldest first: in the other order two processes could get
            # the item.
            for path in self._held.pop(item, ()):
                storage.remove(path)

    def clear(self) -> None:
        """Removes the folder when all work is done."""
        with self._lock, contextlib.suppress(OSError, InputError):
            self._held.clear()
            storage.remove_folder(self._folder)

    def _path(self, item: str, number: int) -> str:
        return f"{self._folder}/{item}.{number}"

    def _text(self) -> str:
        return json.dumps({**self._owner, "renewals": next(self._renewals)})

    def _is_abandoned(self, path: str) -> bool:
        text, now = storage.read(path), time.monotonic()
        if text is None:  # released since
            return False
        if workdir_lock.is_dead_here(text):
            return True
        seen, since = self._seen.setdefault(path, (text, now))
        if seen != text:
            self._seen[path] = text, now
        return seen == text and now - since > DEAD_SECONDS

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with self._lock:
                for paths in self._held.values():
                    try:
                        storage.write(paths[-1], self._text())
                    except Exception as error:  # the next time may succeed
                        logger.warning("%s was not renewed: %s", paths[-1],
                                       error)
