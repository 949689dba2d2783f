"""Temporal action localization in JAX: LoSA adapters beside a frozen backbone.

Names that are not in `__all__` are private. Each public name is imported at
its first use, so `import losa_jax` is quick.
"""

from etils import epy

__version__ = "0.2.0"
__all__ = [
    "ActionFormer", "ActionFormerSpec", "Detection", "InputError",
    "LadderAdapter", "LadderSpec", "LosaAdapter", "LosaSpec", "TriDet",
    "TriDetSpec", "evaluate", "load", "load_backbone"]

with epy.lazy_api_imports(globals()):
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
