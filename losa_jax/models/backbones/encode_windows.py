"""Encodes windows with a frozen backbone, in chunks of clips."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from losa_jax.models.backbones.base import Backbone
from losa_jax.models.backbones.clip_overlap import overlapping_clips


class WindowFeatures(NamedTuple):
    """Features of b windows of n clips, as `ClipFeatures`."""

    last: Float[Array, "b n u c"]
    taps: Float[Array, "k b n u h w c"]


def encode_windows(backbone: Backbone, frames: Num[Array, "b f H W 3"], *,
                   taps: tuple[int, ...], tap_grid: tuple[int, int] | None,
                   chunk_clips: int, tap_norm: bool = True,
                   dtype: DTypeLike = jnp.float32,
                   shards: tuple[int, int] = (1, 1),
                   clip_sharding: NamedSharding | None = None,
                   clip_step: int = 0) -> WindowFeatures:
    """Returns frozen features of windows.

    Clips are sharded over devices without communication; of overlapping ones,
    the shared frames are sent.

    Args:
      frames: RGB 0..255, f a multiple of the clip's frames.
      taps, tap_grid, tap_norm, dtype: see `VideoMae.features`.
      chunk_clips: clips that a device encodes at a time; 0 is all.
      shards: parts into which windows, and the clips of a window, are sharded.
      clip_sharding: of `chunks_of`; None leaves it to the compiler.
      clip_step: samples from one clip to the next, for `overlapping_clips`,
        which are returned as they are; 0 is the clip's length.
    """
    b, clip_frames = frames.shape[0], backbone.spec.clip_frames
    if clip_step in (0, clip_frames):
        clips = rearrange(frames, "b (n f) H W c -> b n f H W c",
                          f=clip_frames)
    else:
        clips = overlapping_clips(frames, clip_frames, clip_step)
    chunks = chunks_of(clips, chunk_clips, shards, clip_sharding)

    def features(chunk: Array) -> WindowFeatures:
        clip = backbone.features(
            chunk, taps=taps, tap_grid=tap_grid, tap_norm=tap_norm,
            dtype=dtype, place=clip_place(clip_sharding))
        return WindowFeatures(clip.last[None], clip.taps)

    # Each chunk is written to its place at once. Stacked chunks, rearranged
    # afterwards, would take the memory of the taps twice.
    windows, parts = shards
    count, m = chunks.shape[:2]

    def by_device(x: Array) -> Array:
        return x.reshape(x.shape[0], windows, parts, m // (windows * parts),
                         *x.shape[2:])

    def write(number: Array, written: WindowFeatures) -> WindowFeatures:
        return jax.tree.map(
            lambda whole, x: jax.lax.dynamic_update_index_in_dim(
                whole, by_device(x), number, axis=3),
            written, features(chunks[number]))

    def empty(x: jax.ShapeDtypeStruct) -> Array:
        k, d, c, j, *rest = jax.eval_shape(by_device, x).shape
        whole = jnp.zeros((k, d, c, count, j, *rest), x.dtype)
        if clip_sharding is None:
            return whole
        data, *others = clip_sharding.spec[1]
        return jax.lax.with_sharding_constraint(whole, NamedSharding(
            clip_sharding.mesh, PartitionSpec(None, data, tuple(others))))

    def in_order(x: Array) -> Array:
        k, d, c, i, j = x.shape[:5]
        p = b // d
        x = x.reshape(k, d, c, p, i * j // p, *x.shape[5:])
        return rearrange(x, "k d c p q ... -> k (d p) (c q) ...")

    written = jax.lax.fori_loop(0, count, write, jax.tree.map(
        empty, jax.eval_shape(features, chunks[0])))
    (last,), tapped = map(in_order, written)
    return jax.lax.stop_gradient(WindowFeatures(last, tapped))


def chunks_of(clips: Num[Array, "b n *s"], chunk_clips: int,
              shards: tuple[int, int],
              clip_sharding: NamedSharding | None = None
              ) -> Num[Array, "i m *s"]:
    """Returns clips in chunks, for a scan without communication.

    Chunk i has the i-th chunk of every device.
    """
    windows, parts = shards
    clips = rearrange(clips, "(D p) (C q) ... -> D C p q ...", D=windows,
                      C=parts)
    own = clips.shape[2] * clips.shape[3]
    chunk = next(size for size in range(min(own, chunk_clips or own), 0, -1)
                 if own % size == 0)
    clips = clips.reshape(windows * parts, own // chunk, chunk,
                          *clips.shape[4:])
    clips = rearrange(clips, "d i j ... -> i (d j) ...")
    if clip_sharding is None:
        return clips
    return jax.lax.with_sharding_constraint(clips, clip_sharding)


def from_chunks(x: Float[Array, "i m *s"], num_windows: int,
                shards: tuple[int, int]) -> Float[Array, "{num_windows} n *s"]:
    """Returns results of `chunks_of` in the order of windows and clips."""
    windows, parts = shards
    x = rearrange(x, "i (D C j) ... -> D C i j ...", D=windows, C=parts)
    p = num_windows // windows
    own = x.shape[2] * x.shape[3]
    x = x.reshape(windows, parts, p, own // p, *x.shape[4:])
    return rearrange(x, "D C p q ... -> (D p) (C q) ...")


def clip_place(clip_sharding: NamedSharding | None) -> NamedSharding | None:
    """Returns the sharding of one chunk's clips, given that of all chunks."""
    if clip_sharding is None:
        return None
    return NamedSharding(clip_sharding.mesh,
                         PartitionSpec(*clip_sharding.spec[1:]))
