"""Feature files of PyTorch (.pt) as .npy files, which training reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.errors import InputError, counted
from losa_jax.utils.atomic_write import atomic_file, make_folder
from losa_jax.weights.checkpoint_file import is_model_folder
from losa_jax.weights.torch_pickle import Tensor, load_torch_zip

_SUFFIXES = (".pt", ".pth")


def find_features(folder: Path) -> list[Path]:
    """Returns the .pt files of a folder that holds no model, one a video."""
    if not folder.is_dir() or is_model_folder(folder):
        return []
    # macOS writes hidden files beside those of other systems.
    return sorted(path for path in folder.iterdir()
                  if path.suffix in _SUFFIXES and path.name[0] != "."
                  and not path.is_dir())


def convert_features(paths: list[Path], output: Path) -> None:
    """Writes the tensor of each file as <name>.npy.

    Raises:
      InputError: a file as of `open_features`, or two files of one name.
    """
    stems = [path.stem for path in paths]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise InputError(f"{paths[0].parent}: has two files of {twice[0]}: "
                         "remove one of them")
    make_folder(output)
    for path in paths:
        array = open_features(path).read()
        if array.dtype.name == "bfloat16":  # which NumPy does not store
            array = array.astype(np.float32)
        with (atomic_file(output / f"{path.stem}.npy") as temporary,
              temporary.open("wb") as file):
            np.save(file, array)


def open_features(path: Path) -> Tensor:
    """Returns the only tensor of a file, alone or in a dict or list, unread;
    InputError for another number of tensors, or no floating-point numbers."""
    content: Any = load_torch_zip(path)
    parts = (list(content.values()) if isinstance(content, Mapping)
             else content if isinstance(content, (list, tuple))
             else [content])
    tensors = [part for part in parts if isinstance(part, Tensor)]
    shapes = [tensor.shape for tensor in tensors]
    if len(shapes) != 1 or len(shapes[0]) < 2 or 0 in shapes[0]:
        names = (f" ({', '.join(map(str, [*content][:5]))})"
                 if isinstance(content, Mapping) else "")
        names += f" of the shape {shapes[0]}" if len(shapes) == 1 else ""
        raise InputError(
            f"{path}: holds {counted(len(tensors), 'tensor')}{names}, not one "
            "with the features of a video, [time, width]: save it alone with "
            "torch.save(tensor, FILE); of a model give the file, not its "
            "folder")
    (tensor,) = tensors
    if np.dtype(tensor.dtype).name not in ("float64", "float32", "float16",
                                           "bfloat16"):
        raise InputError(f"{path}: holds numbers of type {tensor.dtype}, not "
                         "floating-point numbers: save tensor.float()")
    return tensor
