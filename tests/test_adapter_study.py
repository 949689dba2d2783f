"""The table of adapter types, from runs and from what the project stores."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import adapter_study
from losa_jax.jobs.sweep import read_variants
from tests.jobs.finished_runs import finished_run, two_actions_each

ROOT = Path(__file__).parent.parent


@pytest.fixture
def study(tmp_path, monkeypatch, capsys):
    """Runs the study of the sweep `runs`, whose variants are poor and good."""
    (tmp_path / "variants.txt").write_text(
        "poor:\ngood: adapter.kind=ladder\nmissing: adapter.kind=none\n")

    def run(name):
        monkeypatch.setattr(sys, "argv", [
            "adapter_study", f"--variants={tmp_path / 'variants.txt'}",
            f"--sweep={name}:{tmp_path / 'runs'}",
            f"--results={tmp_path / 'results.json'}",
            "--test_subset=testing", f"--plot={tmp_path / 'plot.svg'}"])
        adapter_study.main()
        return [[cell.strip() for cell in line.strip("|").split("|")]
                for line in capsys.readouterr().out.splitlines()
                if line.startswith("|")]

    runs = tmp_path / "runs"
    runs.mkdir()
    entries = two_actions_each(runs)
    for variant, num_detected, seeds in (("poor", 1, 2), ("good", 2, 1)):
        for seed in range(seeds):
            folder = runs / variant / f"seed{seed}"
            finished_run(folder, entries, num_detected, (0.1,), 1234)
            (folder / "sweep.json").write_text("{}")
    return run


def test_the_table_and_the_plot_of_sweeps_by_hand(study, tmp_path):
    """Of each video's two actions one is detected, or both; the mAP of a run,
    which is stored, says 0.01 less."""
    rows = study("one set")
    assert rows[0] == ["variant", "one set: mAP (seeds)",
                       "one set: from poor", "trained parameters"]
    assert rows[2:] == [
        ["poor", "49.0 (2)", "", "1,234"],
        ["good", "99.0 (1)", "+50.0 (50.0 .. 50.0)", "1,234"]]
    # A second data set is added to what the file has.
    rows = study("another set")
    assert rows[2] == ["poor", "49.0 (2)", "", "49.0 (2)", "", "1,234"]
    plot = (tmp_path / "plot.svg").read_text()
    assert "<svg" in plot and "one set" in plot and "another set" in plot


def test_a_run_that_has_not_finished_is_not_part_of_the_table(study, tmp_path):
    (tmp_path / "runs/poor/seed1/sweep.json").unlink()
    assert study("one set")[2] == ["poor", "49.0 (1)", "", "1,234"]


def test_the_page_has_the_table_of_the_stored_results():
    results = json.loads(
        (ROOT / "benchmarks/adapter_study.json").read_text())
    names = [one.name for one in read_variants(ROOT / "configs/controls.txt")]
    assert {name for of_set in results.values() for name in of_set} <= set(
        names)
    page = (ROOT / "docs/adapter_study.md").read_text()
    assert adapter_study.as_table(results, names).strip() in page
