"""Temporal action localization in JAX: LoSA adapters beside a frozen backbone.

Names that are not in `__all__` are private. Each public name is imported at
its first use, so `import losa_jax` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losa_jax.detection.segments import Detection
    from losa_jax.errors import InputError
    from losa_jax.inference.load import load
    from losa_jax.inference.score_predictions import evaluate
    from losa_jax.models.adapters.ladder import LadderAdapter, LadderSpec
    from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec
    from losa_jax.models.heads.actionformer import (
        ActionFormer,
        ActionFormerSpec,
    )
    from losa_jax.models.heads.tridet import TriDet, TriDetSpec
    from losa_jax.weights.backbone_folder import load_backbone

__version__ = "0.2.0"
__all__ = [
    "ActionFormer", "ActionFormerSpec", "Detection", "InputError",
    "LadderAdapter", "LadderSpec", "LosaAdapter", "LosaSpec", "TriDet",
    "TriDetSpec", "evaluate", "load", "load_backbone"]

_MODULES = {
    "ActionFormer": "models.heads.actionformer",
    "ActionFormerSpec": "models.heads.actionformer",
    "Detection": "detection.segments",
    "InputError": "errors",
    "LadderAdapter": "models.adapters.ladder",
    "LadderSpec": "models.adapters.ladder",
    "LosaAdapter": "models.adapters.losa",
    "LosaSpec": "models.adapters.losa",
    "TriDet": "models.heads.tridet",
    "TriDetSpec": "models.heads.tridet",
    "evaluate": "inference.score_predictions",
    "load": "inference.load",
    "load_backbone": "weights.backbone_folder",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'losa_jax' has no attribute {name!r}; "
                             f"it has {', '.join(__all__)}")
    module = importlib.import_module(f"losa_jax.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
