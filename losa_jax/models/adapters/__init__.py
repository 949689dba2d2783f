"""Adapters beside the frozen backbone, and inside it.

`ADAPTERS` is the one place that lists those beside it; config.adapter.kind
names one. Those inside it: `inside_backbone`.
"""

from losa_jax.models.adapters.base import AdapterType
from losa_jax.models.adapters.ladder import LadderAdapter, LadderSpec
from losa_jax.models.adapters.losa import LosaAdapter, LosaSpec

ADAPTERS = {
    "losa": AdapterType(LosaSpec, LosaAdapter),
    "ladder": AdapterType(LadderSpec, LadderAdapter, raw_taps=True),
}
