"""Variants x seeds: what is run, what is left out, and the table."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from configs import quick
from losa_jax import sweep
from losa_jax.errors import InputError
from losa_jax.jobs.sweep import (
    Variant,
    make_table,
    parse_variant,
    read_variants,
    run_all,
)
from losa_jax.utils.interrupt import Interrupted
from tests.jobs.finished_runs import finished_run, two_actions_each
from tests.jobs.flags import flags_of

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def commands(monkeypatch):
    """What would have been run, by a stand-in that leaves no files.

    `.status` maps a flag to the exit status of commands with it.
    """
    seen = types.SimpleNamespace(all=[], status={})

    def run(command, stdout, stderr):
        assert command[:3] == [sys.executable, "-m", "losa_jax.main"]
        seen.all.append(command[3:])
        stdout.write("a line\nthe last line\n")
        return types.SimpleNamespace(returncode=max(
            (status for flag, status in seen.status.items()
             if flag in command), default=0))

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_a_variant_by_hand():
    assert parse_variant("no gates: adapter.gates=ones data.cache=") == (
        Variant("no gates", ("adapter.gates=ones", "data.cache=")))
    assert parse_variant("as it is:") == Variant("as it is", ())
    assert parse_variant("long range, 2 x: a.b=1").folder == (
        "long_range_2_x")


@pytest.mark.parametrize("line", [
    "adapter.kind=none", ": adapter.kind=none", "one: adapter.kind",
    "one: adapter.kind = none"])
def test_invalid_variants_are_refused(line):
    with pytest.raises(InputError, match=re.escape(repr(line))):
        parse_variant(line)


def test_a_file_of_variants(tmp_path):
    path = tmp_path / "variants.txt"
    path.write_text("# two\n\none:\n  two: a.b=1 \n")
    assert read_variants(path) == [Variant("one", ()),
                                   Variant("two", ("a.b=1",))]
    with pytest.raises(InputError, match="nowhere.txt: cannot be read"):
        read_variants(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("file", ["adapters", "controls", "controls_rates"])
def test_every_shipped_variant_is_of_the_config(file):
    known = quick.get_config("ablation")
    for variant in read_variants(ROOT / f"configs/{file}.txt"):
        for override in variant.overrides:
            section, key = override.partition("=")[0].split(".")
            assert key in known[section], override


def test_seed_by_seed_and_nothing_twice(commands, tmp_path):
    variants = [parse_variant("one: a.b=1"), parse_variant("two:")]
    folders = run_all(variants, (0, 3), ["--config=c.py"], tmp_path, "testing")
    one, two = (tmp_path / name for name in ("one", "two"))
    assert folders == {"one": [one / "seed0", one / "seed3"],
                       "two": [two / "seed0", two / "seed3"]}
    first = ["--config=c.py", "--config.a.b=1", "--config.seed=0"]
    assert commands.all[:2] == [
        [*first, f"--workdir={one}/seed0"],
        [*first, "--mode=eval", "--config.data.test_subset=testing",
         f"--output={one}/seed0/test", f"--workdir={one}/seed0"]]
    assert [command[-1] for command in commands.all[::2]] == [
        f"--workdir={folder}/seed{seed}"
        for seed in (0, 3) for folder in (one, two)]
    # A third seed runs alone; another config does not pass for this one.
    del commands.all[:]
    run_all(variants[1:], (0, 3, 4), ["--config=c.py"], tmp_path, "testing")
    assert len(commands.all) == 2
    with pytest.raises(InputError, match="seed0 was run with"):
        run_all(variants, (0,), ["--config=d.py"], tmp_path, "testing")
    with pytest.raises(InputError, match="2 variants have the folder a_b"):
        run_all([parse_variant("a b:"), parse_variant("a_b:")], (0,), [],
                tmp_path, "")


def test_runs_that_were_trained_alone_can_be_scored_later(commands, tmp_path):
    variants = [parse_variant("one: a.b=1")]
    run_all(variants, (0,), [], tmp_path, "")
    del commands.all[:]
    for _ in range(2):
        run_all(variants, (0,), [], tmp_path, "testing")
    assert [command[2:4] for command in commands.all] == [
        ["--mode=eval", "--config.data.test_subset=testing"]]
    # What was scored serves a sweep without a test subset, but no other one.
    run_all(variants, (0,), [], tmp_path, "")
    assert len(commands.all) == 1
    with pytest.raises(InputError, match="seed0 was run with"):
        run_all(variants, (0,), [], tmp_path, "validation")


def test_a_failed_run_is_reported_and_repeated(commands, tmp_path, capsys):
    variants = [parse_variant("good:"), parse_variant("bad: a.b=1")]
    commands.status["--config.a.b=1"] = 1
    folders = run_all(variants, (0,), [], tmp_path, "")
    assert folders == {"good": [tmp_path / "good/seed0"], "bad": []}
    output = capsys.readouterr().out
    assert "bad/seed0 failed with status 1: the last line" in output
    assert str(tmp_path / "bad/seed0/console.txt") in output
    commands.status.clear()
    assert run_all(variants, (0,), [], tmp_path, "")["bad"] == [
        tmp_path / "bad/seed0"]
    assert len(commands.all) == 3


def test_a_signal_ends_the_whole_sweep(commands, tmp_path):
    commands.status["--config.seed=1"] = 75
    with pytest.raises(Interrupted, match="same command again"):
        run_all([parse_variant("one:")], (0, 1, 2), [], tmp_path, "")
    assert len(commands.all) == 2


def test_the_table_by_hand(tmp_path):
    """Each video has two actions; the first alone is detected, or both: average
    precision 1/2 or 1 whichever videos are drawn."""
    annotations = two_actions_each(tmp_path)
    folders = {"poor": [], "good": [], "none went well": []}
    for name, num_detected, trained in (("poor", 1, 999), ("good", 2, 1234567)):
        for seed, seconds in ((0, (0.5, 0.1)), (1, (0.3, 0.3))):
            folder = tmp_path / name / f"seed{seed}"
            finished_run(folder, annotations, num_detected, seconds, trained)
            folders[name].append(folder)
    # One seed's mAP while it trained was other than the rest's.
    (tmp_path / "poor/seed1/map.json").write_text('{"average_map": 0.44}')
    rows = [[cell.strip() for cell in line.strip("| ").split("|")]
            for line in make_table(folders, "testing").splitlines()
            if line.startswith("|")]
    assert rows[0] == [
        "variant", "seeds", "mAP: mean", "largest - smallest",
        "testing: mean", "largest - smallest", "testing: 95 %",
        "lead over poor: 95 %", "trained", "step temporary MiB", "s / step"]
    assert rows[2:] == [
        ["poor", "2", "47.00", "6.00", "49.00", "0.00", "50.0 .. 50.0", "",
         "999", "3", "0.300"],
        ["good", "2", "100.00", "0.00", "99.00", "0.00", "100.0 .. 100.0",
         "+50.0 (50.0 .. 50.0)", "1,234,567", "3", "0.300"]]
    # Without a subset of its own, the one that was watched.
    alone = make_table({"poor": folders["poor"], "same": folders["poor"]}, "")
    assert "| mAP: 95 % | lead over poor: 95 % |" in alone
    assert "+0.0 (0.0 .. 0.0, not significant)" in alone


@pytest.mark.parametrize("flags, message", [
    (["--vary=one:", "--lr=3"], "not known: --lr=3"),
    (["--vary=one:", "--seeds=a"], "--seeds: 'a': write numbers"),
    (["--variants=configs/adapters.txt", "--workdir"], "--workdir")])
def test_wrong_use(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--config=configs/quick.py", f"--workdir={tmp_path}",
                    *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_no_variants_are_an_error(tmp_path, capsys):
    assert sweep.main(["--config=configs/quick.py",
                       f"--workdir={tmp_path}"]) == 1
    assert "give --variants=FILE or --vary" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_of_real_runs(config, tmp_path, capsys):
    """Two variants, one of which cannot run: its reason is output."""
    small = config.copy_and_resolve_references()
    small.adapter.kind = "none"
    small.head.num_levels = 1
    small.train.epochs = small.train.schedule_epochs = 1
    flags = [*flags_of(small), f"--workdir={tmp_path}", "--seeds=1",
             "--test_subset=training", "--vary=head alone:",
             "--vary=no such: adapter.kind=nothing"]
    assert sweep.main(flags) == 1
    output = capsys.readouterr().out
    assert "no_such/seed1 failed with status 1: " in output
    table = (tmp_path / "table.md").read_text()
    assert table in output and table.count("| head alone | 1 |") == 1
    run = tmp_path / "head_alone/seed1"
    assert json.loads((run / "config.json").read_text())["seed"] == 1
    assert len(json.loads((run / "test/predictions.json").read_text())[
        "results"]) == 4
