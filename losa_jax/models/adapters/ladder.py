"""AdaTAD's temporal adapter, and the side ladder made of it.

Source: AdaTAD (Liu et al., CVPR 2024) in OpenTAD (Apache-2.0). Differences:
padding is masked before the temporal convolution; the ladder's up-projections
act after the spatial mean: the same sum for less work, since both are linear.

Sizes: b windows of t tokens, s patches, c backbone width, d adapter width.
"""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax import errors
from losa_jax.models.adapters.base import StackedAdapter
from losa_jax.models.ops import conv, layers


@dataclasses.dataclass(frozen=True)
class LadderSpec:
    """The side ladder's sizes.

    Attributes:
      in_width, num_taps: channels c and number of the tapped blocks.
      width: channels d of the adapters; 0 is a quarter of `in_width`.
      long_kernel: length of the temporal convolution in tokens; odd.

    Raises:
      InputError: names the field and what it allows.
    """

    in_width: int
    num_taps: int
    width: int = 0
    long_kernel: int = 3

    def __post_init__(self) -> None:
        errors.check_whole(self, 1, "in_width", "num_taps")
        errors.check_whole(self, 0, "width")
        errors.check_odd(self, "long_kernel")
        if not self.width:
            if self.in_width < 4:
                raise errors.InputError(
                    f"LadderSpec.in_width={self.in_width} is too small to "
                    "take a quarter of it: give LadderSpec.width")
            object.__setattr__(self, "width", self.in_width // 4)


class TemporalAdapter(nnx.Module):
    """gamma up(h + conv(h)), h = GELU(down(x)), conv along the window."""

    def __init__(self, in_width: int, width: int, kernel: int, rngs: nnx.Rngs):
        self.down = layers.Linear(in_width, width, rngs=rngs)
        small = nnx.initializers.truncated_normal(0.02)
        self.down.kernel[...] = small(rngs.params(), (in_width, width))
        self.mixer = conv.DepthwiseConv(width, kernel, bias=True, rngs=rngs)
        self.mixer.kernel[...] = (2 / kernel) ** 0.5 * jax.random.normal(
            rngs.params(), (kernel, width))
        self.pointwise = layers.Linear(width, width, rngs=rngs)
        self.pointwise.kernel[...] = (2 / width) ** 0.5 * jax.random.normal(
            rngs.params(), (width, width))
        self.up = layers.zero_linear(width, in_width, rngs=rngs)
        self.gamma = nnx.Param(jnp.ones(1))

    def hidden(self, x: Float[Array, "b t s c"], valid: Bool[Array, "b t"]
               ) -> Float[Array, "b t s d"]:
        """Returns h + conv(h), where padding is zero."""
        keep = valid[:, :, None, None].astype(x.dtype)
        h = layers.gelu(self.down(x)) * keep
        return h + self.pointwise(self.mixer(h))

    def raised(self, hidden: Float[Array, "*n d"]) -> Float[Array, "*n c"]:
        """Returns gamma up(hidden)."""
        return self.gamma[...].astype(hidden.dtype) * self.up(hidden)

    def __call__(self, x: Float[Array, "b t s c"], valid: Bool[Array, "b t"]
                 ) -> Float[Array, "b t s c"]:
        """Returns the branch, to be added to x."""
        return self.raised(self.hidden(x, valid))


class LadderAdapter(StackedAdapter):
    """AdaTAD's adapters beside the frozen backbone, added to its last features.

    AdaTAD's reads all patches of the tapped blocks, not standardized: the taps
    of a backbone's `features(..., tap_norm=False)`. It takes other taps too.

    Args:
      spec: a `LadderSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: LadderSpec, *, rngs: nnx.Rngs):
        super().__init__(spec, lambda rngs: TemporalAdapter(
            spec.in_width, spec.width, spec.long_kernel, rngs), rngs)

    def _added(self, module: TemporalAdapter,
               tap: Float[Array, "b n u h w c"], last: Array,
               valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        step_valid = rearrange(valid, "b n u -> b (n u)")

        # Activations inside are h w times larger than the output.
        @jax.checkpoint
        def added(module, tap):
            x = rearrange(tap, "b n u h w c -> b (n u) (h w) c")
            return module.raised(module.hidden(x, step_valid).mean(axis=2))

        return added(module, tap)
