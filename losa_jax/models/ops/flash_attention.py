"""TPU's flash kernel: attention whose scores never reach main memory.

Pallas' own kernel (jax.experimental.pallas.ops.tpu.flash_attention) in a
`jax.shard_map`, since the compiler cannot partition a kernel by itself. A
clip of 16 x 224 x 224 has 1568 tokens: its scores are 2.5 million numbers a
head, more than everything else in a block.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as kernels
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

# The kernel's tile; sequences are padded to a multiple.
TILE = 128
# Below this many tokens the plain product's scores are no burden, and the
# padding and the kernel's start cost more than they save.
MIN_TOKENS = 512
# Keys that a block takes at once: with 512 queries 4 MiB of scores, which
# fits a core's fast memory beside all else.
MAX_KEYS, MAX_QUERIES = 2048, 512


def can_flash(query: Array, key: Array, place: NamedSharding) -> bool:
    """Whether the kernel takes this and is worth it.

    Not for float32 (who asks for it wants its products exact), not for heads
    above 128 channels, not for short sequences.

    Args:
      place: how the first axis is spread.
    """
    if place.mesh.devices.flat[0].platform != "tpu":
        return False
    return (query.dtype == jnp.bfloat16 and query.shape[-1] <= TILE
            and min(query.shape[1], key.shape[1]) >= MIN_TOKENS)


def flash_attention(query: Float[Array, "b q heads d"],
                    key: Float[Array, "b t heads d"],
                    value: Float[Array, "b t heads d"], scale: float,
                    place: NamedSharding) -> Float[Array, "b q heads d"]:
    """As `attention.attention` without a mask.

    Args:
      place: how the first axis is spread; others are not.
    """
    def on_a_device(query, key, value):
        q, t = query.shape[1], key.shape[1]
        query, key, value = (
            jnp.pad(jnp.swapaxes(x, 1, 2),
                    ((0, 0), (0, 0), (0, -x.shape[1] % TILE), (0, 0)))
            for x in (query, key, value))
        # Padding is a segment of its own, so no real query looks at it.
        def segment(x, length):
            real = jnp.arange(x.shape[2]) < length
            return jnp.broadcast_to(real.astype(jnp.int32)[None],
                                    (x.shape[0], x.shape[2]))

        out = kernels.flash_attention(
            query, key, value,
            segment_ids=kernels.SegmentIds(segment(query, q),
                                           segment(key, t)),
            sm_scale=scale,
            block_sizes=_blocks(query.shape[2], key.shape[2]))
        return jnp.swapaxes(out[:, :, :q], 1, 2)

    return jax.shard_map(
        on_a_device, mesh=place.mesh, in_specs=(place.spec,) * 3,
        # The kernel says nothing of how its result varies over the mesh.
        out_specs=place.spec, check_vma=False)(query, key, value)


def _blocks(queries: int, keys: int) -> kernels.BlockSizes:
    """All keys at once where they fit: the softmax then needs one pass."""
    tiles = keys // TILE
    block_k = TILE * next(n for n in range(min(tiles, MAX_KEYS // TILE), 0, -1)
                          if tiles % n == 0)
    return kernels.BlockSizes(
        block_q=min(queries, MAX_QUERIES), block_k_major=block_k,
        block_k=block_k, block_b=1, block_q_major_dkv=TILE,
        block_k_major_dkv=TILE, block_k_dkv=TILE, block_q_dkv=TILE,
        block_k_major_dq=TILE, block_k_dq=TILE, block_q_dq=TILE)
