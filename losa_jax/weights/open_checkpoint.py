"""Opens a public checkpoint of a backbone under the names of its table."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.weights.checkpoint_file import open_file, state_dict
from losa_jax.weights.name_table import FAMILIES, Place
from losa_jax.weights.torch_pickle import Tensor

# The number of a block in a name.
_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint, opened but not read.

    Attributes:
      family: of `BACKBONES`; "" where no family recognizes the names.
      tensors: by the names of the family's table.
      hints: arguments of `infer_spec` that the file itself gives.
      notes: lines about what was renamed, joined or dropped.
      file_names: {name in the table: in the file}, where they differ.
    """

    family: str
    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    notes: tuple[str, ...]
    file_names: dict[str, str]

    def describe(self, name: str) -> str:
        """Returns a tensor's name, and its name in the file if different."""
        title = self.file_names.get(name)
        if title is None and (block := _BLOCK.search(name)):
            # A missing tensor is named like the same one of another block.
            title = next((_BLOCK.sub(block[0], in_file, count=1)
                          for other, in_file in self.file_names.items()
                          if _BLOCK.sub(block[0], other, count=1) == name),
                         None)
        return f"{name} (in the file: {title})" if title else name


def open_checkpoint(path: str | Path, *, probe: Path | None = None
                    ) -> Checkpoint:
    """Opens a file or folder (see `open_file`) and renames its tensors.

    Args:
      probe: a file with the classifier of the encoder in `path`, for families
        with `probe_tensors`.

    Raises:
      InputError: missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    content, metadata = open_file(path)
    for family, module in FAMILIES.items():
        tensors, keys = state_dict(content, *module.WRAPPERS)
        if not module.recognizes(tensors):
            continue
        notes = [f"state dict under {key!r}" for key in keys]
        unread = [str(key) for key, entry in content.items()
                  if key not in keys and isinstance(entry, Mapping)]
        if unread:
            notes.append("entries of the file that are not read: "
                         + ", ".join(unread))
        config = (path if path.is_dir() else path.parent) / "config.json"
        renamed, hints = module.rename_tensors(tensors, config, notes)
        if probe is not None:
            renamed = _with_probe(renamed, probe, module)
            notes.append(f"attentive classifier of {probe}")
        titles = {id(tensor): name for name, tensor in tensors.items()}
        file_names = {name: title for name, tensor in renamed.items()
                      if (title := titles.get(id(tensor), name)) != name}
        return Checkpoint(family, _join(renamed, module.JOINED),
                          _stored_hints(path, metadata, module.HINTS) | hints,
                          tuple(notes), file_names)
    tensors, _ = state_dict(content)
    if tensors:
        return Checkpoint("", tensors, {}, (), {})
    problem = (f"no tensors in it; keys: {', '.join(map(str, [*content][:8]))}"
               if isinstance(content, Mapping) else
               f"holds a {type(content).__name__}, not a state dict")
    remedy = "save the model's state dict alone"
    if isinstance(content, Tensor):
        remedy += ", or give the folder of such files if these are features"
    if isinstance(content, Mapping) and "classifiers" in content:
        remedy = ("these are attentive probes: give the checkpoint of their "
                  "encoder, with --probe=this file")
    raise InputError(f"{path}: {problem}: {remedy}")


def _with_probe(tensors: dict[str, Tensor], probe: Path, module: ModuleType
                ) -> dict[str, Tensor]:
    """Returns the tensors and those of the probe's file."""
    if not hasattr(module, "probe_tensors"):
        raise InputError(f"{probe}: a {module.TITLE} checkpoint takes no probe "
                         "of its own: leave out --probe")
    added = module.probe_tensors(probe)
    if twice := sorted(set(tensors) & set(added)):
        raise InputError(f"{probe}: {twice[0]} is in the checkpoint too: leave "
                         "out --probe")
    return tensors | added


def _stored_hints(path: Path, metadata: str, known: tuple[str, ...]
                  ) -> dict[str, Any]:
    """Returns the fields of the spec that `save_source` stored."""
    if not metadata:
        return {}
    try:
        hints = {name: tuple(value) if isinstance(value, list) else value
                 for name, value in json.loads(metadata).items()}
        if not hints or not set(hints) <= set(known):
            raise ValueError(f"keys {sorted(hints)}")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: its losa_jax metadata is damaged "
                         f"({error!r}); repeat --to=torch") from error
    return hints


def _join(tensors: dict[str, Tensor], joined: dict[str, tuple[str, ...]]
          ) -> dict[str, Tensor]:
    """Concatenates the parts of tensors, where all have one shape."""
    tensors = dict(tensors)
    blocks = sorted({int(block[0]) for name in tensors
                     if (block := _BLOCK.search(name))})
    for joined_name, templates in joined.items():
        for i in blocks:
            names = [template.format(i=i) for template in templates]
            shapes = {tensors[name].shape if name in tensors else ()
                      for name in names}
            if len(shapes) == 1 and () not in shapes:
                parts = [tensors.pop(name) for name in names]
                rows, *rest = parts[0].shape
                dtypes = {part.dtype for part in parts}
                # By way of float32: float16 and bfloat16 have no common type.
                dtype = dtypes.pop() if len(dtypes) == 1 else functools.reduce(
                    np.promote_types, dtypes, np.dtype(np.float32))
                tensors[joined_name.format(i=i)] = Tensor(
                    parts[0].path, (rows * len(parts), *rest), dtype,
                    functools.partial(_read_joined, parts, dtype))
    return tensors


def _read_joined(parts: list[Tensor], dtype: np.dtype) -> np.ndarray:
    return np.concatenate([part.read().astype(dtype, copy=False)
                           for part in parts])


def checkpoint_spec(checkpoint: Checkpoint, **options: Any) -> BackboneSpec:
    """Returns the spec of a checkpoint.

    Args:
      options: arguments of the family's `infer_spec` that no tensor shows;
        they override the file's unless None.

    Raises:
      InputError: of no family, or sizes are missing or wrong.
    """
    if not checkpoint.family:
        *titles, last = (module.TITLE for module in FAMILIES.values())
        known = f"{', '.join(titles)} or {last}"
        some = ", ".join(list(checkpoint.tensors)[:5])
        raise InputError(f"no {known} encoder; the file begins with {some}: "
                         f"give a checkpoint of {known}")
    module = FAMILIES[checkpoint.family]
    given = {name: value for name, value in options.items()
             if value is not None}
    if useless := sorted(set(given) - set(module.HINTS)):
        raise InputError(f"{', '.join(useless)} cannot be chosen for "
                         f"{module.TITLE}: leave it out")
    spec = module.infer_spec(checkpoint.tensors, **checkpoint.hints | given)
    if useless := [name for name, value in given.items()
                   if getattr(spec, name) != value]:
        raise InputError(f"{', '.join(useless)} has no effect on "
                         f"{module.describe(spec)}: leave it out")
    return spec


def misfits(checkpoint: Checkpoint, expected: Mapping[str, Place]
            ) -> list[str]:
    """Returns a line for each tensor that is missing, unexpected or of the
    wrong shape; `expected` is `expected_source` of the spec."""
    tensors, name_of = checkpoint.tensors, checkpoint.describe
    shapes: dict[str, tuple[int, ...]] = {}
    for name, place in expected.items():
        parts = [part.format(i=place.block) for part in
                 FAMILIES[checkpoint.family].JOINED.get(place.rule.source, ())]
        if name not in tensors and any(part in tensors for part in parts):
            rows, *rest = place.shape
            shapes |= dict.fromkeys(parts, (rows // len(parts), *rest))
        else:
            shapes[name] = place.shape
    actual = {name: tensor.shape for name, tensor in tensors.items()}
    return [
        *(f"missing: {name_of(name)} {shape}"
          for name, shape in shapes.items() if name not in actual),
        *(f"unexpected: {name_of(name)} {shape}"
          for name, shape in actual.items() if name not in shapes),
        *(f"wrong shape: {name_of(name)} is {actual[name]}, should be {shape}"
          for name, shape in shapes.items()
          if actual.get(name, shape) != shape)]
