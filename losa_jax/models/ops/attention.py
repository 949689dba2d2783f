"""Softmax attention: one function, the implementation that suits the device."""

import contextlib
import functools
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float

from losa_jax.models.ops.cpu_attention import cpu_attention
from losa_jax.models.ops.flash_attention import can_flash, flash_attention

# More scores a head than this are rematerialized if there is a mask: those of
# a window of 768 tokens would take most of a head's memory. (Attention without
# a mask is a backbone's, whose blocks are rematerialized as a whole.)
MAX_STORED_SCORES = 512 * 512
_is_portable = False


@jax.named_scope("attention")  # planning counts its FLOPs by this name
def attention(query: Float[Array, "b q heads d"],
              key: Float[Array, "b t heads d"],
              value: Float[Array, "b t heads d"],
              mask: Bool[Array, "b #heads #q t"] | None = None,
              scale: float | None = None,
              place: NamedSharding | None = None
              ) -> Float[Array, "b q heads d"]:
    """Returns scaled dot-product attention with a float32 softmax.

    Args:
      query, key, value: heads already split.
      mask: True where a query may attend; a query without any such key gets
        the mean over all keys, so mask its output.
      scale: of the scores; None is 1 / sqrt(d).
      place: how the first axis is sharded over devices, if that is known; a
        TPU's flash kernel needs it.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if mask is None and not _is_portable and place is not None and (
            can_flash(query, key, place)):
        return flash_attention(query, key, value, scale, place)

    remat = mask is not None and (
        query.shape[1] * key.shape[1] > MAX_STORED_SCORES)

    def elsewhere(query, key, value, mask, implementation=None):
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, scale=scale,
            implementation=implementation)

    # By platform: one program may be compiled for several.
    paths = {"cpu": functools.partial(cpu_attention, scale=scale,
                                      remat=remat)}
    if _cudnn_supports(query, mask):
        paths["cuda"] = functools.partial(elsewhere, implementation="cudnn")
    return jax.lax.platform_dependent(
        query, key, value, mask, **paths,
        default=jax.checkpoint(elsewhere) if remat else elsewhere)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Traces attention without kernels of a single platform.

    An exported program then runs on several platforms and later versions.
    """
    global _is_portable
    before, _is_portable = _is_portable, True
    try:
        yield
    finally:
        _is_portable = before


def _cudnn_supports(query: Array, mask: Array | None) -> bool:
    """Whether cuDNN's flash kernel, which stores no scores, takes this.

    Its limits: 16-bit numbers, heads of up to 128 channels in multiples of
    8, Ampere GPUs or newer (jax.nn.dot_product_attention's documentation).
    Not tested on a GPU.
    """
    d = query.shape[-1]
    if (_is_portable or mask is not None or query.dtype.itemsize != 2
            or d > 128 or d % 8):
        return False
    device = jax.devices()[0]
    return device.platform == "gpu" and (
        float(getattr(device, "compute_capability", 0)) >= 8.0)
