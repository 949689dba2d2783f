"""The contract of an adapter beside the frozen backbone."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float

from losa_jax.errors import InputError


class Adapter(Protocol):
    """What the detector calls; the constructor is `(spec, *, rngs)`.

    The spec is a frozen dataclass that checks itself. Its fields `in_width`
    (channels of the backbone), `num_taps`, `clip_tokens` and `tap_grid` are
    what the backbone gives; all others are keys of the config section
    `adapter`.
    """

    def __call__(self, last: Float[Array, "b n u c"],
                 taps: Float[Array, "k b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        """Features of b windows at their t = n u temporal tokens.

        Args:
          last: standardized spatial mean of the last block's output; zero
            where not valid.
          taps: outputs of the k tapped blocks; the adapter begins with
            `jax.lax.stop_gradient(taps)`.
          valid: real tokens; outputs there must not depend on the others.

        Returns:
          exactly `last` at the first step of training.
        """
        ...


class AdapterType(NamedTuple):
    """An adapter's spec and module.

    Attributes:
      raw_taps: it reads every patch as the blocks give it; else taps are
        standardized and pooled to `tap_grid`.
    """

    spec: type[Any]
    module: Callable[..., Adapter]
    raw_taps: bool = False


def check_features(spec: Any, last: Array, taps: Array, valid: Array) -> None:
    """Refuses features of other sizes than the spec's.

    Args:
      spec: with those of `in_width`, `num_taps`, `clip_tokens` and
        `tap_grid` that the adapter depends on.
      last, taps, valid: see `Adapter`.

    Raises:
      InputError: names the array and the shape that it must have.
    """
    b, n, u, c = (*last.shape, 0, 0, 0, 0)[:4]
    k, *_, h, w, _ = (*taps.shape, *7 * (0,))[:7]
    h, w = getattr(spec, "tap_grid", (h, w))
    k, u = getattr(spec, "num_taps", k), getattr(spec, "clip_tokens", u)
    c = getattr(spec, "in_width", c)
    for name, array, wanted in (
            ("last", last, (b, n, u, c)),
            ("taps", taps, (k, b, n, u, h, w, c)),
            ("valid", valid, (b, n, u))):
        if array.shape != wanted:
            raise InputError(
                f"{name} is of shape {array.shape}: {type(spec).__name__} "
                f"needs {wanted}")
