"""VideoMAEv2's encoder in torch, on a checkpoint's own tensors.

Reads VideoMAEv2's names and layouts as they are and shares no code with our
model. Needs the extra `torch`.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from losa_jax.models.backbones.videomae import MAX_LOGIT_SCALE, VideoMaeSpec

State = Mapping[str, torch.Tensor]


def as_torch(arrays: Mapping[str, np.ndarray]) -> State:
    """Returns arrays of any float dtype as float32 tensors."""
    return {name: torch.from_numpy(np.array(array, np.float32, order="C"))
            for name, array in arrays.items()}


def embed(state: State, pixels: torch.Tensor, spec: VideoMaeSpec
          ) -> torch.Tensor:
    """Returns tokens with positions.

    Args:
      state: `patch_embed.*`, and `pos_embed` where it is learned.
      pixels: [n, 3, f, H, W], normalized.
      spec: has the size of the position table.

    Returns:
      [n, t, c], in order of time, rows, columns.
    """
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


def block(state: State, x: torch.Tensor, spec: VideoMaeSpec
          ) -> torch.Tensor:
    """Returns the output of a transformer block.

    Args:
      state: the block's tensors, without `blocks.<i>.`.
      x: [n, t, c].
      spec: heads, cosine attention and epsilon.
    """
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
