"""The file that all benchmarks end up in."""

import re
from pathlib import Path

import pytest

from benchmarks import run_all
from benchmarks.common.figures import rates_table, times_table
from benchmarks.run_all import Benchmark
from benchmarks.scaling import exponent

# Any module that prints something will do.
FINE = Benchmark("calendar", ("2026",), ("2026", "2"), package="")
BROKEN = Benchmark("no_such_benchmark")


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "BENCHMARKS", (FINE, BROKEN))
    return tmp_path / "RESULTS.md"


def test_failure_is_reported_and_the_others_run(output):
    failed = run_all.run([BROKEN, FINE], output, is_quick=False)
    assert failed == ["no_such_benchmark"]
    text = output.read_text()
    sections = run_all.read_sections(text)
    # In the order of the list, whatever order they ran in.
    assert list(sections) == ["calendar", "no_such_benchmark"]
    assert "exit status 1: `" in sections["no_such_benchmark"]
    assert "No module named" in sections["no_such_benchmark"]
    fine = sections["calendar"]
    assert "`python -m calendar 2026`" in fine
    assert "FAILED" not in fine and "(quick)" not in fine
    assert "December" in fine  # what it printed
    for fact in ("UTC, revision ", "other work: ", " GiB", "Python 3.",
                 "jaxlib "):
        assert fact in fine
    assert list(output.parent.iterdir()) == [output]


def test_partial_run_keeps_the_other_sections(output):
    old = {"no_such_benchmark": "of last year\n\n| a |\n| --- |\n| 1 |",
           "gone": "of a benchmark that is no more"}
    run_all.write(output, old)
    assert not run_all.run([FINE], output, is_quick=True)
    sections = run_all.read_sections(output.read_text())
    assert {name: sections[name] for name in old} == old
    assert list(sections) == ["calendar", "no_such_benchmark", "gone"]
    assert "`python -m calendar 2026 2` (quick)" in sections["calendar"]


def test_missing_package_skips():
    text, ok = run_all.measure(
        Benchmark("calendar", needs=("no_such_package",), package=""), False)
    assert ok and text == "skipped: needs no_such_package"


def test_one_that_hangs_is_ended_with_all_it_started(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text(
        "import subprocess, sys\n"
        "print('started', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "child.wait()\n")
    monkeypatch.setattr(run_all, "LIMIT_SECONDS", 2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text, ok = run_all.measure(Benchmark(
        "hangs", (str(tmp_path / "pid"),), package=""), False)
    assert not ok
    assert "took more than 2 s`" in text and text.endswith("started")
    child = int((tmp_path / "pid").read_text())
    # Ended: gone, or waiting for its new parent to notice.
    try:
        stat = Path(f"/proc/{child}/stat").read_text()
        assert stat.rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        pass


def test_tables_stay_tables_and_headings_are_none():
    printed = "two\nlines\n| a | b |\n| --- | --- |\n| 1 | 2 |\n## odd\n"
    markdown = run_all.as_markdown(printed)
    assert markdown == ("two\nlines\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
                        "\n\n\\## odd")
    assert run_all.read_sections(f"# t\n\n## one\n\n{markdown}\n") == {
        "one": markdown}


def test_tables_say_medians_spreads_and_ratios():
    rows = times_table({"ours": [1.0, 4.0, 3.0], "torch": [2.0, 2.0, 2.0]},
                       against="torch").splitlines()
    assert rows[0] == "| what | median | spread | rounds | ratio to torch |"
    assert rows[2] == "| ours | 3 s | 1 .. 4 | 3 | 1.50 |"
    # The median of 50 / 100 and 200 / 100.
    rows = rates_table({"ours": [50, 200], "other": [100, 100]}, "frames/s",
                       against="ours").splitlines()
    assert rows[3] == "| other | 100 | 100 .. 100 | 2 | 1.25 |"


def test_exponents():
    assert exponent((1, 2, 4), (3, 12, 48)) == pytest.approx(2)
    assert exponent((1, 10), (5, 5)) == pytest.approx(0)


@pytest.mark.parametrize("benchmark", run_all.BENCHMARKS,
                         ids=lambda benchmark: benchmark.name)
def test_every_benchmark_knows_the_flags_that_it_is_given(benchmark):
    source = Path(run_all.__file__).with_name(f"{benchmark.name}.py")
    known = re.findall(r'add_argument\(\s*"(--\w+)"', source.read_text())
    for argument in (*benchmark.arguments, *benchmark.quick):
        assert argument.split("=")[0] in known
