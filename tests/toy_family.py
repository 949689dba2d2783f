"""A second family of backbones, for tests: model and weights in one module.

Unlike VideoMAE it takes clips of any length, keeps pixels as 0..1, gives no
vector for a whole clip, and its files have a wrapper and parts of their own.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from losa_jax.models.backbones.base import (
    BackboneSpec,
    ClipFeatures,
    check_taps,
    normalized_pixels,
)
from losa_jax.models.ops.layers import Linear
from losa_jax.models.ops.resample import shape_tap
from losa_jax.weights.rules import LINEAR, SAME, Rule, rename


@dataclasses.dataclass(frozen=True)
class ToySpec(BackboneSpec):
    width: int
    depth: int
    patch: int = 8
    tubelet: int = 2
    clip_frames: int = 4
    image_size: tuple[int, int] = (16, 24)
    norm_epsilon: float = 1e-6

    has_fixed_frames: ClassVar[bool] = False
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    pixel_std: ClassVar[tuple[float, float, float]] = (255.0, 255.0, 255.0)
    last_pooling: ClassVar[str] = "mean of the patches of each token"


class Toy(nnx.Module):
    """Patches; each block adds half of a linear map, which is twice as wide."""

    def __init__(self, spec, *, rngs):
        self.spec = spec
        self.embed = Linear(spec.tubelet * spec.patch ** 2 * 3, spec.width,
                            rngs=rngs)
        self.blocks = nnx.vmap(lambda key: Linear(
            spec.width, 2 * spec.width, rngs=nnx.Rngs(params=key)))(
            jax.random.split(rngs.params(), spec.depth))

    def features(self, clips, *, taps=(), tap_grid=None, tap_norm=True,
                 dtype=jnp.float32, place=None):
        spec = self.spec
        check_taps(taps, spec)
        x = self.embed(rearrange(
            normalized_pixels(clips, spec).astype(dtype),
            "n (t u) (h p) (w q) rgb -> n t h w (u p q rgb)",
            u=spec.tubelet, p=spec.patch, q=spec.patch))

        def step(x, block):
            x = x + jnp.tanh(block(x)[..., :spec.width])
            return x, shape_tap(x, tap_grid, tap_norm, spec.norm_epsilon)

        x, every = jax.lax.scan(step, x, self.blocks)
        n, u, _, _, c = x.shape
        return ClipFeatures(
            x.astype(jnp.float32).mean(axis=(2, 3)),
            every[jnp.array(taps)] if taps
            else jnp.zeros((0, n, u, 0, 0, c), dtype))


TITLE = "Toy"
RULES = (Rule("embed.weight", "embed/kernel", LINEAR),
         Rule("embed.bias", "embed/bias", SAME),
         Rule("layers.{i}.both.weight", "blocks/kernel", LINEAR),
         Rule("layers.{i}.both.bias", "blocks/bias", SAME))
HINTS = ("patch", "clip_frames", "image_size")
WRAPPERS = ("ema_encoder",)
JOINED = {f"layers.{{i}}.both.{name}": tuple(
    f"layers.{{i}}.{part}.{name}" for part in ("first", "second"))
    for name in ("weight", "bias")}


def recognizes(names):
    return any("layers.0." in name for name in names)


def rename_tensors(tensors, config, notes):
    return rename(tensors, [(r"module\.(.*)", r"\1")]), {}


def infer_spec(tensors, *, patch=None, clip_frames=None, image_size=None):
    return ToySpec(len(tensors["embed.bias"].read()), sum(
        name.endswith("both.bias") for name in tensors), patch or 8, 2,
        clip_frames or 4, image_size or (16, 24))


def describe(spec):
    return f"{spec.depth} blocks of width {spec.width}"
