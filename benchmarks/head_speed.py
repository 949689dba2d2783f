"""A training step of ActionFormer's THUMOS recipe against torch, on CPU.

    python -m benchmarks.head_speed [--channels=1408] [--rounds=5]

Needs the extra `torch`. 2 windows of 2,304 features, 20 classes, window 19,
6 levels. The torch model is written here after the public one's description
(channels first, local attention in chunks, AdamW), has its parameter names,
and both start from its weights: the first losses must agree. Ours also
assigns the targets, keeps the moving average and takes gradient norms; torch
is given the targets. Interleaved; prints medians and the ratio.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from benchmarks.common.figures import interleaved, times_table, use_cores
from losa_jax.detection.targets import assign_targets, level_points
from losa_jax.models.backbones.encode_windows import WindowFeatures
from losa_jax.models.detector import Detector, FeatureStatistics
from losa_jax.models.heads.actionformer import (
    ActionFormer,
    ActionFormerSpec,
)
from losa_jax.models.ops.params import Template, nest
from losa_jax.training.optimizer import make_optimizer
from losa_jax.training.step import create_state, make_train_step
from losa_jax.utils.xla_options import CPU_OPTIONS
from losa_jax.weights.head_names import from_public

WIDTH, CLASSES, LEVELS, WINDOW, HEADS = 512, 20, 6, 19, 4
TOKENS, BATCH, ACTIONS = 2304, 2, 16
RANGES = tuple((0 if level == 0 else 4 * 2 ** (level - 1),
                10000 if level == LEVELS - 1 else 4 * 2 ** level)
               for level in range(LEVELS))


class ChannelNorm(nn.Module):
    """Layer norm over channels of [b, c, t]."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, width, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x):
        centered = x - x.mean(1, keepdim=True)
        variance = centered.square().mean(1, keepdim=True)
        return centered * torch.rsqrt(variance + 1e-5) * self.weight + self.bias


class Conv(nn.Module):
    def __init__(self, in_width: int, out_width: int, kernel: int = 3, *,
                 stride: int = 1, groups: int = 1, bias: bool = False):
        super().__init__()
        self.conv = nn.Conv1d(in_width, out_width, kernel, stride=stride,
                              padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x):
        return self.conv(x)


class Attention(nn.Module):
    """To a band of `window` tokens; 1 or less is everything."""

    def __init__(self, stride: int, window: int):
        super().__init__()
        for name in ("query", "key", "value"):
            self.add_module(f"{name}_conv", Conv(
                WIDTH, WIDTH, stride=stride, groups=WIDTH))
            self.add_module(f"{name}_norm", ChannelNorm(WIDTH))
            self.add_module(name, nn.Conv1d(WIDTH, WIDTH, 1))
        self.proj = nn.Conv1d(WIDTH, WIDTH, 1)
        self.reach = window // 2

    def forward(self, x):
        def project(name):
            y = getattr(self, f"{name}_conv")(x)
            y = getattr(self, name)(getattr(self, f"{name}_norm")(y))
            return y.unflatten(1, (HEADS, -1)).transpose(2, 3)

        query, key, value = map(project, ("query", "key", "value"))
        if self.reach <= 0:
            out = functional.scaled_dot_product_attention(query, key, value)
        else:
            out = self._in_band(query, key, value)
        return self.proj(out.transpose(2, 3).flatten(1, 2))

    def _in_band(self, query, key, value):
        t = query.shape[2]
        chunk = self.reach
        pad = -t % chunk

        def around(y):
            y = functional.pad(y, (0, 0, chunk, chunk + pad))
            return y.unfold(2, 3 * chunk, chunk).transpose(-1, -2)

        chunks = functional.pad(query, (0, 0, 0, pad)).unflatten(
            2, (-1, chunk))
        place = torch.arange(3 * chunk) - chunk
        distance = place[None] - torch.arange(chunk)[:, None]
        start = torch.arange(0, t + pad, chunk)[:, None]
        real = ((start + place) >= 0) & ((start + place) < t)
        mask = (distance.abs() <= self.reach)[None] & real[:, None]
        out = functional.scaled_dot_product_attention(
            chunks, around(key), around(value), attn_mask=mask)
        return out.flatten(2, 3)[:, :, :t]


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(1e-4 * torch.ones(1, width, 1))


class Block(nn.Module):
    def __init__(self, stride: int, window: int):
        super().__init__()
        self.stride = stride
        self.ln1, self.ln2 = ChannelNorm(WIDTH), ChannelNorm(WIDTH)
        self.attn = Attention(stride, window)
        self.mlp = nn.Sequential(
            nn.Conv1d(WIDTH, 4 * WIDTH, 1), nn.GELU(), nn.Identity(),
            nn.Conv1d(4 * WIDTH, WIDTH, 1))
        self.drop_path_attn, self.drop_path_mlp = Scale(WIDTH), Scale(WIDTH)

    def forward(self, x):
        a = self.attn(self.ln1(x))
        if self.stride == 2:
            x = functional.max_pool1d(x, 3, 2, 1)
        x = x + self.drop_path_attn.scale * a
        return x + self.drop_path_mlp.scale * self.mlp(self.ln2(x))


class Output(nn.Module):
    def __init__(self, outputs: int, name: str, bias: float):
        super().__init__()
        self.head = nn.ModuleList([Conv(WIDTH, WIDTH) for _ in range(2)])
        self.norm = nn.ModuleList([ChannelNorm(WIDTH) for _ in range(2)])
        self.last = name
        self.add_module(name, Conv(WIDTH, outputs, bias=True))
        nn.init.constant_(getattr(self, name).conv.bias, bias)

    def forward(self, x):
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = functional.relu(norm(conv(x)))
        return getattr(self, self.last)(x)


class TorchActionFormer(nn.Module):
    """Windows without padding: no mask changes anything."""

    def __init__(self, channels: int, window: int = WINDOW):
        super().__init__()
        self.backbone = nn.ModuleDict({
            "embd": nn.ModuleList([Conv(channels, WIDTH), Conv(WIDTH, WIDTH)]),
            "embd_norm": nn.ModuleList([ChannelNorm(WIDTH)
                                        for _ in range(2)]),
            "stem": nn.ModuleList([Block(1, window) for _ in range(2)]),
            "branch": nn.ModuleList([Block(2, window)
                                     for _ in range(LEVELS - 1)])})
        self.neck = nn.ModuleDict({"fpn_norms": nn.ModuleList(
            [ChannelNorm(WIDTH) for _ in range(LEVELS)])})
        self.cls_head = Output(CLASSES, "cls_head", -4.59512)
        self.reg_head = Output(2, "offset_head", 0.0)
        self.reg_head.scale = nn.ModuleList([Scale(1) for _ in range(LEVELS)])
        for scale in self.reg_head.scale:
            scale.scale.data = torch.ones(())

    def forward(self, x):
        parts = self.backbone
        for conv, norm in zip(parts["embd"], parts["embd_norm"], strict=True):
            x = functional.relu(norm(conv(x)))
        for block in parts["stem"]:
            x = block(x)
        levels = [x]
        for block in parts["branch"]:
            levels.append(block(levels[-1]))
        logits, offsets = [], []
        for level, x in enumerate(levels):
            x = self.neck["fpn_norms"][level](x)
            logits.append(self.cls_head(x))
            offsets.append(functional.relu(
                self.reg_head.scale[level].scale * self.reg_head(x)))
        return (torch.cat(logits, 2).transpose(1, 2),
                torch.cat(offsets, 2).transpose(1, 2))


def torch_loss(logits, offsets, classes, target, positive, normalizer):
    """Focal and distance-IoU sums over the normalizer."""
    probability = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(
        logits, classes, reduction="none")
    hit = probability * classes + (1 - probability) * (1 - classes)
    side = 0.25 * classes + 0.75 * (1 - classes)
    focal = (side * (1 - hit) ** 2 * entropy).sum()
    given, wanted = offsets[positive], target[positive]
    shared = torch.minimum(given, wanted).sum(-1)
    union = given.sum(-1) + wanted.sum(-1) - shared
    whole = torch.maximum(given, wanted).sum(-1)
    apart = 0.5 * ((given[:, 1] - given[:, 0]) - (wanted[:, 1] - wanted[:, 0]))
    distance = (1 - shared / union.clamp(1e-8)
                + (apart / whole.clamp(1e-8)) ** 2).sum()
    return (focal + distance) / normalizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=1408)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_cores(2)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(BATCH, TOKENS, arguments.channels)).astype(
        np.float32)
    starts = rng.uniform(0, 2100, (BATCH, ACTIONS))
    segments = np.stack([starts, starts + rng.lognormal(2.5, 1.0, starts.shape)
                         ], -1).astype(np.float32)
    labels = rng.integers(0, CLASSES, (BATCH, ACTIONS)).astype(np.int32)

    model = TorchActionFormer(arguments.channels)
    theirs = _torch_step(model, features, segments, labels)
    ours = _our_step(model, arguments.channels, features, segments, labels)
    one, two = ours(), theirs()
    print(f"first loss: ours {one:.5f}, torch {two:.5f}")
    assert abs(one - two) < 1e-3 * two
    seconds = interleaved({"ours": ours, "torch": theirs}, arguments.rounds)
    print(f"{BATCH} windows of {TOKENS} features of {arguments.channels} "
          "channels\n")
    print(times_table(seconds, against="torch", what="train step"))


def _points():
    return level_points(TOKENS, tuple(2 ** i for i in range(LEVELS)), RANGES)


def _torch_step(model, features, segments, labels):
    targets = jax.vmap(lambda s, k: assign_targets(
        _points(), s, k, jnp.ones(ACTIONS, bool), num_classes=CLASSES,
        center_radius=1.5))(segments, labels)
    classes, target, positive = (torch.from_numpy(np.array(part))
                                 for part in targets)
    normalizer = 0.9 * 100 + 0.1 * max(int(positive.sum()), 1)
    x = torch.from_numpy(np.ascontiguousarray(features.swapaxes(1, 2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4,
                                  weight_decay=0.05)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch_loss(*model(x), classes, target, positive, normalizer)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def _our_step(model, channels, features, segments, labels):
    # The scales of drop path are there, but it drops nothing: torch has none.
    spec = ActionFormerSpec(channels, CLASSES, drop_path=1e-9)
    template = Template(lambda: Detector(
        None, ActionFormer(spec, rngs=nnx.Rngs(0)), samples_per_token=1,
        tubelet=1))
    flat = from_public({name: tensor.detach().numpy() for name, tensor
                        in model.state_dict().items()})
    trained = {"head": jax.tree.map(jnp.array, nest(flat))}
    optimizer = make_optimizer(lambda step: 1e-4, trained, weight_decay=0.05,
                               gradient_clip=1.0, rate_factors={})

    def encode(frozen, trained, inputs, valid_samples, key):
        last = inputs["last"]
        return WindowFeatures(last, jnp.zeros((0, *last.shape[:3], 0, 0, 1)))

    step = jax.jit(make_train_step(
        encode, template, optimizer, ema_decay=0.999, ema_warmup=False),
        donate_argnums=0, compiler_options=CPU_OPTIONS)
    state = create_state(trained, optimizer, 100.0, FeatureStatistics(
        jnp.zeros(channels), jnp.ones(channels)))
    batch = {"last": features[:, :, None], "segments": segments,
             "labels": labels, "action_valid": np.ones((BATCH, ACTIONS), bool),
             "valid_samples": np.full(BATCH, TOKENS, np.int32)}
    batch = jax.device_put(batch)
    key = jax.random.key(0)
    box = [state]

    def run() -> float:
        box[0], metrics = step(box[0], {}, batch, key)
        return float(metrics["loss"])

    return run


if __name__ == "__main__":
    main()
