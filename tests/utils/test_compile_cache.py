"""The compilation cache has the right folder and is used."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import jax
from losa_jax.utils import compile_cache
compile_cache._MIN_COMPILE_SECONDS = 0.0
print(compile_cache.use_compile_cache())
jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()
"""


def _run(**more):
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("JAX_", "LOSA_COMPILE", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, text=True,
        capture_output=True,
        env={**environment, "JAX_PLATFORMS": "cpu", **more})
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("named", (True, False))
def test_programs_are_stored_in_the_folder(tmp_path, named):
    more = ({"LOSA_COMPILE_CACHE": str(tmp_path / "here")} if named
            else {"HOME": str(tmp_path)})
    output, _ = _run(**more)
    root = tmp_path / ("here" if named else ".cache/losa_jax/compiled")
    assert output.startswith(str(root))
    assert [path for path in root.rglob("*") if path.is_file()]


def test_the_cache_can_be_switched_off(tmp_path):
    output, _ = _run(HOME=str(tmp_path), LOSA_COMPILE_CACHE="off")
    assert output == "None" and not list(tmp_path.iterdir())


def test_the_setting_of_jax_has_precedence(tmp_path):
    output, _ = _run(HOME=str(tmp_path / "home"),
                   JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jax"))
    assert output == "None" and not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    output, errors = _run(LOSA_COMPILE_CACHE=str(tmp_path / "file"))
    assert output == "None" and "LOSA_COMPILE_CACHE=FOLDER" in errors
