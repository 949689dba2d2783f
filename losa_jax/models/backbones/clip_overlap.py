"""Overlapping clips of a window, and the mean of each token over its clips.

Clips of f samples begin every `step` samples, and `step` divides f, so that
r = f / step clips see a token, fewer at the ends of the window. A window of S
samples counts S / step clips, r times as many as without overlap, and they are
divided among devices in the same way. The last r - 1 of them would reach
beyond the window: they wrap around to its start and have no weight.
"""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, Num


def overlapping_clips(frames: Num[Array, "b S H W rgb"], clip_samples: int,
                      step: int) -> Num[Array, "b n f H W rgb"]:
    """Returns the clips of windows that begin every `step` samples."""
    parts = rearrange(frames, "b (n s) H W rgb -> b n s H W rgb", s=step)
    clips = jnp.stack([jnp.roll(parts, -part, axis=1)
                       for part in range(clip_samples // step)], axis=2)
    return rearrange(clips, "b n r s H W rgb -> b n (r s) H W rgb")


def mean_over_clips(x: Float[Array, "b n u *s"],
                    valid_samples: Int[Array, "b"], clip_samples: int,
                    step: int) -> Float[Array, "b m v *s"]:
    """Returns features as of clips without overlap: of each token the mean
    over the clips that see it, computed in float32.

    Clips that reach beyond the real samples, rounded up to whole steps, do not
    count, so that a short video has the same features in a window of any
    length. Tokens that no clip sees, which are padding, are zero.
    """
    overlaps = clip_samples // step
    last_clip = -(-jnp.maximum(valid_samples - clip_samples, 0) // step)
    counts = jnp.arange(x.shape[1]) <= last_clip[:, None]
    counts = counts.reshape(*counts.shape, *[1] * (x.ndim - 2))
    parts = rearrange(x, "b n (r u) ... -> r b n u ...", r=overlaps)
    total = sum(
        jnp.roll(jnp.where(counts, part, 0), number, axis=1).astype(jnp.float32)
        for number, part in enumerate(parts))
    seen = sum(jnp.roll(counts, number, axis=1).astype(jnp.float32)
               for number in range(overlaps))
    return rearrange((total / jnp.maximum(seen, 1)).astype(x.dtype),
                     "b (m r) u ... -> b m (r u) ...", r=overlaps)
