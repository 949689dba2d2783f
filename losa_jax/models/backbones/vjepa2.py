"""The video encoders of V-JEPA 2 and V-JEPA 2.1.

Source: the model definitions of github.com/facebookresearch/vjepa2 (MIT).
Pre-norm blocks with rotary positions in time, rows and columns, and no class
token. Version 2.1 has proper rotations, rows and columns rescaled to those of
its pre-training, a learned vector each for clips and images, a patch embedding
for single frames, and final norms for four blocks.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from losa_jax import errors
from losa_jax.errors import InputError
from losa_jax.models.backbones import base, blocks
from losa_jax.models.backbones.scan_blocks import scan_blocks
from losa_jax.models.ops import layers, params
from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.rotary import Rotation, axial_rotation, rotate

# Blocks of V-JEPA 2.1 with a final norm of their own, by depth. The 37 is no
# slip here.
NORMED_BLOCKS = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39),
                 48: (11, 23, 37, 47)}
# Side in pixels of the frames on which V-JEPA 2.1 learned its positions.
PRETRAINING_SIDE = 256
_V21 = {"version": "2.1", "rescales_positions": True}
SIZES: dict[str, dict[str, Any]] = {
    "vjepa2_l": dict(width=1024, depth=24, heads=16, mlp_width=4096, patch=16,
                     version="2"),
    "vjepa2_h": dict(width=1280, depth=32, heads=16, mlp_width=5120, patch=16,
                     version="2"),
    "vjepa2_g": dict(width=1408, depth=40, heads=22, mlp_width=6144, patch=16,
                     version="2"),
    "vjepa21_b": dict(width=768, depth=12, heads=12, mlp_width=3072, patch=16,
                      **_V21),
    "vjepa21_l": dict(width=1024, depth=24, heads=16, mlp_width=4096, patch=16,
                      **_V21),
    "vjepa21_g": dict(width=1408, depth=40, heads=22, mlp_width=6144, patch=16,
                      **_V21),
    "vjepa21_gigantic": dict(width=1664, depth=48, heads=26, mlp_width=8192,
                             patch=16, **_V21),
}


@dataclasses.dataclass(frozen=True)
class VJepa2Spec(base.BackboneSpec):
    """Sizes and variants of a checkpoint of V-JEPA 2 or 2.1.

    Attributes:
      width: channels c of every token, a multiple of `heads`.
      depth, heads, mlp_width: blocks; their attention heads; hidden channels of
        their MLPs.
      patch: side of a patch in pixels.
      tubelet: frames of one temporal token.
      clip_frames: frames of a clip, a multiple of `tubelet`; no parameter
        depends on it.
      image_size: height and width in pixels of the training; no parameter
        depends on it.
      version: "2" or "2.1".
      rescales_positions: whether rows and columns are rescaled to those of
        the pre-training, whatever the size of the frames. All encoders of
        V-JEPA 2.1 were trained so; none of V-JEPA 2.
      norm_epsilon: of all norms of the encoder, and of the standardization of
        taps.
      probe_depth: self-attention blocks of the attentive classifier.
      probe_heads: attention heads of its blocks.
      probe_blocks: blocks of the encoder whose normed outputs it reads, joined
        along tokens; () is the last block.
      probe_norm_epsilon: 1e-5 for Meta's files, 1e-6 for Hugging Face's.
      num_classes: outputs of the classifier; 0 without one.

    Raises:
      InputError: names the field and what it allows.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int = 16
    tubelet: int = 2
    clip_frames: int = 64
    image_size: tuple[int, int] = (256, 256)
    version: str = "2"
    rescales_positions: bool = False
    norm_epsilon: float = 1e-6
    probe_depth: int = 3
    probe_heads: int = 16
    probe_blocks: tuple[int, ...] = ()
    probe_norm_epsilon: float = 1e-5
    num_classes: int = 0

    has_fixed_frames: ClassVar[bool] = False
    pixel_mean: ClassVar[tuple[float, float, float]] = base.IMAGENET_MEAN
    pixel_std: ClassVar[tuple[float, float, float]] = base.IMAGENET_STD
    last_pooling: ClassVar[str] = (
        "final norm of every token, then the mean of the patches of each")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.check_whole(self, 1, "heads", "mlp_width", "probe_heads")
        errors.check_whole(self, 0, "probe_depth", "num_classes")
        errors.check_flags(self)
        errors.check_choice(self, "version", ("2", "2.1"))
        errors.check_between(self, 0, math.inf, "norm_epsilon",
                             "probe_norm_epsilon", without=(0,))
        errors.check_heads(self, "heads")
        if self.version == "2.1":
            errors.check_choice(self, "depth", NORMED_BLOCKS)
        else:
            errors.check_choice(self, "rescales_positions", (False,))
        if self.num_classes:
            errors.check_heads(self, "probe_heads")
            self.check_normed(self.probe_blocks, "VJepa2Spec.probe_blocks")

    @property
    def clip_pooling(self) -> str:
        """Description of `VJepa2.mean_features`."""
        return "final norm of every token, then their mean"

    @property
    def normed_blocks(self) -> tuple[int, ...]:
        """Blocks whose output has a final norm; in version 2, all share it."""
        return (NORMED_BLOCKS[self.depth] if self.version == "2.1"
                else tuple(range(self.depth)))

    def check_normed(self, numbers: tuple[int, ...], title: str) -> None:
        """Raises InputError unless these ascend and are `normed_blocks`."""
        if list(numbers) != sorted(set(numbers)) or not (
                set(numbers) <= set(self.normed_blocks)):
            raise InputError(
                f"{title}={numbers}: must ascend and be blocks with a final "
                f"norm, of {', '.join(map(str, self.normed_blocks))}")


class Attention(nnx.Module):
    """Multi-head self-attention with biases on query, key and value."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.qkv = layers.Linear(width, 3 * width, rngs=rngs)
        self.proj = layers.Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Float[Array, "n t c"], rotation: Rotation | None,
                 place: NamedSharding | None) -> Float[Array, "n t c"]:
        query, key, value = rearrange(
            self.qkv(x), "n t (three heads d) -> three n t heads d", three=3,
            heads=self.heads)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        out = attention(query, key, value, place=place)
        return self.proj(rearrange(out, "n t heads d -> n t (heads d)"))


class Block(nnx.Module):
    """Pre-norm transformer block; the classifier's has no rotation."""

    def __init__(self, width: int, heads: int, mlp_width: int, epsilon: float,
                 rngs: nnx.Rngs):
        self.norm1 = layers.LayerNorm(width, epsilon)
        self.attn = Attention(width, heads, rngs)
        self.norm2 = layers.LayerNorm(width, epsilon)
        self.mlp = layers.Mlp(width, mlp_width, rngs)

    def __call__(self, x: Float[Array, "n t c"],
                 rotation: Rotation | None = None,
                 place: NamedSharding | None = None) -> Float[Array, "n t c"]:
        x = x + self.attn(self.norm1(x), rotation, place)
        return x + self.mlp(self.norm2(x))


class CrossAttention(nnx.Module):
    """Pools tokens with one learned query, which is not normed."""

    def __init__(self, width: int, heads: int, epsilon: float, rngs: nnx.Rngs):
        self.norm1 = layers.LayerNorm(width, epsilon)
        self.query = layers.Linear(width, width, rngs=rngs)
        self.key_value = layers.Linear(width, 2 * width, rngs=rngs)
        self.norm2 = layers.LayerNorm(width, epsilon)
        self.mlp = layers.Mlp(width, 4 * width, rngs)
        self.heads = heads

    def __call__(self, query: Float[Array, "c"], tokens: Float[Array, "n t c"]
                 ) -> Float[Array, "n c"]:
        x = jnp.broadcast_to(query, (len(tokens), 1, len(query)))
        q = rearrange(self.query(x), "n t (heads d) -> n t heads d",
                      heads=self.heads)
        key, value = rearrange(
            self.key_value(self.norm1(tokens)),
            "n t (two heads d) -> two n t heads d", two=2, heads=self.heads)
        x = x + rearrange(attention(q, key, value),
                          "n t heads d -> n t (heads d)")
        return (x + self.mlp(self.norm2(x)))[:, 0]


class Probe(nnx.Module):
    """The attentive classifier of a fine-tuned checkpoint."""

    def __init__(self, spec: VJepa2Spec, rngs: nnx.Rngs):
        c, heads, epsilon = (spec.width, spec.probe_heads,
                             spec.probe_norm_epsilon)
        self.query = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c,)))
        if spec.probe_depth:
            self.blocks = params.stacked(
                lambda rngs: Block(c, heads, 4 * c, epsilon, rngs),
                spec.probe_depth, rngs)
        self.cross = CrossAttention(c, heads, epsilon, rngs)
        self.classifier = layers.Linear(c, spec.num_classes, rngs=rngs)
        self.depth = spec.probe_depth

    def pool(self, tokens: Float[Array, "n t c"]) -> Float[Array, "n c"]:
        """Returns the input of the classifier."""
        if self.depth:
            tokens, _ = scan_blocks(
                self.blocks, tokens, None, numbers=range(self.depth),
                tap_layers=(), tap=lambda x: x)
        return self.cross(self.query[...].astype(tokens.dtype), tokens)

    def __call__(self, tokens: Float[Array, "n t c"]
                 ) -> Float[Array, "n classes"]:
        """Returns the logits of sequences of normed tokens."""
        return self.classifier(self.pool(tokens))


class VJepa2(nnx.Module):
    """The frozen video transformer, which sees each clip alone.

    Clips have any even number of frames and any size of whole patches; frames
    and pixels that fill no whole tubelet or patch are left out. V-JEPA 2.1 also
    takes single frames, as clips of one frame.

    Args:
      spec: a `VJepa2Spec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: VJepa2Spec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.patch_embed = blocks.PatchEmbed(spec, rngs)
        self.blocks = params.stacked(
            lambda rngs: Block(spec.width, spec.heads, spec.mlp_width,
                               spec.norm_epsilon, rngs), spec.depth, rngs)
        if spec.version == "2.1":
            self.image_embed = blocks.PatchEmbed(
                dataclasses.replace(spec, tubelet=1), rngs)
            self.video_vector = nnx.Param(jnp.zeros(spec.width))
            self.image_vector = nnx.Param(jnp.zeros(spec.width))
            self.norms = params.stacked(
                lambda rngs: layers.LayerNorm(spec.width, spec.norm_epsilon),
                len(spec.normed_blocks), rngs)
        else:
            self.norm = layers.LayerNorm(spec.width, spec.norm_epsilon)
        if spec.num_classes:
            self.probe = Probe(spec, rngs)

    def embed(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
              ) -> Float[Array, "n u h w c"]:
        """Returns clips as tokens, the input of the first block."""
        spec = self.spec
        pixels = base.normalized_pixels(clips, spec, tubelet=1).astype(dtype)
        frames = pixels.shape[1]
        if spec.version == "2.1" and frames == 1:
            tokens = self.image_embed(pixels)
            return tokens + self.image_vector[...].astype(dtype)
        if frames < spec.tubelet:
            raise InputError(
                f"clips of {frames} frames are too short for V-JEPA "
                f"{spec.version}, whose tokens are of {spec.tubelet}: give "
                "more frames, or a single frame several times")
        tokens = self.patch_embed(pixels[:, :frames - frames % spec.tubelet])
        if spec.version == "2.1":
            tokens = tokens + self.video_vector[...].astype(dtype)
        return tokens

    def rotation(self, grid: Sequence[int]) -> Rotation:
        """Returns the positions of the tokens of a grid u, h, w."""
        spec = self.spec
        axes = [np.arange(size, dtype=np.float64) for size in grid]
        if spec.rescales_positions:
            if 1 in grid[1:]:
                raise InputError(
                    f"frames of {grid[1]} x {grid[2]} patches: V-JEPA 2.1 "
                    "needs at least two rows and two columns of patches of "
                    f"{spec.patch} pixels: give larger frames")
            last = PRETRAINING_SIDE // spec.patch - 1
            axes[1:] = [axis * last / (len(axis) - 1) for axis in axes[1:]]
        return axial_rotation(axes, spec.width // spec.heads,
                              is_paired=spec.version == "2.1")

    def final_norm(self, x: Float[Array, "*s c"], block: int = -1
                   ) -> Float[Array, "*s c"]:
        """Returns the output of one of `spec.normed_blocks`, normed."""
        if self.spec.version == "2":
            return self.norm(x)
        number = (block if block < 0
                  else self.spec.normed_blocks.index(block))
        return jax.tree.map(lambda array: array[number], self.norms)(x)

    def features(self, clips: ArrayLike, *, taps: tuple[int, ...] = (),
                 tap_grid: tuple[int, int] | None = None,
                 tap_norm: bool = True, dtype: DTypeLike = jnp.float32,
                 place: NamedSharding | None = None) -> base.ClipFeatures:
        """Returns the spatial mean of the normed last block, and the taps.

        `last` has float32 features of the u = f // tubelet temporal tokens,
        not standardized. Taps are blocks' outputs without final norm, of the
        `dtype`; without any, their shape is [0, n, u, 0, 0, c].

        Args:
          clips: uint8 or float [n, f, H, W, 3], RGB 0..255. Frames and pixels
            that fill no whole tubelet or patch are left out.
          taps: ascending numbers of the tapped blocks, 0 .. depth - 1.
          tap_grid: rows and columns to which each tap is average-pooled; None
            keeps every patch.
          tap_norm: whether each tapped token is standardized over its channels
            first (False for `LadderAdapter`).
          dtype: of the blocks' computation and of the taps.
          place: how the clips are sharded over devices.

        Raises:
          InputError: too few frames or pixels, or taps that do not ascend or
            are not blocks.
        """
        base.check_taps(taps, self.spec)
        tokens = self.embed(clips, dtype)
        return blocks.encode(
            self.blocks, tokens, self.spec, taps=taps, tap_grid=tap_grid,
            tap_norm=tap_norm, place=place, norm=self.final_norm,
            rotation=self.rotation(tokens.shape[1:4]))

    def normed_tokens(self, clips: ArrayLike, numbers: tuple[int, ...] = (),
                      dtype: DTypeLike = jnp.float32
                      ) -> Float[Array, "k n t c"]:
        """Returns all tokens of blocks, each with its final norm, float32.

        Args:
          clips: those of `features`.
          numbers: ascending, of `spec.normed_blocks`; () is the last block.
          dtype: of the blocks' computation.
        """
        numbers = numbers or (self.spec.depth - 1,)
        self.spec.check_normed(numbers, "numbers")
        tokens = self.embed(clips, dtype)
        _, outputs = scan_blocks(
            self.blocks, rearrange(tokens, "n u h w c -> n (u h w) c"), None,
            numbers=range(self.spec.depth), tap_layers=numbers,
            tap=lambda x: x, rotation=self.rotation(tokens.shape[1:4]))
        assert outputs is not None
        return jnp.stack([
            self.final_norm(x.astype(jnp.float32), number)
            for number, x in zip(numbers, outputs, strict=True)])

    def mean_features(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
                      ) -> Float[Array, "n c"]:
        """Returns one vector a clip, which `spec.clip_pooling` describes."""
        return self.normed_tokens(clips, dtype=dtype)[0].mean(axis=1)

    def classify(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
                 ) -> Float[Array, "n classes"]:
        """Returns the logits of clips, by the checkpoint's own classifier.

        Raises:
          InputError: the checkpoint has no classifier, or the clips are too
            short or small.
        """
        if not self.spec.num_classes:
            raise InputError("these V-JEPA 2 weights have no classifier: "
                             "convert a fine-tuned checkpoint, or give "
                             "losa_jax.convert the encoder with --probe=FILE")
        levels = self.normed_tokens(clips, self.spec.probe_blocks, dtype)
        return self.probe(rearrange(levels, "k n t c -> n (k t) c"))
