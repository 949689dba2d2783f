"""LoSA with an ActionFormer head in torch, for the comparison of speed.

The same architecture as `losa_jax.models` builds, written as a user of torch
would: Hugging Face's VideoMAE blocks with scaled-dot-product attention, no
gradient in the backbone, adapters of linear layers and depthwise
convolutions. No window is padded, so there are no masks. `load` puts our
parameters into it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import VideoMAEConfig, VideoMAEModel

from benchmarks.head_speed import TorchActionFormer
from losa_jax.models.adapters.losa import NORM_EPSILON, LosaSpec
from losa_jax.models.backbones.videomae import (
    VideoMaeSpec,
)


class Backbone(nn.Module):
    """Frames to the last layer's spatial mean and the pooled taps."""

    def __init__(self, spec: VideoMaeSpec, tap_layers: tuple[int, ...],
                 tap_grid: tuple[int, int]):
        super().__init__()
        self.spec, self.tap_layers, self.tap_grid = spec, tap_layers, tap_grid
        self.model = VideoMAEModel(VideoMAEConfig(
            image_size=spec.image_size[0], patch_size=spec.patch,
            num_frames=spec.clip_frames, tubelet_size=spec.tubelet,
            hidden_size=spec.width, num_hidden_layers=spec.depth,
            num_attention_heads=spec.heads,
            intermediate_size=spec.mlp_width,
            layer_norm_eps=spec.norm_epsilon,
            attn_implementation="sdpa")).requires_grad_(False)
        self.register_buffer("mean", torch.tensor(spec.pixel_mean))
        self.register_buffer("std", torch.tensor(spec.pixel_std))

    @torch.no_grad()
    def forward(self, frames):
        """uint8 [n, f, H, W, 3] to [n, u, c] and k of [n, u, g1, g2, c]."""
        spec = self.spec
        n, u, (h, w) = frames.shape[0], spec.clip_tokens, spec.grid
        pixels = ((frames.float() - self.mean) / self.std).permute(
            0, 1, 4, 2, 3)
        x = self.model.embeddings(pixels, None)
        taps = []
        for number, layer in enumerate(self.model.encoder.layer):
            x = layer(x)
            if number in self.tap_layers:
                tap = functional.layer_norm(x, x.shape[-1:],
                                            eps=spec.norm_epsilon)
                tap = tap.view(n * u, h, w, -1).permute(0, 3, 1, 2)
                tap = functional.adaptive_avg_pool2d(tap, self.tap_grid)
                taps.append(tap.permute(0, 2, 3, 1).unflatten(0, (n, u)))
        return x.view(n, u, h * w, -1).mean(2), taps


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class Short(nn.Module):
    """One tap, one clip at a time."""

    def __init__(self, spec: LosaSpec):
        super().__init__()
        c, d, u, s = spec.in_width, spec.width, spec.clip_tokens, (
            spec.short_grid)
        self.side, self.heads = s, spec.attention_heads
        self.spatial = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.spatial_down = nn.Linear(c, d)
        self.pool = nn.Linear(s * s * d, d)
        self.key_positions = nn.Parameter(torch.empty(u, s * s, d))
        self.query_positions = nn.Parameter(torch.empty(u, d))
        self.query_norm = nn.LayerNorm(d, NORM_EPSILON)
        self.key_norm = nn.LayerNorm(d, NORM_EPSILON)
        self.from_last = nn.Linear(c, d)
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, NORM_EPSILON)
        self.mlp = Mlp(d, int(d * spec.mlp_ratio))

    def forward(self, tap, last):
        n, u = tap.shape[:2]
        x = self.spatial(tap.flatten(0, 1).permute(0, 3, 1, 2))
        x = functional.gelu(self.spatial_down(x.permute(0, 2, 3, 1)))
        x = functional.adaptive_avg_pool2d(
            x.permute(0, 3, 1, 2), self.side).permute(0, 2, 3, 1)
        x = x.reshape(n, u, self.side ** 2, -1)
        own = self.pool(x.flatten(2))
        query = self.query(self.query_norm(own + self.from_last(last))
                           + self.query_positions)
        key, value = self.key_value(
            self.key_norm(x) + self.key_positions).flatten(1, 2).chunk(2, -1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (query, key, value))
        attended = functional.scaled_dot_product_attention(query, key, value)
        y = self.out(attended.transpose(1, 2).flatten(2)) + own
        return (y + self.mlp(self.mlp_norm(y))).flatten(0, 1)


class Long(nn.Module):
    """One tap over the whole window."""

    def __init__(self, spec: LosaSpec):
        super().__init__()
        d = spec.width
        self.down = nn.Linear(spec.in_width, d)
        self.mixer = nn.Conv1d(d, d, spec.long_kernel, groups=d, bias=False,
                               padding=spec.long_kernel // 2)
        self.pointwise = nn.Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, NORM_EPSILON)
        self.mlp = Mlp(d, int(d * spec.mlp_ratio))

    def forward(self, tap):
        x = functional.gelu(self.down(tap.flatten(0, 1).flatten(1, 2)))
        mixed = self.mixer(x.permute(1, 2, 0)).permute(2, 0, 1)
        x = x + self.pointwise(mixed)
        return (x + self.mlp(self.mlp_norm(x))).mean(1)


class GatedUp(nn.Module):
    def __init__(self, spec: LosaSpec):
        super().__init__()
        self.up = nn.Linear(spec.width, spec.in_width)
        self.gate = nn.Parameter(torch.ones(spec.in_width))

    def forward(self, x):
        return self.up(x) * self.gate


class TapAdapters(nn.Module):
    def __init__(self, spec: LosaSpec):
        super().__init__()
        self.short, self.long = Short(spec), Long(spec)
        self.short_gate, self.long_gate = GatedUp(spec), GatedUp(spec)

    def forward(self, tap, last):
        return (self.short_gate(self.short(tap, last))
                + self.long_gate(self.long(tap)))


class TorchLosa(nn.Module):
    """One window to class logits [1, p, k] and offsets [1, p, 2]."""

    def __init__(self, spec: VideoMaeSpec, adapter: LosaSpec,
                 tap_layers: tuple[int, ...], tokens: int):
        super().__init__()
        self.backbone = Backbone(spec, tap_layers, adapter.tap_grid)
        self.taps = nn.ModuleList(TapAdapters(adapter) for _ in tap_layers)
        self.head = TorchActionFormer(spec.width, window=1)
        self.tokens, self.clip_frames = tokens, spec.clip_frames

    def features(self, frames):
        """uint8 [f, H, W, 3] to what the head reads, [c, tokens]."""
        last, taps = self.backbone(frames.unflatten(0, (-1,
                                                        self.clip_frames)))
        x = last.flatten(0, 1)
        for adapters, tap in zip(self.taps, taps, strict=True):
            x = x + adapters(tap, last)
        return functional.interpolate(x.T[None], self.tokens,
                                      mode="linear")[0]

    def forward(self, frames):
        return self.head(self.features(frames)[None])

    def trained(self) -> list[nn.Parameter]:
        return [*self.taps.parameters(), *self.head.parameters()]


def load(model: TorchLosa, videomae: Mapping[str, np.ndarray],
         adapter: Mapping[str, np.ndarray]) -> None:
    """Our parameters into the model.

    Args:
      videomae: of the backbone, under VideoMAEv2's names.
      adapter: flat, as below "adapter" in the trained tree.
    """
    state = {}
    for name, array in videomae.items():
        if not name.startswith("blocks."):
            continue
        block, rest = name.removeprefix("blocks.").split(".", 1)
        layer = f"encoder.layer.{block}."
        if rest == "attn.qkv.weight":
            for part, piece in zip(("query", "key", "value"),
                                   np.split(array, 3), strict=True):
                state[f"{layer}attention.attention.{part}.weight"] = piece
        else:
            state[layer + _BLOCK_NAMES[rest]] = array
    for part in ("weight", "bias"):
        state[f"embeddings.patch_embeddings.projection.{part}"] = videomae[
            f"patch_embed.proj.{part}"]
    missing, unexpected = model.backbone.model.load_state_dict(
        _tensors(state), strict=False)
    assert not unexpected and all("layernorm." in name or "position" in name
                                  for name in missing), (missing, unexpected)

    state = {}
    for name, stacked in adapter.items():
        path = name.removeprefix("taps/").replace(
            "spatial/down", "spatial_down").replace("/", ".")
        for tap, array in enumerate(np.asarray(stacked)):
            place, _, leaf = path.rpartition(".")
            if leaf == "kernel":
                leaf = "weight"
                if place == "short.spatial":  # [3, 3, c]
                    array = np.moveaxis(array, -1, 0)[:, None]
                elif place == "long.mixer":  # [time, d]
                    array = array.T[:, None]
                else:
                    array = array.T
            elif leaf == "scale":
                leaf = "weight"
            state[f"{tap}.{place}.{leaf}".replace("..", ".")] = array
    model.taps.load_state_dict(_tensors(state))


_BLOCK_NAMES = {
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    **{f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in (
        ("attn.proj", "attention.output.dense"),
        ("norm1", "layernorm_before"), ("norm2", "layernorm_after"),
        ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"))
       for part in ("weight", "bias")}}


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array))
            for name, array in arrays.items()}
