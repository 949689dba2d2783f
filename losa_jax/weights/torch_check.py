"""VideoMAEv2's encoder in torch, run on a checkpoint's own tensors.

A second opinion on a conversion: it reads VideoMAEv2's names and layouts as
they are and shares no code with our model. Block by block, so that a model
of a billion parameters needs the memory of one block. Used by `convert
--verify`, tests and benchmarks; needs the extra `torch`.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from losa_jax.models.backbones.videomae import (
    MAX_LOGIT_SCALE,
    VideoMae,
    VideoMaeSpec,
)
from losa_jax.models.ops.params import Template, nest
from losa_jax.weights.checkpoint_file import Tensor

if TYPE_CHECKING:
    import torch

# A clip of more patches than this a side tells no more, and takes longer.
_MOST_PATCHES = 8

State = Mapping[str, "torch.Tensor"]


class Difference(NamedTuple):
    """Of the tokens after the last block, in float32.

    Attributes:
      largest: absolute difference.
      scale: largest absolute value.
      image_size: height and width in pixels of the clip.
    """

    largest: float
    scale: float
    image_size: tuple[int, int]


def compare_tokens(spec: VideoMaeSpec, tensors: Mapping[str, Tensor],
                   params: Mapping[str, np.ndarray],
                   clip: np.ndarray | None = None) -> Difference:
    """Torch on the checkpoint against ours on the converted parameters.

    Args:
      spec: of both.
      tensors: the checkpoint's, by VideoMAEv2's names.
      params: our flat parameters.
      clip: uint8 [1, f, H, W, 3]; None is a small random one.
    """
    import torch

    if clip is None:
        size = (min(side, _MOST_PATCHES * spec.patch)
                for side in spec.image_size)
        clip = np.random.default_rng(0).integers(
            0, 256, (1, spec.clip_frames, *size, 3), np.uint8)
    pixels = (clip - np.array(spec.pixel_mean)) / np.array(spec.pixel_std)
    pixels = torch.from_numpy(
        np.ascontiguousarray(np.moveaxis(pixels, -1, 1), np.float32))

    def read(prefix: str) -> State:
        return as_torch({name.removeprefix(prefix): tensor.read()
                         for name, tensor in tensors.items()
                         if name.startswith(prefix)})

    one_block = Template(lambda: VideoMae(
        dataclasses.replace(spec, depth=1), rngs=nnx.Rngs(0)))
    run = jax.jit(lambda params, x: one_block.bind(params).run_blocks(x)[0])
    flat = {name: array[:1] if name.startswith("blocks/") else array
            for name, array in params.items()}
    ours = jax.jit(lambda params, clip: one_block.bind(params).embed(clip))(
        _float32_tree(flat), clip)
    ours = ours.reshape(1, -1, spec.width)
    theirs = embed(as_torch({
        name: tensor.read() for name, tensor in tensors.items()
        if name.startswith(("patch_embed.", "pos_embed"))}), pixels, spec)
    for i in range(spec.depth):
        theirs = block(read(f"blocks.{i}."), theirs, spec)
        flat |= {name: array[i:i + 1] for name, array in params.items()
                 if name.startswith("blocks/")}
        ours = run(_float32_tree(flat), ours)
    expected = theirs.numpy()
    return Difference(float(np.abs(expected - np.asarray(ours)).max()),
                      float(np.abs(expected).max()), clip.shape[2:4])


def as_torch(arrays: Mapping[str, np.ndarray]) -> State:
    """Arrays of any float type as float32 tensors."""
    import torch
    return {name: torch.from_numpy(np.array(array, np.float32, order="C"))
            for name, array in arrays.items()}


def _float32_tree(flat: Mapping[str, np.ndarray]) -> Any:
    return nest({name: jnp.asarray(array, jnp.float32)
                 for name, array in flat.items()})


def embed(state: State, pixels: "torch.Tensor", spec: VideoMaeSpec
          ) -> "torch.Tensor":
    """Tokens with positions.

    Args:
      state: `patch_embed.*`, and `pos_embed` where it is learned.
      pixels: [n, 3, f, H, W], normalized.
      spec: tells the position table's size.

    Returns:
      [n, t, c], in order of time, rows, columns.
    """
    import torch
    from torch.nn import functional

    kernel = state["patch_embed.proj.weight"]
    x = functional.conv3d(pixels, kernel, state["patch_embed.proj.bias"],
                          stride=kernel.shape[2:])
    times, rows, columns = spec.clip_tokens, *spec.grid
    if "pos_embed" in state:
        table = state["pos_embed"]
    else:
        position = torch.arange(times * rows * columns).double()[:, None]
        channel = torch.arange(spec.width)
        angle = position / 10000 ** (2 * (channel // 2) / spec.width)
        table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    table = table.float().reshape(times, rows, columns, -1)
    table = table.permute(0, 3, 1, 2)
    if x.shape[3:] != (rows, columns):
        table = functional.interpolate(table, x.shape[3:], mode="bicubic",
                                       align_corners=False)
    x = x + table.permute(1, 0, 2, 3)
    return x.flatten(2).transpose(1, 2)


def block(state: State, x: "torch.Tensor", spec: VideoMaeSpec
          ) -> "torch.Tensor":
    """One transformer block.

    Args:
      state: the block's tensors, without `blocks.<i>.`.
      x: [n, t, c].
      spec: heads, cosine attention and epsilon.
    """
    import torch
    from torch.nn import functional

    n, t, c = x.shape

    def norm(x, name):
        return functional.layer_norm(
            x, (c,), state[f"{name}.weight"], state[f"{name}.bias"],
            spec.norm_epsilon)

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"],
                                 state[f"{name}.bias"])

    q_bias = state["attn.q_bias"]
    bias = torch.cat([q_bias, torch.zeros_like(q_bias), state["attn.v_bias"]])
    qkv = functional.linear(norm(x, "norm1"), state["attn.qkv.weight"], bias)
    query, key, value = qkv.reshape(
        n, t, 3, spec.heads, -1).permute(2, 0, 3, 1, 4)
    scale = None
    if spec.cosine_attention:
        factor = state["attn.scale"].reshape(-1, 1, 1)
        query = functional.normalize(query, dim=-1) * factor.clamp(
            max=MAX_LOGIT_SCALE).exp()
        key = functional.normalize(key, dim=-1)
        scale = 1.0
    mixed = functional.scaled_dot_product_attention(query, key, value,
                                                    scale=scale)
    mixed = linear(mixed.transpose(1, 2).reshape(n, t, c), "attn.proj")
    x = x + state.get("gamma_1", 1.0) * mixed
    hidden = functional.gelu(linear(norm(x, "norm2"), "mlp.fc1"))
    return x + state.get("gamma_2", 1.0) * linear(hidden, "mlp.fc2")
