"""The main command line: wrong flags and input are one message and a status."""

import contextlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import losa_jax

ROOT = Path(__file__).parent.parent


def _run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "losa_jax.main", *flags],
        capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flags, message", [
    (["--config=configs/custom.py", "--config.adapter.knd=losa"],
     'Did you mean "kind"'),
    (["--config=configs/custom.py", "--config.nms.sigma=1"],
     "the recipe has no 'nms'"),
    (["--config=configs/custom.py", "--config.train.epochs=many"],
     "--config.train.epochs=many: "),
    (["--config=configs/custom.py", "--config.adapter.tap_layers=a,b"],
     "--config.adapter.tap_layers=('a,b',): give numbers"),
    (["--config=README.md"], "the recipe cannot be run as Python"),
    (["--config=configs/thumos.py:xl"], "the variants are g1536"),
    (["--config=configs/quik.py"], "did you mean 'configs/quick.py'"),
    (["--config=configs"], "--config=configs: no such file"),
    *((["--config=configs/nope.py", *more], "--config=configs/nope.py: no "
       "such file; the path counts from the current folder. Recipes of the "
       "package: configs/activitynet.py")
      for more in ([], ["--workdir=x"], ["--config.train.epochs=1"])),
    (["--config=configs/thumos.py:s", "--workdir={folder}"],
     "--config.backbone.checkpoint=FOLDER"),
    (["--config=configs/custom.py", "--workdir={folder}"],
     "--config.data.annotations=FILE.json"),
    (["--config=configs/custom.py", "--workdir={folder}"],
     "--config.data.videos=FOLDER"),
    (["--config=configs/custom.py:foo"], "this recipe has no variant 'foo'"),
    (["--config=configs/custom.py", "--workdir={folder}",
      "--config.train.batch_windows=0", "--config.train.learning_rate=nan"],
     "config.train.batch_windows=0: must be at least 1"),
])
def test_wrong_use_is_explained(flags, message, tmp_path):
    done = _run(*(flag.format(folder=tmp_path / "run") for flag in flags))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags, message", [
    ([], "--config=RECIPE is needed"),
    (["--config="], "--config=RECIPE is needed"),
    (["--config=configs/custom.py", "--mode=fly"], "--mode=fly: "),
    (["--config=configs/custom.py", "--wrkdir=x"], "workdir"),
    (["--config=configs/custom.py", "--report"],
     "--report goes with --mode=eval"),
    (["--config=configs/custom.py", "--mode=cache", "--output=x"],
     "--output goes with --mode=eval or --mode=extract or --mode=export"),
    (["--config=configs/custom.py", "--mode=extract"],
     "--mode=extract needs --output"),
    (["--config=configs/custom.py", "--mode=plan"],
     "--mode=plan needs --topology"),
    (["--config=configs/custom.py", "--mode=extract", "--dtype=int8"],
     "--dtype=int8: "),
    (["--config=configs/custom.py", "--mode=eval", "--checkpoint=first"],
     "--checkpoint=first: "),
])
def test_wrong_flags_are_usage(flags, message):
    done = _run(*flags)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_shows_every_flag_of_ours():
    source = (ROOT / "losa_jax/main.py").read_text()
    names = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source)
    printed = _run("--help").stdout
    assert "mode" in names and "config" in names
    assert [name for name in names if f"  --{name}" not in printed] == []


def test_help_lists_every_variant_of_every_recipe():
    text = _run("--help").stdout
    for line in ("configs/quick.py: ablation",
                 "configs/thumos.py: g1536, g768, s, b, l, h"):
        assert line in text


@pytest.mark.parametrize("path", sorted(
    path.relative_to(ROOT) for path in (ROOT / "losa_jax").rglob("*.py")
    if "\nif __name__ ==" in path.read_text()), ids=str)
def test_every_command_line_prints_the_version(path, monkeypatch, capsys):
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    for flags in (["--version"], ["--version", "--config=configs/quick.py"]):
        monkeypatch.setattr(sys, "argv", ["command", *flags])
        with contextlib.suppress(SystemExit):
            module.main()
        assert capsys.readouterr().out == f"{losa_jax.__version__}\n"


def test_help_of_no_command_waits_for_jax():
    code = """
import contextlib, importlib, io, sys
for name in ("convert", "init", "predict", "review", "score",
             "annotations", "sweep", "data.build"):
    printed = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        importlib.import_module(f"losa_jax.{name}").main(["--help"])
    assert printed.getvalue().startswith("usage: python -m losa_jax."), name
    assert "Exit status: 0 " in printed.getvalue(), name
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
