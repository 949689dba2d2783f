"""Adapters inside the backbone (AdaTAD), and fine-tuning of its blocks.

The gradient goes through the backbone: what LoSA is compared with.

`tia` puts AdaTAD's temporal adapter behind each of the top blocks, which
stay frozen themselves; `full` trains the top blocks, and the embedding too
when they are all. Blocks below run as for the other types: clip by clip,
nothing stored. VideoMAE only: it needs the backbone's parts. Source of `tia`:
AdaTAD as in OpenTAD, github.com/sming256/OpenTAD (Apache-2.0),
opentad/models/backbones/vit_adapter.py.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from losa_jax.errors import (
    check_between,
    check_choice,
    check_odd,
    check_whole,
)
from losa_jax.models.adapters.ladder import TemporalAdapter
from losa_jax.models.backbones.encode_windows import (
    WindowFeatures,
    chunks_of,
    clip_place,
    from_chunks,
)
from losa_jax.models.backbones.videomae import (
    VideoMae,
    VideoMaeSpec,
    block_on_place,
)
from losa_jax.models.ops.params import Template, Tree, parameters

KINDS = ("tia", "full")


@dataclasses.dataclass(frozen=True)
class InsideBackboneSpec:
    """How the backbone is tuned.

    Attributes:
      kind: "tia" or "full".
      top_blocks: blocks with adapters, or trained ones, counted from the
        last; 1 or more.
      width: of the adapters in channels; "full" has none.
      kernel: of their temporal convolution in tokens; odd.
      drop_path: share of clips that skip the last block while training,
        below 1; grows linearly over all blocks.
      remat_blocks: compute each block again in the gradient instead of
        storing what is inside it.

    Raises:
      InputError: names the field and what it allows.
    """

    kind: str
    top_blocks: int
    width: int = 0
    kernel: int = 3
    drop_path: float = 0.0
    remat_blocks: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "kind", KINDS)
        check_whole(self, 1, "top_blocks")
        check_whole(self, int(self.kind == "tia"), "width")
        check_odd(self, "kernel")
        check_between(self, 0, 1, "drop_path", without=(1,))
        check_choice(self, "remat_blocks", (True, False))


def split_backbone(flat: dict[str, Any], spec: VideoMaeSpec,
                   tuned: InsideBackboneSpec
                   ) -> tuple[dict[str, Any], dict[str, Any]]:
    """(frozen, trained) flat parameters of a converted backbone.

    Stacked blocks are cut into "lower/..." and "upper/..."; slices of a
    memory-mapped file read nothing. Norm and classifier after the last block
    are not used and left out.
    """
    below = spec.depth - tuned.top_blocks
    frozen: dict[str, Any] = {}
    trained: dict[str, Any] = {}
    for name, array in flat.items():
        root, _, rest = name.partition("/")
        if root == "blocks":
            if below:
                frozen[f"lower/{rest}"] = array[:below]
            upper = trained if tuned.kind == "full" else frozen
            upper[f"upper/{rest}"] = array[below:]
        elif root in ("patch_embed", "pos_embed"):
            whole = tuned.kind == "full" and not below
            (trained if whole else frozen)[name] = array
    return frozen, trained


class BlockAdapters(nnx.Module):
    """One temporal adapter a block, stacked."""

    def __init__(self, in_width: int, spec: InsideBackboneSpec, *,
                 rngs: nnx.Rngs):
        self.stack = nnx.vmap(lambda key: TemporalAdapter(
            in_width, spec.width, kernel=spec.kernel,
            rngs=nnx.Rngs(params=key))
        )(jax.random.split(rngs.params(), spec.top_blocks))


class InsideBackbone:
    """Encodes windows with gradients into the top of the backbone."""

    def __init__(self, spec: VideoMaeSpec, tuned: InsideBackboneSpec):
        self.spec, self.tuned = spec, tuned
        self._below = spec.depth - tuned.top_blocks
        self._lower = self._template(max(self._below, 1))
        self._upper = self._template(tuned.top_blocks)
        self._adapters = (Template(lambda: BlockAdapters(
            spec.width, tuned, rngs=nnx.Rngs(0)))
            if tuned.kind == "tia" else None)

    def _template(self, depth: int) -> Template:
        spec = dataclasses.replace(self.spec, depth=depth, num_classes=0,
                                   final_norm="none")
        return Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))

    def fresh_adapters(self, seed: int) -> Tree:
        """Parameters of the adapters: they add nothing at first."""
        return {"adapters": parameters(BlockAdapters(
            self.spec.width, self.tuned, rngs=nnx.Rngs(seed)))}

    def __call__(self, frozen: Tree, trained: Tree, frames: Array,
                 valid: Bool[Array, "b n u"], key: Array | None, *,
                 chunk_clips: int, dtype: DTypeLike,
                 shards: tuple[int, int] = (1, 1),
                 clip_sharding: NamedSharding | None = None
                 ) -> WindowFeatures:
        """As `encode_windows`, without taps.

        Args:
          frozen, trained: the two halves of `split_backbone`, nested, and
            "adapters" in `trained` for `tia`.
          frames: [b, f, H, W, 3].
          valid: real tokens of each window; the adapters mask the others.
          key: for drop path; None means evaluation.
          chunk_clips, dtype, shards, clip_sharding: see `encode_windows`;
            only blocks below the tuned ones run in chunks.
        """
        b, place = frames.shape[0], clip_place(clip_sharding)
        both = {**frozen, **trained}
        embedding: dict[str, Any] = {
            name: both[name] for name in ("patch_embed", "pos_embed")
            if name in both}
        lower = {**embedding, "blocks": both["lower"]} if self._below else None
        upper = self._upper.bind({**embedding, "blocks": both["upper"]})
        clips = rearrange(frames, "b (n f) H W c -> (b n) f H W c",
                          f=self.spec.clip_frames)
        if lower is None:
            tokens = upper.embed(clips, dtype)
            x = rearrange(tokens, "m u h w c -> m (u h w) c")
        else:
            backbone = self._lower.bind(lower)
            chunks = chunks_of(
                rearrange(clips, "(b n) ... -> b n ...", b=b), chunk_clips,
                shards, clip_sharding)

            def below(chunk):
                tokens = backbone.embed(chunk, dtype)
                return backbone.run_blocks(
                    rearrange(tokens, "m u h w c -> m (u h w) c"),
                    place=place)[0]

            x = rearrange(
                from_chunks(jax.lax.map(below, chunks), b, shards),
                "b n t c -> (b n) t c")
            x = jax.lax.stop_gradient(x)
        x = self._run_upper(upper, trained, x, valid, key, place)
        pooled = x.reshape(b, -1, self.spec.clip_tokens,
                           x.shape[1] // self.spec.clip_tokens, x.shape[2])
        last = pooled.astype(jnp.float32).mean(axis=3)
        return WindowFeatures(last, jnp.zeros(
            (0, *last.shape[:3], 0, 0, self.spec.width), dtype))

    def _run_upper(self, upper: VideoMae, trained: Tree, x: Array,
                   valid: Array, key: Array | None,
                   place: NamedSharding | None) -> Float[Array, "m t c"]:
        count = self.tuned.top_blocks
        numbers = self._below + jnp.arange(count)
        rates = self.tuned.drop_path * numbers / max(self.spec.depth - 1, 1)
        keys = (jax.random.split(key, count)
                if key is not None and self.tuned.drop_path else None)
        adapters = None if self._adapters is None else self._adapters.bind(
            trained["adapters"]).stack
        b, n, u = valid.shape

        def step(x, inputs):
            block, adapter, rate, block_key = inputs
            x = block_on_place(block, x, place, drop_rate=rate,
                               key=block_key)
            if adapter is not None:
                window = rearrange(x, "(b n) (u s) c -> b (n u) s c", b=b,
                                   u=u)
                added = adapter(window, valid.reshape(b, n * u))
                x = x + rearrange(added, "b (n u) s c -> (b n) (u s) c",
                                  n=n).astype(x.dtype)
            return x, None

        if self.tuned.remat_blocks:
            step = jax.checkpoint(step, prevent_cse=False)
        return jax.lax.scan(step, x, (upper.blocks, adapters, rates, keys))[0]
