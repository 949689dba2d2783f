"""Processes connect, exchange values and end together."""

import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from losa_jax.distributed import processes, sharding
from losa_jax.errors import InputError

_PROGRAM = """
import pathlib, sys
from losa_jax.distributed import processes
folder = pathlib.Path(sys.argv[4])
number, port, fails = map(int, sys.argv[1:4])
processes.start(coordinator=f"127.0.0.1:{port}", num_processes=2,
                process_id=number)
assert (processes.count(), processes.index()) == (2, number)
assert processes.gather({"mine": [number] * (1 + 40 * number)}) == [
    {"mine": [0]}, {"mine": [1] * 41}]
assert processes.gather(0.1 + number)[0] == 0.1
with processes.first_goes_first("write"):
    with open(folder / "order", "a") as file:
        file.write(str(number))

import os, time
import jax, numpy as np
from losa_jax.distributed import sharding
from losa_jax.training import checkpoint
from losa_jax.errors import InputError
mesh = sharding.make_mesh((jax.device_count(), 1, 1))
state = sharding.put({"a": np.arange(4.0)}, {"a": sharding.replicated(mesh)})
checkpoints = checkpoint.Checkpoints(folder, only_writer=True)
checkpoints.save(1, state, {"number": 0})
checkpoints.set_evaluated(1, 0.5)
assert checkpoints.latest_step() == 1
if fails and number == 0:
    def rename(*_, **__):
        raise OSError("no room")
    os.rename = rename
checkpoints.save(2, state, {})
try:
    for _ in range(100 * (number == 0)):
        checkpoints.check()
        time.sleep(0.1)
except InputError as error:
    processes.fail(1, str(error))
processes.barrier("others wait here")
processes.finish()
"""


_LOST = """
import sys, threading
from losa_jax.distributed import processes
number, port = map(int, sys.argv[1:3])
processes.start(coordinator=f"127.0.0.1:{port}", num_processes=2,
                process_id=number)
processes.barrier("both are here")
if number == 1:
    processes.leave_lost(RuntimeError("Gloo: a process is gone"))
threading.Event().wait()  # in a collective that never ends
"""


def _run_two(fails, folder, program=_PROGRAM):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [subprocess.Popen(
        [sys.executable, "-c", program, str(number), str(port), str(fails),
         str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for number in range(2)]
    outputs = [one.communicate(timeout=100)[0] for one in started]
    return [one.returncode for one in started], outputs


def test_two_processes_agree_and_fail_together(tmp_path):
    """One cannot write a checkpoint, which would block the other."""
    codes, outputs = _run_two(1, tmp_path)
    assert codes == [1, 1], outputs
    assert (tmp_path / "order").read_text() == "01"
    assert re.search("process 1 ends because process 0 ended: checkpoint .*"
                     "/checkpoints/2 could not be written .no room",
                     outputs[1])
    kept = {path.name for path in (tmp_path / "checkpoints").glob("?")}
    assert kept == {"1"}


def test_a_process_that_notices_a_loss_ends_the_others(tmp_path):
    codes, outputs = _run_two(0, tmp_path, _LOST)
    assert codes == [processes.EXIT_LOST] * 2, outputs
    for number, output in enumerate(outputs):
        assert output.count(
            f"process {number} of 2 ends: another process was lost (Gloo: "
            "a process is gone)") == 1, output


@pytest.mark.parametrize("wrong, message", [
    (dict(coordinator="host:1"), "give --coordinator=HOST:PORT, --num"),
    (dict(coordinator="host", num_processes=2, process_id=0), "HOST:PORT"),
    (dict(coordinator="host:1", num_processes=2, process_id=2),
     "from 0 to --num_processes - 1 = 1"),
    (dict(distributed="off", process_id=0), "--distributed=off"),
])
def test_incomplete_flags_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        processes.start(**wrong)
    assert processes.count() == 1


@pytest.mark.parametrize("environment, several", [
    ({}, False),
    # A batch script outside of srun is one process.
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, False),
    ({"SLURM_STEP_NUM_TASKS": "8"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, True),
    ({"MEGASCALE_NUM_SLICES": "2"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
])
def test_environments_of_several_processes_are_recognized(
        environment, several):
    assert processes.environment_names_several(environment) == several


def test_a_run_of_one_process_needs_no_others():
    assert processes.gather({"a": 1}) == [{"a": 1}]
    assert processes.is_first() and not processes.asked_to_stop()
    processes.barrier("one process")
    processes.finish()


@pytest.mark.parametrize("shape", [(2, 4, 1), (1, 8, 1), (4, 1, 2)])
def test_put_batch_returns_the_batch(shape):
    mesh = sharding.make_mesh(shape)
    batch = {"frames": np.arange(4 * 16).reshape(4, 16),
             "labels": np.arange(4)}
    assert sharding.local_rows(mesh, 4) == (0, 1, 2, 3)
    placed = sharding.put_batch(batch, mesh, 4)
    for name, array in batch.items():
        np.testing.assert_array_equal(placed[name], array)
