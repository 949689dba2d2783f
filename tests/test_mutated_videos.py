"""Damaged files never crash, hang or pass for whole ones."""

import subprocess
import sys


def test_sixty_damaged_files():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mutated_videos", "--files=60",
         "--seed=7"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = done.stdout.splitlines()[0]
    assert "refused" in counts and "right" in counts
