"""Opens a public checkpoint of a backbone: finds its family and gives its
tensors the names of the family's table."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.backbones import BACKBONES
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.weights.checkpoint_file import (
    WRAPPERS,
    CheckpointFile,
    Tensor,
    open_file,
)
from losa_jax.weights.name_table import expected_source, weights_module

_BLOCK = r"(\d+)"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint, opened but not read.

    Attributes:
      path: as it was named.
      family: of `BACKBONES`; "" where no family recognizes the names.
      tensors: by the names of the family's table.
      hints: keyword arguments of `infer_spec` that the file itself gives.
      notes: what was renamed, joined or dropped, for people.
      layout: whose names the file has.
      file_names: {name in the table: in the file}, where they differ.
    """

    path: Path
    family: str
    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    notes: tuple[str, ...]
    layout: str
    file_names: dict[str, str]

    def describe(self, name: str) -> str:
        """A tensor's name, and its name in the file where that differs."""
        original = self.file_names.get(name)
        if original is None and (numbered := re.match(
                r"(.*?\.)(\d+)(\..+)", name)):
            # As the same tensor of another block is called.
            before, number, after = numbered.groups()
            for other, title in self.file_names.items():
                twin = re.fullmatch(
                    re.escape(before) + _BLOCK + re.escape(after), other)
                if twin:
                    original = title.replace(f".{twin[1]}.", f".{number}.", 1)
                    break
        return name if original in (None, name) else (
            f"{name} (in the file: {original})")


@dataclasses.dataclass(frozen=True)
class _Joined:
    """Tensors that are one of ours, one after the other on the first axis."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(part.shape[0] for part in self.parts)
        return (rows, *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*(part.dtype for part in self.parts))

    def read(self) -> np.ndarray:
        return np.concatenate([part.read() for part in self.parts])


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a file or folder (see `open_file`) and renames its tensors.

    Raises:
      InputError: missing, damaged, or not a checkpoint.
    """
    file = open_file(path)
    for family in BACKBONES:
        module = weights_module(family)
        tensors, keys = file.state_dict(
            (*getattr(module, "WRAPPERS", ()), *WRAPPERS))
        if module.recognizes(tensors):
            return _renamed(file, family, module, tensors, keys)
    tensors, keys = file.state_dict()
    if not tensors:
        raise file.without_tensors()
    return Checkpoint(file.path, "", tensors, {}, file.notes, "unknown", {})


def _renamed(file: CheckpointFile, family: str, module: ModuleType,
             tensors: dict[str, Tensor], keys: Iterable[str]) -> Checkpoint:
    titles = {id(tensor): name for name, tensor in tensors.items()}
    hints = _own_facts(file, module) if file.own_facts else {}
    renamed = module.rename_tensors(tensors, file.config_path)
    names = {name: titles.get(id(tensor), name)
             for name, tensor in renamed.tensors.items()}
    return Checkpoint(
        file.path, family,
        _join(renamed.tensors, getattr(module, "JOINED", {})),
        hints | renamed.hints,
        (*file.notes, *(f"state dict under {key!r}" for key in keys),
         *renamed.notes, f"{renamed.layout} names"),
        renamed.layout,
        {name: title for name, title in names.items() if name != title})


def _own_facts(file: CheckpointFile, module: ModuleType) -> dict[str, Any]:
    """What this program stored of the spec when it wrote the file."""
    try:
        hints = {name: tuple(value) if isinstance(value, list) else value
                 for name, value in json.loads(file.own_facts).items()}
        if not hints or not set(hints) <= set(module.HINTS):
            raise ValueError(f"keys {sorted(hints)}")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{file.path}: its metadata losa_jax is damaged "
                         f"({error!r}); convert the checkpoint again"
                         ) from error
    return hints


def _join(tensors: dict[str, Tensor], joined: dict[str, tuple[str, ...]]
          ) -> dict[str, Tensor]:
    """Parts become the one tensor that the table has.

    Parts that are missing or of unequal shapes stay, and are reported by
    their own names.
    """
    tensors = dict(tensors)
    for whole, templates in joined.items():
        pattern = _BLOCK.join(map(re.escape, templates[0].split("{i}")))
        blocks = sorted(int(block[1]) for name in tensors
                        if (block := re.fullmatch(pattern, name)))
        for i in blocks:
            names = [template.format(i=i) for template in templates]
            shapes = {tuple(tensors[name].shape) for name in names
                      if name in tensors}
            if all(name in tensors for name in names) and (
                    len(shapes) == 1 and len(*shapes)):
                tensors[whole.format(i=i)] = _Joined(
                    tuple(tensors.pop(name) for name in names))
    return tensors


def checkpoint_spec(checkpoint: Checkpoint, **options: Any) -> BackboneSpec:
    """Returns the spec of a checkpoint.

    Args:
      options: keyword arguments of the family's `infer_spec`, which overrule
        what the file says; None says nothing.

    Raises:
      InputError: of no family, or the family's own.
    """
    if not checkpoint.family:
        titles = [weights_module(family).TITLE for family in BACKBONES]
        some = ", ".join(list(checkpoint.tensors)[:5])
        raise InputError(f"no {' or '.join(titles)} encoder; the file begins "
                         f"with {some}: give a checkpoint of "
                         f"{' or '.join(titles)}")
    module = weights_module(checkpoint.family)
    given = {name: value for name, value in options.items()
             if value is not None}
    if useless := sorted(set(given) - set(module.HINTS)):
        raise InputError(f"{checkpoint.path}: {', '.join(useless)} cannot be "
                         f"chosen for {module.TITLE}: leave it out")
    return module.infer_spec(checkpoint.tensors,
                             **{**checkpoint.hints, **given})


def misfits(checkpoint: Checkpoint, spec: BackboneSpec) -> list[str]:
    """Returns a line for each tensor that is missing, unexpected or of the
    wrong shape."""
    tensors, name_of = checkpoint.tensors, checkpoint.describe
    joined = getattr(weights_module(checkpoint.family), "JOINED", {})
    expected = expected_source(spec)
    missing, odd, parts_seen = [], [], set()

    def compare(name, shape):
        actual = tuple(tensors[name].shape)
        if actual != tuple(shape):
            odd.append(f"wrong shape: {name_of(name)} is {actual}, should be "
                       f"{shape}")

    for name, place in expected.items():
        parts = [part.format(i=place.block)
                 for part in joined.get(place.rule.source, ())]
        if name in tensors:
            compare(name, place.shape)
        elif any(part in tensors for part in parts):
            share = (place.shape[0] // len(parts), *place.shape[1:])
            parts_seen.update(parts)
            for part in parts:
                if part in tensors:
                    compare(part, share)
                else:
                    missing.append(f"missing: {name_of(part)} {share}")
        else:
            missing.append(f"missing: {name_of(name)} {place.shape}")
    unexpected = [
        f"unexpected: {name_of(name)} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name not in expected and name not in parts_seen]
    return missing + unexpected + odd
