"""What XLA is told beside the program, by kind of device."""

import jax
from jax.sharding import Mesh

# XLA's library kernels for reductions on the CPU take no part in fusions and
# want their operands spelled out: a layer norm and its gradient took 1.4 to
# 2.6 times as long (4608 and 9072 rows of 512). Matrix products stay there.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type":
               "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def compiler_options(mesh: Mesh | None = None) -> dict[str, str] | None:
    """For `jax.jit` of anything that holds a backbone or a head.

    Args:
      mesh: where it runs; None for the devices of this process.
    """
    platform = (jax.default_backend() if mesh is None
                else mesh.devices.flat[0].platform)
    return CPU_OPTIONS if platform == "cpu" else None
