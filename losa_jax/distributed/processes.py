"""The processes of one run: they start, agree and end together.

There is one process for each host, or for each GPU with Slurm. In a run of
one process these functions do nothing, or return what one process needs.
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from losa_jax.errors import InputError
from losa_jax.utils.interrupt import EXIT_INTERRUPTED

# A process that is silent for so long is lost, and the others end.
HEARTBEAT_TIMEOUT_SECONDS = 30
# The workers of a TPU slice may start minutes apart.
START_TIMEOUT_SECONDS = 300
# One process may evaluate for hours while the others wait.
_WAIT_MS = 7 * 24 * 3600 * 1000
# Longer than any run.
_RUN_MS = 100 * _WAIT_MS
# For the others to finish their own writing after a stop on a signal.
_GRACE_SECONDS = 10
# How long a process that ends waits for the others to end as well.
_LEAVE_MS = 15_000
# How much longer the coordinator lives than the others.
_EXIT_SECONDS = 0.5
EXIT_LOST = 76
# Words of jax's errors about a process that cannot be reached.
_LOSSES = ("Gloo", "NCCL", "UNAVAILABLE", "Connection reset",
           "Connection closed", "heartbeat", "coordination service")
# Keys of jax's key-value store, and the barrier before the end.
_ENDED, _STOP, _LEAVE = (
    "losa_jax/ended", "losa_jax/stop", "losa_jax/leave")

_client: Any = None
_watcher: threading.Thread
_count, _index = 1, 0
# A barrier needs a new name each time; all processes pass them in one order.
_barriers = itertools.count()
# Two threads may notice that the run ends; only one ends the process.
_ending = threading.Lock()


class NotTogether(Exception):
    """The run's processes did not connect; a new start may help."""


def start(*, distributed: str = "auto", coordinator: str = "",
          num_processes: int = 0, process_id: int = -1) -> None:
    """Connects the run's processes; must come before other uses of jax.

    Args:
      distributed: "on" takes missing arguments from the environment (TPU
        pods, Slurm, MPI, Kubernetes with the package `kubernetes`), "auto"
        does so if that shows several processes, "off" never.
      coordinator: HOST:PORT of process 0; "" is missing.
      num_processes: 0 is missing.
      process_id: from 0; -1 is missing.

    Raises:
      InputError: the arguments are incomplete or wrong.
      NotTogether: other processes did not connect in time.
    """
    global _client, _count, _index, _watcher
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if distributed == "off" and any(given):
        raise InputError("--distributed=off: drop it, or --coordinator, "
                         "--num_processes and --process_id")
    if distributed == "auto" and any(given) and not all(given):
        raise InputError(
            "give --coordinator=HOST:PORT, --num_processes and --process_id "
            "together, or --distributed=on to take what is missing from the "
            "environment")
    if distributed == "off" or (
            distributed == "auto" and not any(given)
            and not environment_names_several(os.environ)):
        return
    if all(given):
        if not 0 <= process_id < num_processes:
            raise InputError(f"--process_id={process_id} must be from 0 to "
                             f"--num_processes - 1 = {num_processes - 1}")
        if not coordinator.rpartition(":")[2].isdigit():
            raise InputError(
                f"--coordinator={coordinator}: write HOST:PORT")
        if num_processes == 1:
            return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator or None, num_processes or None,
            process_id if process_id >= 0 else None,
            cluster_detection_method="deactivate" if all(given) else None,
            initialization_timeout=START_TIMEOUT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)
    except ValueError as error:
        raise InputError(
            f"cannot connect: the environment is incomplete ({error}); give "
            "--coordinator=HOST:PORT of process 0, --num_processes and "
            "--process_id") from error
    except RuntimeError as error:
        raise NotTogether(
            f"the run's processes did not find each other within "
            f"{START_TIMEOUT_SECONDS} s ({error}): is --coordinator the "
            "address of process 0, reachable from every host, and were all "
            "of them started?") from error
    # jax has no public access to its key-value store, over which processes
    # exchange messages while a collective operation blocks their devices.
    from jax._src.distributed import global_state
    _client = global_state.client
    _count, _index = global_state.num_processes, global_state.process_id
    _watcher = threading.Thread(target=_watch, daemon=True)
    _watcher.start()
    if jax.default_backend() == "cpu":
        # Of processes that load a stored program and others that compile it,
        # collective operations do not meet: Gloo reports sizes that differ.
        jax.config.update("jax_enable_compilation_cache", False)


def environment_names_several(environment: Mapping[str, str]) -> bool:
    """Returns whether variables show that this is one of several processes.

    Cloud TPU VMs set none of them, so their launcher gives --distributed=on.
    """
    # Set by srun for its steps, by MPI and by GKE.
    sizes = (environment.get(name, "") for name in (
        "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE",
        "MEGASCALE_NUM_SLICES"))
    return (any(size.isdigit() and int(size) > 1 for size in sizes)
            or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
            or "JAX_COORDINATOR_ADDRESS" in environment)


def count() -> int:
    """Returns the number of processes of the run."""
    return _count


def index() -> int:
    """Returns the index of this process."""
    return _index


def is_first() -> bool:
    """Returns whether this process writes what a run writes once."""
    return _index == 0


def quiet_unless_first() -> None:
    """Hides prints and progress bars, not warnings, of other processes."""
    if not is_first():
        # tqdm reads it when it is imported.
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def barrier(name: str) -> None:
    """Waits until every process has called it."""
    if _client is not None:
        _client.wait_at_barrier(
            f"losa_jax/{name}/{next(_barriers)}", _WAIT_MS)


@contextlib.contextmanager
def first_goes_first(name: str) -> Iterator[None]:
    """Runs the block in the first process, then in the others."""
    if not is_first():
        barrier(name)
    yield
    if is_first():
        barrier(name)


def gather(value: Any) -> list[Any]:
    """Returns the value of each process, after a round trip through JSON."""
    if _count == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    # Powers of two: each size is compiled once.
    width = 1 << int(max(sizes) - 1).bit_length()
    rows = multihost_utils.process_allgather(
        np.pad(data, (0, width - len(data))))
    return [json.loads(bytes(row[:size]))
            for row, size in zip(rows, sizes, strict=True)]


def ask_to_stop() -> None:
    """Asks the other processes, which need not be in step, to stop."""
    if _client is not None:
        _client.key_value_set(f"{_STOP}/{_index}", "", allow_overwrite=True)


def asked_to_stop() -> bool:
    """Returns whether any process asked to stop."""
    return _client is not None and bool(_client.key_value_dir_get(_STOP))


def finish() -> None:
    """Ends this process's part in the run, together with the others."""
    if _client is not None:
        barrier("end")
        if is_first():
            _set_ended(0, "")
        # Python's end would abort a thread that is inside of jax.
        _watcher.join(timeout=60)
        jax.distributed.shutdown()


def fail(status: int, message: str) -> None:
    """Ends all processes with this status; the others print the reason.

    Returns only in a run of one process.
    """
    if _client is not None:
        _set_ended(status, message)
        _end(status)


def is_loss(error: BaseException) -> bool:
    """Returns whether an error means that another process is gone."""
    # jax raises some of them as ValueError.
    return _count > 1 and isinstance(
        error, (jax.errors.JaxRuntimeError, ValueError)) and any(
            word in str(error) for word in _LOSSES)


def leave_lost(error: BaseException) -> None:
    """Ends all processes because one of them is gone; does not return.

    The others may wait for it where they cannot notice.
    """
    reason = str(error).splitlines()[0]
    _set_ended(EXIT_LOST, reason)
    _end(EXIT_LOST, _loss(reason))


def _loss(reason: str) -> str:
    return (f"process {_index} of {_count} ends: another process was lost "
            f"({reason}). Start all of them again, with as many as there "
            "are: the run goes on from its last checkpoint")


def _watch() -> None:
    """Ends this process when another one failed."""
    try:
        ended = json.loads(_client.blocking_key_value_get(_ENDED, _RUN_MS))
    except jax.errors.JaxRuntimeError:
        return  # shut down, or the coordinator is gone: jax ends us
    status, reason = ended["status"], ended["message"]
    if ended["process"] == _index or status == 0:
        return
    if status == EXIT_INTERRUPTED:
        time.sleep(_GRACE_SECONDS)
    _end(status, _loss(reason) if status == EXIT_LOST else
         f"process {_index} ends because process {ended['process']} ended: "
         f"{reason}")


def _set_ended(status: int, message: str) -> None:
    """Tells the other processes why this one ends; the first wins."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client.key_value_set(_ENDED, json.dumps(
            {"process": _index, "status": status, "message": message}))


def _end(status: int, message: str = "") -> NoReturn:
    """Ends this process, after the others where they can be reached."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread ends the process
    with contextlib.suppress(ValueError, OSError):
        if message:
            print(message, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client.wait_at_barrier(_LEAVE, _LEAVE_MS)
    if is_first():  # jax aborts the others when the coordinator ends
        time.sleep(_EXIT_SECONDS)
    # sys.exit ends only the calling thread, and jax's exit handlers would
    # wait for processes that are gone.
    os._exit(status)
