"""Finds recipes: files of the folder `configs`, in a checkout or installed.

`--config=configs/thumos.py` is the file below the current folder, or else the
package's own file of that name.
"""

import contextlib
import importlib
import runpy
import sys
from pathlib import Path

from ml_collections import ConfigDict


def shipped_folder() -> Path:
    """Returns the folder that holds `configs`: the checkout or the package."""
    package = Path(__file__).parent.parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent


def make_importable() -> None:
    """Makes `from configs import common` work in any current folder.

    A package `configs` in the current folder comes first.
    """
    folder = str(shipped_folder())
    if folder not in sys.path:
        sys.path.insert(1, folder)


def find(path: str) -> str:
    """Returns the path of a file of `configs`, as given if it exists there;
    it may have a variant, "x.py:variant"."""
    name, colon, variant = path.partition(":")
    ours = shipped_folder() / name
    if Path(name).exists() or not name.startswith("configs/") or (
            not ours.exists()):
        return path
    return f"{ours}{colon}{variant}"


def names() -> list[str]:
    """Returns the package's recipes: "configs/quick.py", ..."""
    return [f"configs/{path.name}" for path in sorted(
        (shipped_folder() / "configs").glob("*.py"))
            if path.stem not in ("__init__", "common")]


def defaults() -> ConfigDict:
    """Returns what every recipe starts from, that of the package also where
    the current folder has another `configs`."""
    path = shipped_folder() / "configs/common.py"
    return runpy.run_path(str(path))["get_config"]()


def variants() -> dict[str, tuple[str, ...]]:
    """Returns {recipe: its variants}."""
    make_importable()
    found: dict[str, tuple[str, ...]] = {}
    for name in names():
        found[name] = ()
        # A package `configs` in the current folder may lack it.
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"configs.{Path(name).stem}")
            found[name] = getattr(module, "VARIANTS", ())
    return found
