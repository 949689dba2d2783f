"""The whole model: frozen backbone, trained adapters and head.

Two modules, two parameter trees. `encode_windows` runs the frozen backbone
clip by clip; `Detector` holds everything that is trained.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from losa_jax.models.adapters.ladder import Ladder, LadderSpec
from losa_jax.models.adapters.losa import Losa, LosaSpec
from losa_jax.models.backbones.videomae import VisionTransformer
from losa_jax.models.heads.actionformer import ActionFormer
from losa_jax.models.heads.layers import HeadSpec
from losa_jax.models.heads.tridet import TriDet
from losa_jax.models.ops.layers import resize_time

HEADS = {"actionformer": ActionFormer, "tridet": TriDet}


class WindowFeatures(NamedTuple):
    """What the frozen backbone says of b windows.

    Attributes:
      last: float32 [b, n, u, c], spatial mean of the last block's output.
      taps: [k, b, n, u, h, w, c], tapped blocks.
    """

    last: Array
    taps: Array


class FeatureStatistics(NamedTuple):
    """Mean and deviation of each channel of `last` over the training set.

    Standardising the head's input is worth more than any adapter
    (shared/reference/losa_prototype.md), so every kind of adapter gets it.
    """

    mean: Array
    deviation: Array


class DetectorOutput(NamedTuple):
    """Predictions at the p points of all levels.

    Attributes:
      class_logits: float32 [b, p, k].
      offsets: float32 [b, p, 2], distances to start and end in strides;
        [b, p, k, 2] where every class has its own (TriDet).
      valid: bool [b, p].
    """

    class_logits: Array
    offsets: Array
    valid: Array


def encode_windows(backbone: VisionTransformer,
                   frames: Float[Array, "b f H W 3"], *,
                   tap_layers: tuple[int, ...],
                   tap_grid: tuple[int, int] | None,
                   chunk_clips: int, tap_norm: bool = True,
                   dtype: DTypeLike = jnp.float32,
                   shards: tuple[int, int] = (1, 1),
                   clip_sharding: NamedSharding | None = None
                   ) -> WindowFeatures:
    """Frozen features of windows, a chunk of clips at a time.

    The backbone sees each clip alone, so its memory is bounded by
    `chunk_clips` whatever the window's length, and clips spread over devices
    without communication.

    Args:
      backbone: the frozen transformer; no gradient enters it.
      frames: uint8 or float RGB, f a multiple of the clip's frames.
      tap_layers, tap_grid, tap_norm: see `VisionTransformer.features`.
      chunk_clips: clips that one device has in flight; 0 takes all.
      dtype: compute dtype of the blocks.
      shards: parts that the windows, and the clips of a window, are in.
      clip_sharding: of an array whose second axis counts clips (the first
        counts chunks); None leaves it to the compiler.
    """
    b = frames.shape[0]
    clips = rearrange(frames, "b (n f) H W c -> b n f H W c",
                      f=backbone.spec.clip_frames)
    clips = chunks_of(clips, chunk_clips, shards, clip_sharding)

    def encode(chunk_of_clips):
        return backbone.features(chunk_of_clips, tap_layers=tap_layers,
                                 tap_grid=tap_grid, tap_norm=tap_norm,
                                 dtype=dtype, place=clip_place(clip_sharding))

    features = jax.lax.map(encode, clips)
    last = from_chunks(features.last, b, shards)
    taps = jax.vmap(lambda tap: from_chunks(tap, b, shards), in_axes=1)(
        features.taps)
    return WindowFeatures(jax.lax.stop_gradient(last),
                          jax.lax.stop_gradient(taps))


def chunks_of(clips: Float[Array, "b n ..."], chunk_clips: int,
              shards: tuple[int, int],
              clip_sharding: NamedSharding | None = None
              ) -> Float[Array, "i m ..."]:
    """Clips in chunks, for a scan; arguments as `encode_windows`.

    Each device keeps its own clips, whatever windows they are of: chunk i
    takes the i-th chunk of every device, so the scan over chunks moves
    nothing.
    """
    windows, parts = shards
    clips = rearrange(clips, "(D p) (C q) ... -> D C p q ...", D=windows,
                      C=parts)
    own = clips.shape[2] * clips.shape[3]
    chunk = largest_divisor(own, chunk_clips or own)
    clips = clips.reshape(windows * parts, own // chunk, chunk,
                          *clips.shape[4:])
    clips = rearrange(clips, "d i j ... -> i (d j) ...")
    if clip_sharding is None:
        return clips
    return jax.lax.with_sharding_constraint(clips, clip_sharding)


def from_chunks(x: Float[Array, "i m ..."], num_windows: int,
                shards: tuple[int, int]) -> Float[Array, "b n ..."]:
    """The way back from `chunks_of`, for what was made of each clip."""
    windows, parts = shards
    x = rearrange(x, "i (D C j) ... -> D C i j ...", D=windows, C=parts)
    p = num_windows // windows
    own = x.shape[2] * x.shape[3]
    x = x.reshape(windows, parts, p, own // p, *x.shape[4:])
    return rearrange(x, "D C p q ... -> (D p) (C q) ...")


def clip_place(clip_sharding: NamedSharding | None) -> NamedSharding | None:
    """Where the clips of one chunk lie, from where all chunks do."""
    if clip_sharding is None:
        return None
    return NamedSharding(clip_sharding.mesh,
                         PartitionSpec(*clip_sharding.spec[1:]))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is no larger than the limit."""
    return next(d for d in range(min(number, limit), 0, -1)
                if number % d == 0)


class Detector(nnx.Module):
    """Everything that is trained: adapters, fusion and head."""

    def __init__(self, adapter: LosaSpec | LadderSpec | None, head: HeadSpec, *,
                 samples_per_token: float, tubelet: int,
                 resample: str = "linear", rngs: nnx.Rngs):
        """
        Args:
          adapter: None trains the head only.
          head: sizes of the TAL head.
          samples_per_token: samples that a token of the head's level 0
            stands for.
          tubelet: samples that one backbone token stands for.
          resample: from its tokens to level 0, see `resize_time`.
        """
        self.adapter: Ladder | Losa | None
        if adapter is None:
            self.adapter = None
        elif isinstance(adapter, LadderSpec):
            self.adapter = Ladder(adapter, rngs=rngs)
        else:
            self.adapter = Losa(adapter, rngs=rngs)
        self.head = HEADS[head.kind](head, rngs=rngs)
        self.samples_per_token = samples_per_token
        self.tubelet = tubelet
        self.resample = resample

    def __call__(self, features: WindowFeatures,
                 statistics: FeatureStatistics,
                 valid_samples: Int[Array, "b"],
                 key: Array | None = None) -> DetectorOutput:
        """Predictions for windows.

        Args:
          features: from `encode_windows`.
          statistics: of the training set.
          valid_samples: real samples at the start of each window.
          key: for drop path and dropout; None means evaluation.
        """
        x, step_valid = self.fused(features, statistics, valid_samples)
        tokens = round(x.shape[1] * self.tubelet / self.samples_per_token)
        valid = valid_steps(valid_samples, tokens, self.samples_per_token)
        x = resize_valid_time(x, step_valid, tokens, self.resample)
        logits, offsets, point_valid = self.head(x, valid, key)
        return DetectorOutput(logits.astype(jnp.float32),
                              offsets.astype(jnp.float32), point_valid)

    def fused(self, features: WindowFeatures,
              statistics: FeatureStatistics, valid_samples: Int[Array, "b"]
              ) -> tuple[Float[Array, "b t c"], Bool[Array, "b n u"]]:
        """What the head reads, at the backbone's t = n u temporal tokens:
        standardised, with what the adapters add; and which are real.

        Arguments as `__call__`.
        """
        _, n, u, _ = features.last.shape
        last = (features.last - statistics.mean) / statistics.deviation
        step_valid = valid_steps(valid_samples, n * u, self.tubelet)
        step_valid = rearrange(step_valid, "b (n u) -> b n u", u=u)
        # Zero, not standardised padding: it must look the same for every
        # video and every pad length.
        last = last * step_valid[..., None]
        if self.adapter is None:
            return rearrange(last, "b n u c -> b (n u) c"), step_valid
        return self.adapter(last, features.taps, step_valid), step_valid


def valid_steps(valid_samples: Int[Array, "b"], length: int,
                samples_per_step: float) -> Bool[Array, "b length"]:
    """Steps that stand for at least some real samples."""
    first_sample = jnp.arange(length) * samples_per_step
    return first_sample[None, :] < valid_samples[:, None]


def resize_valid_time(x: Float[Array, "b t c"],
                      step_valid: Bool[Array, "b n u"],
                      length: int, method: str = "linear"
                      ) -> Float[Array, "b length c"]:
    """`resize_time` in which padding does not count.

    Interpolation at the last real token would mix in padding; weights are
    renormalised over the real neighbours instead.
    """
    weight = rearrange(step_valid, "b n u -> b (n u) 1").astype(x.dtype)
    if x.shape[1] == length:
        return x * weight
    mixed = resize_time(x * weight, length, method)
    share = resize_time(weight, length, method)
    return mixed / jnp.maximum(share, 1e-6)
