"""AdaTAD's temporal adapter, and the side ladder made of it.

Source: AdaTAD (Liu et al., CVPR 2024) in OpenTAD (Apache-2.0). Differences:
padding is masked before
the temporal convolution, so that it cannot leak into real tokens; the
ladder's up-projections act after the spatial mean, which is the same sum,
since both are linear, and costs h w times less.

Sizes: b windows, t tokens of a window over all its clips, s patches, c
backbone width, d adapter width.
"""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.errors import InputError, check_odd, check_whole
from losa_jax.models.ops.conv import DepthwiseConv
from losa_jax.models.ops.layers import Linear, gelu


@dataclasses.dataclass(frozen=True)
class LadderSpec:
    """The side ladder's sizes.

    Attributes:
      in_width: c, of the backbone.
      num_taps: tapped layers.
      width: d, of the adapters; 0 is a quarter of `in_width`.
      long_kernel: length of the temporal convolution in tokens.
    """

    in_width: int
    num_taps: int
    width: int = 0
    long_kernel: int = 3

    def __post_init__(self) -> None:
        check_whole(self, 1, "in_width", "num_taps")
        check_whole(self, 0, "width")
        check_odd(self, "long_kernel")
        if not self.width:
            if self.in_width < 4:
                raise InputError(
                    f"LadderSpec.in_width={self.in_width}: a quarter of it "
                    "is no width of adapters: give LadderSpec.width")
            object.__setattr__(self, "width", self.in_width // 4)


class TemporalAdapter(nnx.Module):
    """gamma up(h + conv(h)), h = GELU(down(x)), conv along the window."""

    def __init__(self, in_width: int, width: int, *, kernel: int = 3,
                 rngs: nnx.Rngs):
        self.down = Linear(in_width, width, rngs=rngs)
        small = nnx.initializers.truncated_normal(0.02)
        self.down.kernel[...] = small(rngs.params(), (in_width, width))
        self.mixer = DepthwiseConv(width, kernel, bias=True, rngs=rngs)
        self.mixer.kernel[...] = (2 / kernel) ** 0.5 * jax.random.normal(
            rngs.params(), (kernel, width))
        self.pointwise = Linear(width, width, rngs=rngs)
        self.pointwise.kernel[...] = (2 / width) ** 0.5 * jax.random.normal(
            rngs.params(), (width, width))
        self.up = Linear(width, in_width, rngs=rngs)
        self.up.kernel[...] = jnp.zeros((width, in_width))
        self.gamma = nnx.Param(jnp.ones(1))

    def hidden(self, x: Float[Array, "b t s c"], valid: Bool[Array, "b t"]
               ) -> Float[Array, "b t s d"]:
        """h + conv(h), zero padded at both ends of what is valid."""
        keep = valid[:, :, None, None].astype(x.dtype)
        h = gelu(self.down(x)) * keep
        return h + self.pointwise(self.mixer(h))

    def raised(self, hidden: Float[Array, "*n d"]) -> Float[Array, "*n c"]:
        """Back to the backbone's width."""
        return self.gamma[...].astype(hidden.dtype) * self.up(hidden)

    def __call__(self, x: Float[Array, "b t s c"], valid: Bool[Array, "b t"]
                 ) -> Float[Array, "b t s c"]:
        """What the adapter adds to x."""
        return self.raised(self.hidden(x, valid))


class LadderAdapter(nnx.Module):
    """Adapters beside the frozen backbone, summed onto its last features."""

    def __init__(self, spec: LadderSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.taps = nnx.vmap(lambda key: TemporalAdapter(
            spec.in_width, spec.width, kernel=spec.long_kernel,
            rngs=nnx.Rngs(params=key))
        )(jax.random.split(rngs.params(), spec.num_taps))

    def __call__(self, last: Float[Array, "b n u c"],
                 taps: Float[Array, "k b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t c"]:
        """Arguments and result as those of `Adapter`; taps as the blocks gave
        them, not standardised."""
        taps = jax.lax.stop_gradient(taps)
        start = rearrange(last, "b n u c -> b (n u) c")
        step_valid = rearrange(valid, "b n u -> b (n u)")

        # What is inside an adapter is h w times larger than what it gives.
        @jax.checkpoint
        def added(adapter, tap):
            x = rearrange(tap, "b n u h w c -> b (n u) (h w) c")
            pooled = adapter.hidden(x, step_valid).mean(axis=2)
            return adapter.raised(pooled)

        def add_tap(total, inputs):
            adapter, tap = inputs
            return total + added(adapter, tap).astype(total.dtype), None

        total, _ = jax.lax.scan(add_tap, start, (self.taps, taps))
        return total
