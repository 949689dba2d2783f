"""Adapters beside the frozen backbone, and inside it.

`ADAPTERS` lists those beside it, `inside_backbone.ADAPTER_TYPES` those inside;
config.adapter.kind names one of either.
"""

from losa_jax.models.adapters.base import AdapterType
from losa_jax.models.adapters.ladder import LadderAdapter, LadderSpec
from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec

ADAPTERS = {
    "losa": AdapterType(LosaSpec, LosaAdapter),
    "ladder": AdapterType(LadderSpec, LadderAdapter, raw_taps=True),
}
