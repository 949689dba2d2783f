"""Metrics survive a kill: the trace is that of an unbroken run."""

import json

from losa_jax.training.metric_writer import MetricWriter
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


def test_tensorboard_events_are_written(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"loss": 1.0})
    writer.close()
    events = list((tmp_path / "tensorboard").glob("events*"))
    assert len(events) == 1 and events[0].stat().st_size > 50
