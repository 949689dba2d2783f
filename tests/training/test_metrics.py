"""Metrics after a kill are those of an uninterrupted run."""

import json
import struct

import numpy as np
import pytest
from flax import nnx
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec
from losa_jax.models.ops.params import parameters
from losa_jax.training.metrics import (
    MetricWriter,
    gate_diagnostics,
    memory_diagnostics,
)
from losa_jax.utils.run_files import METRICS_FILE


def _lines(folder):
    return [json.loads(line) for line in
            (folder / METRICS_FILE).read_text().splitlines()]


def test_lines_after_the_checkpoint_are_replaced(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    writer = MetricWriter(tmp_path, 2)
    writer.write(3, {"loss": 30.0})
    writer.close()
    assert _lines(tmp_path) == [{"step": 1, "loss": 1.0},
                                {"step": 2, "loss": 2.0},
                                {"step": 3, "loss": 30.0}]


def test_values_that_are_not_finite_become_null(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"loss": float("nan"), "rate": 1.0})
    writer.close()
    assert _lines(tmp_path) == [{"step": 1, "loss": None, "rate": 1.0}]


def _events(workdir):
    """Returns the events of all files, whose checksums must be right."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            size, = struct.unpack("<Q", content[:8])
            parts = content[:8], content[12:12 + size]
            sums = content[8:12], content[12 + size:16 + size]
            for part, stored in zip(parts, sums, strict=True):
                assert stored == struct.pack("<I", masked_crc32c(part))
            events.append(event_pb2.Event.FromString(parts[1]))
            content = content[16 + size:]
    return events


def test_tensorboard_reads_the_events(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"loss": 1.0})
    writer.write(2, {"loss": 0.5})
    writer.close()
    first, *others = _events(tmp_path)
    assert first.file_version == "brain.Event:2" and first.step == 0
    assert [(event.step, event.summary.value[0].tag,
             event.summary.value[0].simple_value) for event in others] == [
        (1, "loss", 1.0), (2, "loss", 0.5)]


def test_tensorboard_hides_steps_that_are_repeated(tmp_path):
    writer = MetricWriter(tmp_path, 4)
    writer.close()
    first, start = _events(tmp_path)
    assert first.step == start.step == 5
    assert start.session_log.status == event_pb2.SessionLog.START


@pytest.fixture(scope="module")
def tree():
    spec = LosaSpec(in_width=4, width=2, num_taps=2, clip_tokens=2,
                    tap_grid=(1, 1), attention_heads=1)
    return {"losa": parameters(LosaAdapter(spec, rngs=nnx.Rngs(0)))}


def test_gate_diagnostics_equal_hand_computed_values(tree):
    fresh = gate_diagnostics(tree, (3, 7), "none")
    assert set(fresh) == {f"{what}/{span}/block_{block}"
                          for what in ("gate", "added")
                          for span in ("short", "long") for block in (3, 7)}
    assert fresh["gate/short/block_3"] == 1
    # Up-projections start as the zero map.
    assert fresh["added/long/block_7"] == 0

    taps = tree["losa"]["taps"]["short_gate"]
    learned = {"losa": {"taps": {"short_gate": {
        "gate": np.array([[2.0, -2, 0, 0], [0.0, 0, 0, 0]]),
        "up": {**taps["up"], "kernel": np.ones((2, 2, 4))}}}}}
    by_hand = gate_diagnostics(learned, (3, 7), "none")
    assert by_hand["gate/short/block_3"] == 1
    assert by_hand["added/short/block_3"] == pytest.approx(2 ** 0.5)
    assert by_hand["added/short/block_7"] == 0
    assert not any("long" in name for name in by_hand)
    assert gate_diagnostics(learned, (3, 7), "tanh")[
        "gate/short/block_3"] == pytest.approx(np.tanh(2) / 2)
    assert gate_diagnostics(learned, (3, 7), "sigmoid")[
        "gate/short/block_7"] == 0.5


def test_a_run_without_losa_has_no_gates():
    assert gate_diagnostics({"head": {"kernel": np.ones(2)}}, (), "none") == {}


def test_memory_diagnostics_report_this_process():
    assert 0.05 < memory_diagnostics()["host_memory_gib"] < 100
