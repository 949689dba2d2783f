"""TPU's flash kernel: attention that never stores scores in main memory.

A clip of 16 x 224 x 224 has 1568 tokens, or 2.5 million scores a head.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as kernels
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

# Sequences are padded to a multiple of the kernel's tile.
TILE = 128
# With fewer tokens, padding and starting the kernel cost more than they save.
MIN_TOKENS = 512
# Of a block: its 4 MiB of scores fit a core's fast memory.
MAX_KEYS, MAX_QUERIES = 2048, 512


def can_flash(query: Float[Array, "b q heads d"],
              key: Float[Array, "b t heads d"], place: NamedSharding) -> bool:
    """Whether to use the kernel: on TPU, in bfloat16, for long sequences.

    Its heads have up to 128 channels. Float32 gets exact products instead.
    """
    if place.mesh.devices.flat[0].platform != "tpu":
        return False
    return (query.dtype == jnp.bfloat16 and query.shape[-1] <= TILE
            and min(query.shape[1], key.shape[1]) >= MIN_TOKENS)


def flash_attention(query: Float[Array, "b q heads d"],
                    key: Float[Array, "b t heads d"],
                    value: Float[Array, "b t heads d"], scale: float,
                    place: NamedSharding) -> Float[Array, "b q heads d"]:
    """Returns unmasked attention; only the first axis may be sharded.

    The compiler cannot partition the kernel, so it runs in a `jax.shard_map`.
    """
    def on_device(query, key, value):
        q, t = query.shape[1], key.shape[1]
        query, key, value = (
            jnp.pad(jnp.swapaxes(x, 1, 2),
                    ((0, 0), (0, 0), (0, -x.shape[1] % TILE), (0, 0)))
            for x in (query, key, value))

        # Padding is another segment, so no real query attends to it.
        def segment(x, length):
            real = jnp.arange(x.shape[2]) < length
            return jnp.broadcast_to(real.astype(jnp.int32)[None],
                                    (x.shape[0], x.shape[2]))

        out = kernels.flash_attention(
            query, key, value, sm_scale=scale,
            segment_ids=kernels.SegmentIds(segment(query, q), segment(key, t)),
            block_sizes=_blocks(query.shape[2], key.shape[2]))
        return jnp.swapaxes(out[:, :, :q], 1, 2)

    return jax.shard_map(
        on_device, mesh=place.mesh, in_specs=(place.spec,) * 3,
        # The kernel does not declare how its result varies over the mesh.
        out_specs=place.spec, check_vma=False)(query, key, value)


def _blocks(queries: int, keys: int) -> kernels.BlockSizes:
    """Puts all keys in one block if they fit, for a softmax in one pass."""
    tiles = keys // TILE
    block_k = TILE * next(n for n in range(min(tiles, MAX_KEYS // TILE), 0, -1)
                          if tiles % n == 0)
    return kernels.BlockSizes(
        block_q=min(queries, MAX_QUERIES), block_k_major=block_k,
        block_k=block_k, block_b=1, block_q_major_dkv=TILE,
        block_k_major_dkv=TILE, block_k_dkv=TILE, block_q_dkv=TILE,
        block_k_major_dq=TILE, block_k_dq=TILE, block_q_dq=TILE)
