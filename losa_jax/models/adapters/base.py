"""The contract of an adapter beside the frozen backbone."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float

from losa_jax.errors import InputError


class Adapter(Protocol):
    """What the detector calls; the constructor is `(spec, *, rngs)`.

    The spec is a frozen dataclass that checks itself. Its fields `in_width`
    (channels of the backbone), `num_taps`, `clip_tokens` and `tap_grid`
    describe the backbone's features; all others are keys of the config
    section `adapter`.
    """

    def __call__(self, last: Float[Array, "b n u c"],
                 taps: Float[Array, "k b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        """Returns features of b windows at their t = n u temporal tokens.

        See `LosaAdapter`. The adapter begins with `check_features` and
        `jax.lax.stop_gradient(taps)`. The result equals `last` before the
        first step of training, and at valid tokens it does not depend on the
        others.
        """
        ...


class AdapterType(NamedTuple):
    """An adapter's spec and module.

    Attributes:
      raw_taps: whether it reads every patch of the blocks' outputs unchanged;
        if not, taps are standardized and pooled to `tap_grid`.
    """

    spec: type[Any]
    module: Callable[..., Adapter]
    raw_taps: bool = False


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
