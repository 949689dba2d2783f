"""Damaged feature files never crash, hang or pass for sound ones."""

import subprocess
import sys


def test_a_hundred_damaged_files():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mutated_features", "--files=100",
         "--seed=7"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = done.stdout.splitlines()[0]
    assert "refused" in counts and "right" in counts
