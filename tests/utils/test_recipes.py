"""A recipe is found from any folder, in a checkout and installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["checkout", "installed"])
def package(request, tmp_path):
    """Returns the folder to import from, a checkout or an installed wheel."""
    if request.param == "checkout":
        return ROOT
    site = tmp_path / "site"
    shutil.copytree(ROOT / "configs", site / "losa_jax/shipped/configs")
    (site / "losa_jax/utils").mkdir()
    for name in ("__init__", "errors", "main", "utils/__init__",
                 "utils/command_line", "utils/file_type",
                 "utils/interrupt", "utils/malloc",
                 "utils/names", "utils/recipes", "utils/text_files",
                 "utils/usage"):
        shutil.copy(ROOT / f"losa_jax/{name}.py",
                    site / f"losa_jax/{name}.py")
    return site


@pytest.fixture
def run(package, tmp_path):
    """Returns a function that runs the main command from another folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(*flags):
        return subprocess.run(
            [sys.executable, "-m", "losa_jax.main", *flags], cwd=folder,
            env={**os.environ, "PYTHONPATH": str(package)},
            capture_output=True, text=True, timeout=60)

    run.folder = folder
    return run


# A wrong key is an error after the recipe is read, before jax is imported.
WRONG = "--config.adapter.knd=losa"


def test_a_recipe_of_the_package_is_found(run):
    done = run("--config=configs/thumos.py:xl")
    assert "the variants are g1536" in done.stderr
    done = run("--config", "configs/quick.py:ablation", WRONG)
    assert done.returncode == 1 and 'Did you mean "kind"' in done.stderr


def test_an_own_recipe_imports_the_package_configs(run):
    (run.folder / "configs").mkdir()
    (run.folder / "configs/thumos.py").write_text(
        "from configs import common\n"
        "def get_config():\n"
        "    config = common.get_config()\n"
        "    raise ValueError(f'mine, {config.adapter.kind}')\n")
    done = run("--config=configs/thumos.py")
    assert done.stderr == "error: --config: mine, losa\n"


def test_help_shows_only_flags_of_this_package(run):
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    for word in ("--config=", "--mode", "check_data", "configs/thumos.py"):
        assert word in done.stdout
    assert "absl" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80 + len(str(run.folder))


def test_the_quick_start_has_its_backbone(package, run):
    code = ("from losa_jax.utils import recipes\n"
            "recipes.make_importable()\n"
            "from configs import quick\n"
            "print(quick.get_config().backbone.checkpoint)")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run.folder, text=True, check=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(package)})
    folder = Path(done.stdout.strip())
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(files) == {"README.md", "backbone.json",
                          "backbone.safetensors"}
    assert sum(files.values()) <= 2_000_000
    card = (folder / "README.md").read_text()
    for word in ("Data", "Script", "seed 0", "Accuracy", "License"):
        assert word in card
