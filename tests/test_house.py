"""The arrows of the house: each floor stands only on those below."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "losa_jax"
# Floors from the ground up; a module may import its own floor's package and
# everything below.
FLOORS = [{"errors"}, {"timeline", "models", "report"},
          {"data", "detection"}, {"training"}, {"jobs"},
          {"main", "convert", "predict", "score", "sweep"}]
# Same floor, but strangers to each other.
STRANGERS = {("data", "detection"), ("detection", "data"),
             ("models", "timeline"), ("models", "report"),
             ("data", "models"), ("detection", "models")}
MAX_LINES = 450
FILES = sorted(ROOT.rglob("*.py"))


def _room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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
def test_imports_go_down(path):
    room = _room(path)
    if room == "__init__":
        return
    level = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name in _imports(path):
        if not name.startswith("losa_jax."):
            continue
        other = name.split(".")[1]
        assert level[other] <= level[room], f"{path} imports {name}"
        assert (room, other) not in STRANGERS, f"{path} imports {name}"
        if level[other] == level[room] and other != room:
            assert room not in ("main", "convert"), f"{path}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(
    p.relative_to(ROOT)))
def test_no_torch_but_in_convert(path):
    torch = [name for name in _imports(path) if name.split(".")[0] in (
        "torch", "tensorflow") or name.endswith(".torch_check")]
    assert not torch or path.name in ("convert.py", "torch_check.py")


def test_files_stay_short():
    long = {str(path): count for path in FILES
            if (count := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}
