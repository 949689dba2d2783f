"""Finds recipes: files of the folder `configs`, in a checkout or installed.

`--config=configs/thumos.py` is the file below the current folder, or else the
package's own file of that name.
"""

import contextlib
import importlib
import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

# Keys that older runs lack. Their default is what those runs did, so these
# are still loaded; any other key that a run lacks is an error.
LATER_KEYS = (
    "adapter.cross_attention", "adapter.long_grid", "adapter.pool_queries",
    "adapter.raw_taps", "adapter.short_kernel", "adapter.tap_pool",
    "backbone.keep_copy", "data.accept_changes",
    "data.min_action_share", "data.reviews", "evaluate.ego4d_recall",
    "evaluate.per_frame", "features.array", "features.channels",
    "features.resize", "head.input_projections", "head.input_widths",
    "head.regression_overlap", "loss.deep_supervision", "loss.every_class",
    "loss.hard_negative_weight", "synthetic.hard", "train.final_learning_rate",
    "train.start_from", "window.clip_overlap")


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


def later_defaults() -> dict[str, Any]:
    """Returns {key: default} of `LATER_KEYS`, lists as JSON has them."""
    sections = json.loads(defaults().to_json())
    return {key: sections[section][name] for key in LATER_KEYS
            for section, name in [key.split(".")]}


def with_later_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings that an older run stored, {section: {key: value}}, with
    the keys of `LATER_KEYS` that their sections lack."""
    settings = {section: dict(values) if isinstance(values, Mapping) else values
                for section, values in content.items()}
    for key, value in later_defaults().items():
        section, name = key.split(".")
        if isinstance(settings.get(section), dict):
            settings[section].setdefault(name, value)
    return settings


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
