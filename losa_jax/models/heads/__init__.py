"""Detection heads: outputs, targets, loss and decoding.

`HEADS` lists them; config.head.kind names one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from losa_jax.models.heads.actionformer import ActionFormer, ActionFormerSpec
from losa_jax.models.heads.base import Head
from losa_jax.models.heads.tridet import TriDet, TriDetSpec


class HeadType(NamedTuple):
    """A head's spec, a frozen dataclass, and its module."""

    spec: type[Any]
    module: Callable[..., Head]


HEADS = {
    "actionformer": HeadType(ActionFormerSpec, ActionFormer),
    "tridet": HeadType(TriDetSpec, TriDet),
}
