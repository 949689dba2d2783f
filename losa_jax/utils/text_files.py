"""Reads text files that users give, or that this program wrote."""

import json
from pathlib import Path
from typing import Any

from losa_jax.errors import InputError


def read_text(path: Path,
              remedy: str = "check the path, and that it is UTF-8 text"
              ) -> str:
    """Reads UTF-8; InputError, with the remedy, where this is impossible."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): {remedy}"
                         ) from error


def read_json(path: Path, remedy: str = "") -> Any:
    """Reads JSON; InputError, with the remedy, where this is impossible."""
    text = read_text(path, remedy) if remedy else read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: line {error.lineno}, column "
                         f"{error.colno}: {error.msg}; "
                         f"{remedy or 'correct it there'}") from error
