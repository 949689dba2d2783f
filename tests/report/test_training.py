"""The page of a run, whatever state the run is in."""

import json
import re

import pytest

from losa_jax.errors import InputError
from losa_jax.report.__main__ import main
from losa_jax.report.training import read_metrics, write_training_page

SCORES = {
    "class_names": ["a<b>", "c"], "tiou_thresholds": [0.5, 0.75],
    "average_precision": [[0.5, 0.25], [None, None]],
    "map_per_threshold": [0.5, 0.25], "average_map": 0.375,
    "actions_per_class": [3, 0], "predictions_per_class": [1234, 5],
    "num_actions": 3, "num_predictions": 1239, "num_videos": 2}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run<1>"
    folder.mkdir()
    lines = [{"step": step, "loss": 4.0 / step, "learning_rate": 1e-3,
              "strange": 7.0} for step in range(1, 21)]
    for step, score in ((10, 30.0), (20, 25.5)):
        lines.append({"step": step, "map": score, "gate/short/block_11": 1.2,
                      "gate/short/block_2": 0.9, "added/short/block_2": 0.1,
                      "added/short/block_11": 0.2, "host_memory_gib": 3.0})
    lines.append({"step": 20, "loss": None})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The run writes right now.
    (folder / "metrics.jsonl").write_text(text + '{"step": 21, "lo')
    return folder


def test_half_a_line_and_nan_are_passed_over(run):
    series = read_metrics(run / "metrics.jsonl")
    assert len(series["loss"]) == 20 and series["loss"][-1] == (20.0, 0.2)
    assert series["map"] == [(10.0, 30.0), (20.0, 25.5)]


def test_all_that_was_logged_is_drawn(run, capsys):
    assert main([str(run)]) == 0
    assert "training.html" in capsys.readouterr().out
    page = (run / "training.html").read_text()
    titles = re.findall(r"<figcaption><h3>(.*?)</h3>", page)
    assert titles == [
        "Loss", "Average mAP, %", "Learning rate", "Peak memory, GiB",
        "strange", "Short-range gates", "What the short range adds",
        "What each block adds, at the end"]
    assert "highest 30 at step 10" in page and "30.00 %" in page
    # Blocks in the order of the backbone.
    assert page.index("block 2 <b>0.9") < page.index("block 11 <b>1.2")
    assert "run&lt;1&gt;" in page and "run<1>" not in page


def test_what_else_the_folder_holds_is_told(run, tmp_path):
    (run / "map.json").write_text(json.dumps(SCORES))
    (run / "cost.json").write_text(json.dumps(
        {"trained_parameters": 498031, "step_temporary_bytes": 3 << 20}))
    (run / "config.json").write_text(json.dumps(
        {"name": "quick", "seed": 3, "adapter": {"kind": "losa"},
         "head": {"width": 64}}))
    page = write_training_page(run, tmp_path / "out.html").read_text()
    assert "a&lt;b&gt;" in page and ">37.50</td>" in page
    assert "498,031" in page and "3 MiB" in page
    assert "adapter losa" in page and "head.width" in page
    (run / "map.json").write_text("{")
    with pytest.raises(InputError, match="map.json.*delete it"):
        write_training_page(run)


def test_a_folder_without_a_run_is_said(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "metrics.jsonl" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").write_text("")
    assert main([str(tmp_path)]) == 1
    assert "holds no metric yet" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 1
    with pytest.raises(SystemExit) as caught:
        main(["a", "b", "--output=c"])
    assert caught.value.code == 2
