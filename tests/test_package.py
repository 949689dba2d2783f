"""The package as a whole: files, names, documentation, what a wheel holds.

Which package may import which: `lint-imports`, contracts in pyproject.toml.
"""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from configs import common

ROOT = Path(__file__).parent.parent / "losa_jax"
MAX_LINES, MAX_MODULES = 450, 20
FILES = sorted(ROOT.rglob("*.py"))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(
    p.relative_to(ROOT)))
def test_nothing_imports_torch_but_the_writer_of_pth_files(path):
    imported = {name.split(".")[0] for name in _imports(path)}
    assert not imported & {"tensorflow", "transformers"}
    assert "torch" not in imported or path.name == "convert.py"


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None,
                    reason="torch is not installed, so nothing imports it")
def test_no_job_imports_torch():
    """Nor through a package; nor pyplot, which would choose a backend."""
    jobs = [f"losa_jax.jobs.{path.stem}" for path in FILES
            if path.parent.name == "jobs" and path.stem != "__init__"]
    assert "losa_jax.jobs.train" in jobs
    result = subprocess.run(
        [sys.executable, "-c", f"import sys, {', '.join(jobs)}\n"
         "print(sorted({'torch', 'tensorflow', 'matplotlib.pyplot'}"
         " & set(sys.modules)))"],
        cwd=ROOT.parent, capture_output=True, text=True)
    assert result.stdout == "[]\n", result


def test_files_stay_short():
    long = {str(path): count for path in FILES
            if (count := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_folders_stay_small():
    counts = Counter(path.parent for path in FILES)
    assert {str(folder): count for folder, count in counts.items()
            if count > MAX_MODULES} == {}


def _public(tree):
    """(name, node) of functions, classes and their methods."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not (
                node.name.startswith("_")):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", method)
                            for name, method in _public(node))


def _is_bare(function):
    """Of a protocol, or `pass`: there is nothing to say."""
    return len(function.body) == 1 and (
        isinstance(function.body[0], ast.Pass)
        or ast.unparse(function.body[0]) == "...")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(
    p.relative_to(ROOT)))
def test_what_is_public_is_typed_and_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for name, node in _public(tree):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), name
            continue
        assert ast.get_docstring(node) or _is_bare(node), name
        arguments = [*node.args.posonlyargs, *node.args.args,
                     *node.args.kwonlyargs]
        untyped = [one.arg for one in arguments if one.annotation is None
                   and one.arg not in ("self", "cls")]
        assert node.returns is not None and not untyped, name


def test_every_key_of_the_recipes_is_read():
    read = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant):
                read.add(node.value)
            elif isinstance(node, ast.ClassDef) and node.name.endswith(
                    ("Spec", "Settings")):
                # Made of all keys that are its fields.
                read |= {field.target.id for field in node.body
                         if isinstance(field, ast.AnnAssign)}
    keys = {key for section in common.get_config().to_dict().values()
            if isinstance(section, dict) for key in section}
    assert keys <= read, keys - read


def test_a_wheel_holds_all_that_git_does():
    project = tomllib.loads(
        (ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name: ROOT.parent / project["package-dir"].get(
        name, name.replace(".", "/")) for name in project["packages"]}
    recipes = ROOT.parent / "configs"
    assert set(folders.values()) == {path.parent for path in FILES} | {
        recipes, recipes / "hard_backbone", recipes / "tiny_backbone"}
    for name, folder in folders.items():
        patterns = project["package-data"].get(name, ())
        shipped = {path for pattern in ("*.py", *patterns)
                   for path in folder.glob(pattern)}
        assert shipped == {path for path in folder.iterdir()
                           if path.is_file() and path.suffix != ".pyc"}
