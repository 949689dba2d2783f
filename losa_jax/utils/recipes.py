"""Where recipes are: the folder `configs`, in a checkout or installed.

`--config=configs/thumos.py` means the file of that name below the current
folder; where there is none, the one that came with the package. So the same
command works from a checkout, after `pip install` and from any folder.
"""

import sys
from pathlib import Path


def shipped_folder() -> Path:
    """The folder that holds `configs`: of a checkout, or in the package."""
    package = Path(__file__).parent.parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent


def make_importable() -> None:
    """Lets recipes say `from configs import common` wherever one is.

    The current folder comes first: somebody's own `configs/__init__.py` is
    theirs.
    """
    folder = str(shipped_folder())
    if folder not in sys.path:
        sys.path.insert(1, folder)


def find(path: str) -> str:
    """A recipe, or another file or folder of `configs`, by its name.

    Args:
      path: of a file; after a colon there may be a variant: "x.py:variant".

    Returns:
      the same where the current folder has it or nobody has; else the path
      of the package's own.
    """
    name, colon, variant = path.partition(":")
    ours = shipped_folder() / name
    if Path(name).exists() or not name.startswith("configs/") or (
            not ours.exists()):
        return path
    return f"{ours}{colon}{variant}"


def names() -> list[str]:
    """The recipes that came with the package: "configs/quick.py", ..."""
    return [f"configs/{path.name}" for path in sorted(
        (shipped_folder() / "configs").glob("*.py"))
            if path.stem not in ("__init__", "common")]
