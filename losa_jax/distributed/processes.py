"""The processes of one run: started together, agreeing, ending together.

One process a host (a GPU with Slurm), each running the same program on its
own devices. A run of one process needs none of this: every function here then
does nothing, or the plain thing.
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from losa_jax.errors import InputError

# A process that is silent for so long is lost, and the others end.
HEARTBEAT_TIMEOUT_SECONDS = 30
# For the others to come up: a slice's workers may start minutes apart.
START_TIMEOUT_SECONDS = 300
# One process may render, probe or evaluate for hours while others wait.
_WAIT_MS = 7 * 24 * 3600 * 1000
_ENDED, _STOP = "losa_jax/ended", "losa_jax/stop"
# For others to hear why this one fails; they end anyway, if less clearly.
_HEARING_MS = 5000
# An agreed stop ends everywhere by itself, when everything is written.
_GRACE_SECONDS = 10
# Between saying that one leaves and being gone.
_EXIT_SECONDS = 0.5
EXIT_INTERRUPTED, EXIT_LOST = 75, 76
# How jax says that it does not reach another process.
_LOSSES = ("Gloo", "NCCL", "UNAVAILABLE", "Connection reset",
           "Connection closed", "heartbeat", "coordination service")

_client: Any = None
_watcher: threading.Thread
_count, _index = 1, 0
# A barrier's name serves once; all processes pass them in one order.
_barriers = itertools.count()
_going_first = False
# Two threads may hear of a loss, one speaks.
_saying = threading.Lock()


class NotTogether(Exception):
    """Other processes of the run did not come; a new start may help."""


def start(*, distributed: str = "auto", coordinator: str = "",
          num_processes: int = 0, process_id: int = -1) -> None:
    """Joins the run's other processes. Before anything else uses jax.

    Args:
      distributed: "on" takes what is not given from the environment (TPU
        pods, Slurm, MPI, Kubernetes with the package `kubernetes`), "auto"
        does so where it shows several processes, "off" never.
      coordinator: HOST:PORT of process 0.
      num_processes: of the run; 0 is not given.
      process_id: from 0; -1 is not given.

    Raises:
      InputError: given in part or wrongly.
      NotTogether: the others did not come.
    """
    global _client, _count, _index, _watcher
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if distributed == "off":
        if any(given):
            raise InputError("--distributed=off goes with none of "
                             "--coordinator, --num_processes, --process_id")
        return
    if distributed == "auto" and not any(given) and not (
            environment_names_several(os.environ)):
        return
    if distributed == "auto" and any(given) and not all(given):
        raise InputError(
            "give --coordinator=HOST:PORT, --num_processes and --process_id "
            "together, or --distributed=on to take what is missing from the "
            "environment")
    if all(given):
        _check_given(coordinator, num_processes, process_id)
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
            f"--distributed=on: the environment does not tell all ({error}); "
            "give --coordinator=HOST:PORT of process 0, --num_processes and "
            "--process_id") from error
    except RuntimeError as error:
        raise NotTogether(
            f"the run's processes did not find each other within "
            f"{START_TIMEOUT_SECONDS} s ({error}): is --coordinator the "
            "address of process 0, reachable from every host, and were all "
            "of them started?") from error
    from jax._src import distributed as state  # no public way to the client
    _client = state.global_state.client
    _count = state.global_state.num_processes
    _index = state.global_state.process_id
    _watcher = threading.Thread(target=_watch, daemon=True)
    _watcher.start()


def _check_given(coordinator: str, num_processes: int, process_id: int
                 ) -> None:
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process_id={process_id} must be from 0 to "
                         f"--num_processes - 1 = {num_processes - 1}")
    if not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator={coordinator}: write HOST:PORT")


def environment_names_several(environment: Any) -> bool:
    """Whether variables say that this is one process of several.

    Cloud TPU VMs set none (they ask a metadata server): their launcher says
    --distributed=on.
    """
    # Of an srun step; a batch script itself has SLURM_NTASKS too.
    steps = environment.get("SLURM_STEP_NUM_TASKS", "1")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "")
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    ranks = environment.get("OMPI_COMM_WORLD_SIZE", "1")
    return (any(text.isdigit() and int(text) > 1
                for text in (steps, slices, ranks)) or "," in workers
            or "JAX_COORDINATOR_ADDRESS" in environment)


def count() -> int:
    """Processes of the run."""
    return _count


def index() -> int:
    """This one's number."""
    return _index


def is_first() -> bool:
    """Whether this process writes what a run writes once."""
    return _index == 0


def quiet_unless_first() -> None:
    """One process reports: no prints and bars from others, only warnings."""
    if not is_first():
        # tqdm reads it when it is imported.
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if _client is not None:
        _client.wait_at_barrier(
            f"losa_jax/{name}/{next(_barriers)}", _WAIT_MS)


@contextlib.contextmanager
def first_goes_first(name: str) -> Iterator[None]:
    """The first process does it alone; then the others, who find it done.

    Inside of another one nobody waits: the others are not there.
    """
    global _going_first
    if _going_first:
        yield
        return
    if not is_first():
        barrier(name)
    _going_first = True
    try:
        yield
    finally:
        _going_first = False
    if is_first():
        barrier(name)


def gather(value: Any) -> list[Any]:
    """What each process has, by its number; through JSON and back."""
    if _count == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    # Few sizes, each of which is compiled once.
    room = 1 << int(max(sizes) - 1).bit_length()
    rows = multihost_utils.process_allgather(
        np.pad(data, (0, room - len(data))))
    return [json.loads(bytes(row[:size]))
            for row, size in zip(rows, sizes, strict=True)]


def from_first(value: float) -> float:
    """The first process's value, where a last digit must not part them."""
    if _count == 1:
        return value
    return gather(value)[0]


def stop_reached(step: int) -> bool:
    """Whether all processes stop after this step; called at every one.

    A signal to any process becomes a step that none has passed.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def ask_to_stop() -> None:
    """Asks processes that work each at their own pace to stop."""
    if _client is not None:
        _client.key_value_set(f"{_STOP}/{_index}", "", allow_overwrite=True)


def asked_to_stop() -> bool:
    """Whether any process asked."""
    return _client is not None and bool(_client.key_value_dir_get(_STOP))


def finish() -> None:
    """Leaves together with the others, all well."""
    if _client is not None:
        barrier("end")
        if is_first():
            _client.key_value_set(_ENDED, json.dumps(
                {"process": 0, "status": 0, "message": ""}))
        # A thread inside of jax when Python ends would abort it.
        _watcher.join(timeout=60)
        jax.distributed.shutdown()


def fail(status: int, message: str) -> None:
    """Ends this process, and the others with the same status and the reason.

    Does nothing in a run of one process. Otherwise it does not return: the
    usual way out would wait for the others, who wait for this one.
    """
    if _client is None:
        return
    with contextlib.suppress(Exception):  # the others may be gone
        _client.key_value_set(f"losa_jax/heard/{_index}", "",
                              allow_overwrite=True)
        _client.key_value_set(_ENDED, json.dumps(
            {"process": _index, "status": status, "message": message}))
        for other in range(_count):
            if other != _index:
                _client.blocking_key_value_get(f"losa_jax/heard/{other}",
                                               _HEARING_MS)
    _leave(status)


def is_loss(error: BaseException) -> bool:
    """Whether an error means that another process is gone."""
    # Some come as ValueError with the same words.
    kinds = jax.errors.JaxRuntimeError, ValueError
    return _count > 1 and isinstance(error, kinds) and (
        any(word in str(error) for word in _LOSSES))


def leave_lost(error: BaseException) -> None:
    """Ends this process because another one is gone, and the others, who may
    wait for it where they cannot notice; does not return."""
    reason = str(error).splitlines()[0]
    with contextlib.suppress(Exception):  # the first who notices says so
        _client.key_value_set(_ENDED, json.dumps(
            {"process": _index, "status": EXIT_LOST, "message": reason}))
    _say_lost(reason)


def _say_lost(reason: str) -> None:
    if not _saying.acquire(blocking=False):
        threading.Event().wait()  # the other thread ends the process
    print(f"process {_index} of {_count} ends: another process was lost "
          f"({reason}). Start all of them again, with as many as there are: "
          "the run goes on from its last checkpoint", file=sys.stderr)
    _leave(EXIT_LOST)


def _leave(status: int) -> None:
    with contextlib.suppress(ValueError, OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if _client is not None:
        _be_last_if_first()
    os._exit(status)


def _be_last_if_first() -> None:
    """The coordinator leaves last: jax aborts those who lose it."""
    if not is_first():
        with contextlib.suppress(Exception):  # it may be gone itself
            _client.key_value_set(f"losa_jax/gone/{_index}", "",
                                  allow_overwrite=True)
        return
    for other in range(1, _count):
        with contextlib.suppress(Exception):
            _client.blocking_key_value_get(f"losa_jax/gone/{other}",
                                           1000 * _GRACE_SECONDS)
    time.sleep(_EXIT_SECONDS)


def _watch() -> None:
    """Ends this process when another one failed."""
    while True:
        try:
            text = _client.blocking_key_value_get(_ENDED, 60_000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                continue
            return  # shut down, or the coordinator is gone: jax ends us
        break
    ended = json.loads(text)
    if ended["process"] == _index or ended["status"] == 0:
        return
    if ended["status"] == EXIT_LOST:
        _say_lost(ended["message"])
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client.key_value_set(f"losa_jax/heard/{_index}", "",
                              allow_overwrite=True)
    if ended["status"] == EXIT_INTERRUPTED:
        time.sleep(_GRACE_SECONDS)
    print(f"process {_index} ends because process {ended['process']} ended: "
          f"{ended['message']}", file=sys.stderr)
    _leave(ended["status"])
