"""The check of accelerators, on a CPU with a tiny model."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accelerator
from benchmarks.common.device_parity import shared_detections
from benchmarks.common.device_speed import peak_flops
from losa_jax.detection.segments import Segments

GPU = {"platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "count": 1,
       "jax": "0", "peak_flops": 989e12}
FINE = {"losa, float32": {"errors": {"loss": 1e-6}, "detections": 1.0,
                          "passed": True}}


@pytest.mark.slow
def test_everything_runs_on_a_cpu(one_device, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator",
         f"--output={tmp_path}"], env=one_device, capture_output=True,
        text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "accelerator.json").read_text())
    assert [*report["results"]] == [*accelerator.CPU_PARTS]
    assert not report["failed"] and not report["not_run"]
    recipe = report["results"]["recipe:tiny"]
    assert recipe["training"]["planned_bytes"] > 2**20
    # The rated FLOP/s of a CPU are not known.
    assert recipe["training"]["share_of_peak"] is None
    assert 0 < recipe["evaluation"]["busy_share"] <= 1.05
    text = (tmp_path / "accelerator.md").read_text()
    assert text.strip() == done.stdout.strip()
    assert "no share is given" in text and "clips/s" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accelerator.json", "accelerator.md"]


def test_no_part_starts_when_the_time_is_over(tmp_path):
    def run(part, result):
        return GPU if part == "device" else FINE

    report = accelerator.measure(0.0, tmp_path, run)
    assert report["not_run"] == [*accelerator.PARTS]
    text = (tmp_path / "accelerator.md").read_text()
    assert "| recipe:g1536 | not run, the time was over |" in text
    assert "989 TFLOP/s" in text


def test_a_failed_part_is_named_and_the_others_run(tmp_path):
    def run(part, result):
        if part == "recipe:b":
            raise RuntimeError("a program\njax.errors.JaxRuntimeError: "
                               "RESOURCE_EXHAUSTED\nFor simplicity, ...")
        return GPU if part == "device" else (
            {} if part.startswith("recipe") else FINE)

    recipes = [part for part in accelerator.PARTS if part == "recipe:b"
               or not part.startswith("recipe")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "PARTS", recipes)
        report = accelerator.measure(60.0, tmp_path, run)
    assert report["failed"] == {
        "recipe:b": "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED"}
    assert [*report["results"]] == [
        "attention", "parity:float32", "parity:bfloat16"]
    assert not accelerator.passed(report)
    assert "**FAILED**: jax.errors.JaxRuntimeError: RESOURCE" in (
        accelerator.markdown(report))


def test_a_large_difference_fails_and_is_marked():
    wrong = {"losa, float32": {"errors": {"loss": 0.3}, "passed": False}}
    report = {"device": GPU, "results": {"parity:float32": FINE},
              "failed": {}, "not_run": []}
    assert accelerator.passed(report)
    report["results"]["parity:bfloat16"] = wrong
    assert not accelerator.passed(report)
    assert accelerator.markdown(report).count("**too large**") == 1


@pytest.mark.parametrize("device_kind, tera", [
    ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989),
    ("NVIDIA A100-SXM4-80GB", 312), ("TPU v4", 275), ("TPU v5 lite", 197),
    ("TPU v5p", 459), ("TPU v5", 459), ("TPU v6 lite", 918),
    ("NVIDIA H100 PCIe", None), ("cpu", None), ("TPU v4 lite", None)])
def test_rated_flops_are_known_by_device_kind(device_kind, tera):
    assert peak_flops(device_kind) == (tera and tera * 1e12)


def test_detections_are_equal_by_class_time_and_score():
    expected = Segments(np.array([[[0, 10], [5, 20], [0, 0]]], np.float32),
                        np.array([[0.9, 0.5, 0.0]], np.float32),
                        np.array([[1, 2, 0]]), np.array([[True, True, False]]))
    assert shared_detections(expected, expected) == 1
    shifted = expected._replace(segments=expected.segments + np.array([0, 1]))
    assert shared_detections(shifted, expected) == 0
    relabeled = expected._replace(labels=np.array([[1, 3, 0]]))
    assert shared_detections(relabeled, expected) == 0.5
    rescored = expected._replace(scores=expected.scores * 0.97)
    assert shared_detections(rescored, expected) == 0
