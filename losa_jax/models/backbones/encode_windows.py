"""Windows through a frozen backbone, a chunk of clips at a time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from losa_jax.models.backbones.base import Backbone


class WindowFeatures(NamedTuple):
    """What a frozen backbone gives for b windows.

    Attributes:
      last: float32 [b, n, u, c], spatial mean of the last block's output.
      taps: [k, b, n, u, h, w, c], tapped blocks.
    """

    last: Array
    taps: Array


def encode_windows(backbone: Backbone,
                   frames: Num[Array, "b f H W 3"], *,
                   taps: tuple[int, ...],
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
      backbone: of any family; no gradient enters it.
      frames: uint8 or float RGB, f a multiple of the clip's frames.
      taps, tap_grid, tap_norm: see `Backbone.features`.
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
        return backbone.features(chunk_of_clips, taps=taps,
                                 tap_grid=tap_grid, tap_norm=tap_norm,
                                 dtype=dtype, place=clip_place(clip_sharding))

    features = jax.lax.map(encode, clips)
    last = from_chunks(features.last, b, shards)
    tapped = jax.vmap(lambda tap: from_chunks(tap, b, shards), in_axes=1)(
        features.taps)
    return WindowFeatures(jax.lax.stop_gradient(last),
                          jax.lax.stop_gradient(tapped))


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
