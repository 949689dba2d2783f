"""The main door: wrong flags and input are one message and a status."""

import subprocess
import sys

import pytest


def _run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "losa_jax.main", *flags],
        capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flags, message", [
    (["--config=configs/custom.py", "--config.adapter.knd=losa"],
     'Did you mean "kind"'),
    (["--config=configs/thumos.py:xl"], "the variants are g1536"),
    (["--config=configs/nope.py"], "configs/nope.py"),
    (["--config=configs/custom.py", "--workdir={folder}"],
     "config.backbone.checkpoint is empty"),
])
def test_wrong_use_is_explained(flags, message, tmp_path):
    done = _run(*(flag.format(folder=tmp_path / "run") for flag in flags))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
