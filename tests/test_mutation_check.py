"""The table of deliberate faults fits the code, and one of them is seen."""

import subprocess
import sys

import pytest

from benchmarks.common.mutation_faults import FAULTS
from benchmarks.mutation_check import markdown, misfit, numbers


def test_every_fault_still_fits_the_code():
    assert [line for fault in FAULTS if (line := misfit(fault))] == []
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 20


def test_a_stale_fault_is_told():
    gone = FAULTS[0]._replace(text="what nobody wrote")
    assert "0 times" in misfit(gone)
    assert "no tests/nowhere.py" in misfit(
        FAULTS[0]._replace(tests=("tests/nowhere.py::test_it",)))


def test_numbers_and_table():
    assert numbers("1-3,7") == [1, 2, 3, 7]
    with pytest.raises(SystemExit, match="there are faults 1 to"):
        numbers("1-1000")
    table = markdown([(1, FAULTS[0], {"seen_by": "", "seconds": 2.0}),
                      (2, FAULTS[1], {"seen_by": "tests/test_a.py::test_b",
                                      "seconds": 3.0})])
    assert "| **nobody** | 2 |" in table and "| test_a.py::test_b |" in table
    assert table.endswith("1 of 2 faults seen.")


def test_a_fault_is_put_in_seen_and_taken_out(tmp_path):
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mutation_check", "--only=1",
         "--no_sound", f"--results={results}"], capture_output=True,
        text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults seen." in done.stdout
    assert "tests/test_timeline.py::test_token_zero" in results.read_text()
