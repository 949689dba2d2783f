"""Layers that pyramid heads share: embedding, pyramid, neck, outputs.

Source: ActionFormer (Zhang et al., ECCV 2022) and TriDet (Shi et al., CVPR
2023), public code (MIT). Unlike both, and like OpenTAD, tokens are masked again
after each norm and activation, so that a norm's bias on padding cannot reach
real tokens through the next convolution. `reference_masking` omits this.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.errors import InputError
from losa_jax.models.heads.pyramid_spec import PyramidSpec
from losa_jax.models.ops import conv, layers, positions, remat, resample

NORM_EPSILON = 1e-5
OPENTAD_EPSILON = 1e-6  # of norms after convolutions

# Lengths t differ between levels, so tests do not compare them.
Level = tuple[Float[Array, "b _t _c"], Bool[Array, "b _t"]]
LevelOutputs = list[Float[Array, "b _t _k"]]


def masked(x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
           spec: PyramidSpec) -> Float[Array, "b t c"]:
    """Returns x, zero at padding unless `reference_masking` is set."""
    if spec.reference_masking:
        return x
    return x * valid[..., None].astype(x.dtype)


def run_block(block: nnx.Module, spec: PyramidSpec, *inputs: Any) -> Any:
    """Returns block(*inputs), rematerialized if the spec says so."""
    return remat.recomputed(block, *inputs) if spec.remat else block(*inputs)


def residual_scale(spec: PyramidSpec) -> nnx.Param | None:
    """Returns the learned scale of a branch; None without drop path."""
    # ActionFormer's initial value.
    scale = jnp.full(spec.width, 1e-4)
    return nnx.Param(scale) if spec.drop_path > 0 else None


def scaled_branch(branch: Float[Array, "b t c"], scale: nnx.Param | None,
                  spec: PyramidSpec, key: Array | None
                  ) -> Float[Array, "b t c"]:
    """Applies scale and drop path to a branch, if `scale` is given."""
    if scale is None:
        return branch
    return layers.drop_path(branch * scale[...].astype(branch.dtype),
                            spec.drop_path, key)


Pointwise = functools.partial(layers.Linear, init=layers.torch_uniform)


class ConvNormRelu(nnx.Module):
    """Masked convolution, layer norm and ReLU, masked again."""

    def __init__(self, spec: PyramidSpec, in_width: int, out_width: int,
                 kernel_size: int, has_norm: bool, rngs: nnx.Rngs):
        self.conv = conv.MaskedConv(in_width, out_width, kernel_size,
                                    bias=not has_norm, rngs=rngs)
        epsilon = OPENTAD_EPSILON if spec.opentad else NORM_EPSILON
        self.norm = (layers.LayerNorm(out_width, epsilon) if has_norm else None)
        self.spec = spec

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"]
                 ) -> Float[Array, "b t d"]:
        y = self.conv(x, valid)
        y = jax.nn.relu(y if self.norm is None else self.norm(y))
        if self.spec.opentad:
            return y * valid[..., None].astype(y.dtype)
        return masked(y, valid, self.spec)


class Pyramid(nnx.Module):
    """Features to the tokens of all levels: embedding, stem, branch."""

    def __init__(self, spec: PyramidSpec,
                 make_block: Callable[[int, int], nnx.Module], rngs: nnx.Rngs):
        """`make_block`: (level, stride) to (x, valid, key) -> (x, valid)."""
        self.spec = spec
        self.projections = nnx.List([
            conv.MaskedConv(*widths, 1, rngs=rngs) for widths in zip(
                spec.input_widths, spec.input_projections, strict=True)])
        self.embedding = nnx.List([
            ConvNormRelu(spec, spec.embedded_width if i == 0 else spec.width,
                         spec.width, spec.embedding_kernel,
                         spec.embedding_norm, rngs)
            for i in range(spec.num_embedding_convs)])
        self.stem = nnx.List([make_block(0, 1)
                              for _ in range(spec.num_stem_blocks)])
        self.branch = nnx.List([make_block(level, 2)
                                for level in range(1, spec.num_levels)])

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None) -> list[Level]:
        """Returns tokens and validity of every level, the finest first."""
        spec = self.spec
        if x.shape[2] != spec.in_width:
            raise InputError(f"features have {x.shape[2]} channels, but "
                             f"{type(spec).__name__}.in_width={spec.in_width}")
        if x.shape[1] % spec.strides[-1]:
            raise InputError(f"{x.shape[1]} tokens: pad to a multiple of "
                             f"the last level's stride {spec.strides[-1]}")
        num_blocks = len(self.stem) + len(self.branch)
        keys = ([None] * (num_blocks + 1) if key is None
                else list(jax.random.split(key, num_blocks + 1)))
        x = masked(_augmented(x, spec, keys.pop()), valid, spec)
        if self.projections:
            ends = np.cumsum(spec.input_widths)[:-1].tolist()
            x = jnp.concatenate([
                layer(part, valid) for layer, part in zip(
                    self.projections, jnp.split(x, ends, axis=2), strict=True)
            ], axis=2)
        for layer in self.embedding:
            x = run_block(layer, spec, x, valid)
        if spec.absolute_positions:
            table = _position_table(spec, x.shape[1])
            x = x + table * valid[..., None].astype(x.dtype)
        for block in self.stem:
            x, valid = run_block(block, spec, x, valid, keys.pop())
        levels = [(x, valid)]
        for block in self.branch:
            x, valid = run_block(block, spec, x, valid, keys.pop())
            levels.append((x, valid))
        return levels


def _augmented(x: Array, spec: PyramidSpec, key: Array | None) -> Array:
    """Returns x with noise and dropped channels, in training."""
    if key is None:
        return x
    noise_key, drop_key = jax.random.split(key)
    if spec.input_noise:
        x = x + spec.input_noise * jax.random.normal(noise_key, x.shape,
                                                     x.dtype)
    return layers.dropout(x, spec.input_dropout, drop_key, shared_axes=(1,))


def _position_table(spec: PyramidSpec, length: int) -> Float[Array, "1 t c"]:
    """Returns ActionFormer's sinusoids / sqrt(c), stretched if too short."""
    table = jnp.asarray(positions.sincos_table(spec.max_tokens, 1, 1,
                                               spec.width))
    table = table[None, :, 0, 0] / math.sqrt(spec.width)
    if length > spec.max_tokens:
        return resample.resize_time(table, length)
    return table[:, :length]


class Neck(nnx.Module):
    """Norms between pyramid and outputs.

    "fpn" first has lateral 1 x 1 convolutions, adds each level to the next
    finer one, and smooths by depthwise convolutions.
    """

    def __init__(self, spec: PyramidSpec, rngs: nnx.Rngs):
        width, _ = spec.level_widths
        levels = range(spec.num_levels)
        self.spec = spec
        if spec.neck == "fpn":
            has_bias = not spec.neck_norm
            self.lateral = nnx.List([
                conv.MaskedConv(spec.width, width, 1, bias=has_bias, rngs=rngs)
                for _ in levels])
            self.smooth = nnx.List([
                conv.DepthwiseConv(width, 3, bias=has_bias, rngs=rngs)
                for _ in levels])
        if spec.neck_norm:
            self.norms = nnx.List([layers.LayerNorm(width, NORM_EPSILON)
                                   for _ in levels])

    def __call__(self, levels: list[Level]) -> list[Level]:
        features, valids = map(list, zip(*levels, strict=True))
        if self.spec.neck == "fpn":
            features = [lateral(x, valid) for lateral, (x, valid)
                        in zip(self.lateral, levels, strict=True)]
            for level in range(len(levels) - 1, 0, -1):
                features[level - 1] += jnp.repeat(features[level], 2, axis=1)
            features = [
                smooth(x) * valid[..., None].astype(x.dtype)
                for smooth, x, valid in zip(self.smooth, features, valids,
                                            strict=True)]
        if self.spec.neck_norm:
            features = [norm(x) for norm, x in zip(self.norms, features,
                                                   strict=True)]
        return [(masked(x, valid, self.spec), valid)
                for x, valid in zip(features, valids, strict=True)]


class OutputHead(nnx.Module):
    """Convolutions shared by all levels, then the prediction.

    All levels are joined along time, separated by as many zeros as a filter
    reaches, so that each layer is one product.
    """

    def __init__(self, spec: PyramidSpec, outputs: int, rngs: nnx.Rngs, *,
                 prior: float = 0.5, kernel_size: int = 0):
        """The bias starts at `prior`; `kernel_size` 0 is spec.head_kernel."""
        kernel_size = kernel_size or spec.head_kernel
        in_width, width = spec.level_widths
        widths = [in_width] + [width] * (spec.head_layers - 1)
        self.convs = nnx.List([
            ConvNormRelu(spec, one, width, kernel_size, spec.head_norm, rngs)
            for one in widths[:-1]])
        # ActionFormer: prior 0.01 gives the bias -4.595.
        self.out = conv.MaskedConv(
            widths[-1], outputs, kernel_size,
            bias_value=-math.log((1 - prior) / prior), rngs=rngs)
        self.gap = kernel_size // 2
        self.spec = spec

    def __call__(self, levels: list[Level]) -> LevelOutputs:
        """Returns the predictions of every level."""
        lengths = [x.shape[1] for x, _ in levels]
        starts = itertools.accumulate(
            (length + self.gap for length in lengths), initial=0)
        x, valid = map(self._joined, zip(*levels, strict=True))
        inside = self._joined([jnp.ones((1, length, 1), bool)
                               for length in lengths])
        for layer in self.convs:
            x = layer(x, valid) * inside.astype(x.dtype)
        if self.spec.opentad and self.spec.reference_masking:
            valid = jnp.ones_like(valid)  # OpenTAD masks no predictions
        y = self.out(x, valid)
        return [y[:, start:start + length] for start, length
                in zip(starts, lengths, strict=False)]

    def _joined(self, parts: Sequence[Array]) -> Array:
        """Returns arrays joined along time, with zeros (False) after each."""
        pads = [(0, 0), (0, self.gap), (0, 0)]
        return jnp.concatenate([jnp.pad(part, pads[:part.ndim])
                                for part in parts], axis=1)
