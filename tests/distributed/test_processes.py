"""Processes connect, exchange values and end together."""

import json
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from losa_jax.data.synthetic import data_set
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
# Stored programs and compiled ones do not meet.
import jax
assert not jax.config.jax_enable_compilation_cache
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


_SHARES = """
import json, os, pathlib, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
number, port, batch_windows = map(int, sys.argv[1:4])
folder = pathlib.Path(sys.argv[4])
from losa_jax.distributed import processes, sharding
processes.start(coordinator=f"127.0.0.1:{port}", num_processes=4,
                process_id=number)
import jax, numpy as np
from configs import common
from losa_jax.data.records import Action, Video
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import examples, readers, sampling
from losa_jax.inference import run_windows
config = common.get_config()
config.window.samples = config.window.tokens = 16
config.window.clip_samples, config.augment.size = 4, 16
videos = []
for path in sorted(folder.glob("*.mp4")):
    info = probe_video(path)
    videos.append(Video(path.stem, info, sampling.video_grid(
        info, config.window), (Action(0.2, 1.5, "move"),)))
reader = readers.FrameReader(config)
windows = examples.TrainWindows(videos, ["move"], config, reader=reader)
mesh = sharding.make_mesh(sharding.mesh_shape(
    8, batch_windows, 4, data=0, clip=0, fsdp=0))
share = sharding.local_share(mesh, batch_windows, 16)

def on_every_device(array):
    return np.asarray(jax.jit(lambda x: x, out_shardings=(
        sharding.replicated(mesh)))(array))

def batches(**which):
    return list(examples.train_batches(
        windows, len(videos), seed=3, batch_windows=batch_windows,
        num_threads=2, num_batches=2, **which))

decoded, whole_decoded = 0, 0
for part, whole in zip(batches(rows=share.rows, samples=share.samples),
                       batches(), strict=True):
    decoded += int(part.pop("decoded_frames").sum())
    whole_decoded += int(whole.pop("decoded_frames").sum())
    part.pop("fault"), whole.pop("fault")
    if number == 3:
        part["readable"][-1] = False
    placed = sharding.put_batch(part, mesh, batch_windows, share)
    for name, array in placed.items():
        got = on_every_device(array)
        if name == "readable":
            assert got.sum() == got.size - len(
                [d for d in mesh.devices[-1].flat
                 if d.process_index == 3]), got
            got = np.ones(batch_windows, bool)
        np.testing.assert_array_equal(got, whole[name], name)

# Test windows: each process reads its part.
every = run_windows.SpreadWindows(videos, reader, config, mesh, batch_windows)
assert every.share == share
count = 0
for batch in every:
    if not batch.inputs:
        continue
    assert batch.inputs["frames"].shape[1] == len(share.samples)
    got = on_every_device(sharding.put_batch(
        batch.inputs, mesh, batch_windows, every.share)["frames"])
    for place, row in zip(every.output_rows, batch.rows):
        if row is not None:
            count += 1
            whole, = (inputs["frames"] for window, inputs in
                      reader.test_windows(videos[row.video_number])
                      if window == row.window)
            np.testing.assert_array_equal(got[place], whole)
assert count > 0
print("SHARE", json.dumps([share.rows, len(share.samples), decoded,
                           whole_decoded]))
processes.finish()
"""


def _run(count, argument, folder, program):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [subprocess.Popen(
        [sys.executable, "-c", program, str(number), str(port),
         str(argument), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for number in range(count)]
    outputs = [one.communicate(timeout=100)[0] for one in started]
    return [one.returncode for one in started], outputs


def test_two_processes_agree_and_fail_together(tmp_path):
    """One cannot write a checkpoint, which would block the other."""
    codes, outputs = _run(2, 1, tmp_path, _PROGRAM)
    assert codes == [1, 1], outputs
    assert (tmp_path / "order").read_text() == "01"
    assert re.search("process 1 ends because process 0 ended: checkpoint .*"
                     "/checkpoints/2 could not be written .no room",
                     outputs[1])
    kept = {path.name for path in (tmp_path / "checkpoints").glob("?")}
    assert kept == {"1"}


def test_a_process_that_notices_a_loss_ends_the_others(tmp_path):
    codes, outputs = _run(2, 0, tmp_path, _LOST)
    assert codes == [processes.EXIT_LOST] * 2, outputs
    for number, output in enumerate(outputs):
        assert output.count(
            f"process {number} of 2 ends: another process was lost (Gloo: "
            "a process is gone)") == 1, output


@pytest.mark.parametrize("batch_windows, rows, samples", [
    (1, [[0]] * 4, 4), (2, [[0], [0], [1], [1]], 8),
    (8, [[0, 1], [2, 3], [4, 5], [6, 7]], 16)])
def test_each_of_four_processes_decodes_what_its_devices_hold(
        tmp_path, batch_windows, rows, samples):
    folder = data_set.render_trimmed_set(tmp_path / "set", num_training=5,
                                         num_testing=0, size=32)
    codes, outputs = _run(4, batch_windows, folder / "videos", _SHARES)
    assert codes == [0] * 4, outputs
    shares = [json.loads(re.search("SHARE (.*)", output)[1])
              for output in outputs]
    assert [share[:2] for share in shares] == [
        [row, samples] for row in rows]
    # Two batches are read. A part that is padding decodes the last frame.
    for _, _, decoded, whole in shares:
        assert decoded <= 2 * len(rows[0]) * samples < 1.2 * whole / 2
    assert sum(share[2] for share in shares) >= shares[0][3]


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
