"""The contract of an adapter beside the frozen backbone."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.errors import InputError
from losa_jax.models.ops.params import stacked


class Adapter(Protocol):
    """What the detector calls; the constructor is `(spec, *, rngs)`.

    The spec is a frozen dataclass that checks itself. Its fields `in_width`
    (channels of the backbone), `num_taps`, `clip_tokens` and `tap_grid`
    describe the backbone's features; all others are keys of config.adapter.
    """

    def __call__(self, last: Float[Array, "b n u c"],
                 taps: Float[Array, "k b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        """Returns features of windows; see `StackedAdapter`.

        It begins with `check_features` and `jax.lax.stop_gradient(taps)`.
        """


class AdapterType(NamedTuple):
    """An adapter's spec and module.

    Attributes:
      raw_taps: whether it reads every patch of the blocks' outputs unchanged,
        unless config.adapter.raw_taps is False; otherwise taps are
        standardized and pooled to `tap_grid`.
    """

    spec: type[Any]
    module: Callable[..., Adapter]
    raw_taps: bool = False


class StackedAdapter(nnx.Module):
    """An adapter with a module for each tap, whose outputs are added up.

    The modules are stacked and run in a scan, so that compile time does not
    grow with their number.
    """

    def __init__(self, spec: Any, build: Callable[[nnx.Rngs], nnx.Module],
                 rngs: nnx.Rngs):
        self.spec = spec
        self.taps = stacked(build, spec.num_taps, rngs)

    def __call__(self, last: Float[Array, "b n u c"],
                 taps: Float[Array, "k b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        """Returns features of b windows at their t = n u temporal tokens.

        They have the dtype of `last` and equal it at the start of training.

        Args:
          last: spatial mean of the last block's output at the u temporal
            tokens of each of n clips, zero where not valid. Runs pass it
            standardized per channel over the training set.
          taps: outputs of the k tapped blocks as the class describes them;
            they get no gradient.
          valid: False on padding, which has no effect on real tokens.
        """
        return self._run(last, taps, valid, keep_sums=False)[0]

    def sums(self, last: Float[Array, "b n u c"],
             taps: Float[Array, "k b n u h w c"],
             valid: Bool[Array, "b n u"]) -> Float[Array, "k b t c"]:
        """Returns the features after each tap; the last are the result."""
        return self._run(last, taps, valid, keep_sums=True)[1]

    def _run(self, last: Array, taps: Array, valid: Array, *,
             keep_sums: bool) -> tuple[Array, Any]:
        check_features(self.spec, last, taps, valid)
        taps = jax.lax.stop_gradient(taps)
        start = rearrange(last, "b n u c -> b (n u) c")

        def add_tap(total, inputs):
            module, tap = inputs
            added = self._added(module, tap, last, valid)
            total = total + added.astype(total.dtype)
            return total, total if keep_sums else None

        return self._scan(add_tap, start, (self.taps, taps))

    def _added(self, module: Any, tap: Float[Array, "b n u h w c"],
               last: Float[Array, "b n u c"], valid: Bool[Array, "b n u"]
               ) -> Float[Array, "b t c"]:
        return module(tap, last, valid)

    @staticmethod
    def _scan(step: Callable[..., Any], carry: Array, inputs: Any
              ) -> tuple[Array, Any]:
        return jax.lax.scan(step, carry, inputs)


def check_features(spec: Any, last: Array, taps: Array, valid: Array) -> None:
    """Raises InputError if an array has another shape than the spec says."""
    b, n, u, c = (*last.shape, 0, 0, 0, 0)[:4]
    k, *_, h, w, _ = (*taps.shape, *7 * (0,))[:7]
    h, w = getattr(spec, "tap_grid", (h, w))
    k, u = getattr(spec, "num_taps", k), getattr(spec, "clip_tokens", u)
    c = getattr(spec, "in_width", c)
    for name, array, shape in (
            ("last", last, (b, n, u, c)),
            ("taps", taps, (k, b, n, u, h, w, c)),
            ("valid", valid, (b, n, u))):
        if array.shape != shape:
            raise InputError(f"{name} has shape {array.shape}: "
                             f"{type(spec).__name__} needs {shape}")
