"""XLA's compiler options by platform."""

import jax
from jax.sharding import Mesh

# On the CPU, XLA's library kernels for reductions cannot be fused: a layer
# norm and its gradient took 1.4 to 2.6 times as long (4608 and 9072 rows of
# 512). Matrix products still use the library.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type":
               "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def compiler_options(mesh: Mesh | None = None) -> dict[str, str] | None:
    """Returns the options for `jax.jit` of a backbone or a head on a mesh;
    None is the devices of this process."""
    platform = (jax.default_backend() if mesh is None
                else mesh.devices.flat[0].platform)
    return CPU_OPTIONS if platform == "cpu" else None
