"""The wheel and the sdist build without warnings and install from nothing."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import losa_jax

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
IN_SOURCE = ("losa_jax", "configs", "pyproject.toml", "requirements.txt",
             "README.md", "LICENSE")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Builds both from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("build") / "source"
    source.mkdir()
    for name in IN_SOURCE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=(
                shutil.ignore_patterns("__pycache__")))
        else:
            shutil.copy(path, source)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "build", "--no-isolation",
         str(source)], capture_output=True, text=True,
        # With this variable setuptools warns that it compiles nothing.
        env={name: value for name, value in os.environ.items()
             if name != "PYTHONDONTWRITEBYTECODE"})
    assert done.returncode == 0, done.stderr
    # The wheel is built from the sdist, so that both are complete.
    assert "warning" not in (done.stdout + done.stderr).lower()
    return source / "dist"


def test_both_carry_the_version(dist):
    assert {path.name for path in dist.iterdir()} == {
        f"losa_jax-{losa_jax.__version__}.tar.gz",
        f"losa_jax-{losa_jax.__version__}-py3-none-any.whl"}


def test_the_wheel_works_in_an_empty_environment(dist, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    wheel, = dist.glob("*.whl")

    def run(*arguments):
        done = subprocess.run([python, *arguments], cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "pip", "install", "--quiet", str(wheel))
    run("-m", "pip", "check")
    assert run("-m", "losa_jax.main", "--version").strip() == (
        losa_jax.__version__)
    # Recipes, pages and weights come along.
    run("-c", """
import importlib.resources
import losa_jax
from losa_jax.utils import recipes
recipes.make_importable()
assert "configs/thumos.py" in " ".join(recipes.names()), recipes.names()
from configs import quick
quick.get_config()
report = importlib.resources.files("losa_jax.report")
assert (report / "video.html").is_file()
assert losa_jax.TriDetSpec and losa_jax.load and losa_jax.evaluate
""")
