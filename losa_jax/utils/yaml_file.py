"""Reads YAML files that users give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_text

_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Any:
    """Reads YAML; InputError where this is impossible or a mapping has a key
    twice."""
    text = read_text(path)
    try:
        for key, first, second in _repeated(
                yaml.compose(text, yaml.SafeLoader), set()):
            raise InputError(
                f"{path}: one mapping has the key {key!r} twice (lines "
                f"{first} and {second}), and only one of the two could be "
                "used: correct the file")
        return yaml.safe_load(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML that can be read ({error}): "
                         "correct it") from error


def _repeated(node: yaml.Node | None, seen: set[int]
              ) -> Iterator[tuple[str, int, int]]:
    """Yields keys that a mapping in a document has twice, and their lines.

    Args:
      seen: ids of the nodes that were looked at; an alias may lead to one of
        them again.
    """
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    is_mapping = isinstance(node, yaml.MappingNode)
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value if is_mapping else (
            (None, child) for child in node.value):
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                yield key.value, lines[name], line
            lines[name] = line
        yield from _repeated(value, seen)
