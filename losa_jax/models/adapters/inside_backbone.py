"""Adapters inside the backbone (AdaTAD), and fine-tuning of its blocks.

"tia" puts AdaTAD's temporal adapter after each of the top blocks, which stay
frozen; "full" trains the top blocks, and the embedding too if these are all
blocks. The blocks below run without gradients. VideoMAE only.

Source of "tia": opentad/models/backbones/vit_adapter.py in OpenTAD.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from losa_jax import errors
from losa_jax.models.adapters.ladder import TemporalAdapter
from losa_jax.models.backbones import encode_windows, videomae
from losa_jax.models.backbones.scan_blocks import block_on_place
from losa_jax.models.ops import params

ADAPTER_TYPES = ("tia", "full")
EMBEDDING = ("patch_embed", "pos_embed")


@dataclasses.dataclass(frozen=True)
class InsideBackboneSpec:
    """Which blocks of the backbone have adapters or are trained.

    Attributes:
      kind: "tia" or "full".
      top_blocks: number of last blocks with adapters or trained; 1 or more.
      width: channels of the adapters; "full" has none.
      kernel: length of their temporal convolution in tokens; odd.
      drop_path: share of clips that skip the last block in training, below 1;
        grows linearly over all blocks.
      remat_blocks: whether each block is rematerialized.

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
        errors.check_flags(self)
        errors.check_choice(self, "kind", ADAPTER_TYPES)
        errors.check_whole(self, 1, "top_blocks")
        errors.check_whole(self, int(self.kind == "tia"), "width")
        errors.check_odd(self, "kernel")
        errors.check_between(self, 0, 1, "drop_path", without=(1,))


def split_backbone(flat: dict[str, Any], spec: videomae.VideoMaeSpec,
                   inside: InsideBackboneSpec
                   ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the frozen and the trained parameters of a converted backbone.

    "blocks/..." becomes "lower/..." and "upper/..."; parameters after the last
    block are left out. Slices of a memory-mapped file read nothing.
    """
    below = spec.depth - inside.top_blocks
    trains_blocks = inside.kind == "full"
    frozen: dict[str, Any] = {}
    trained: dict[str, Any] = {}
    for name, array in flat.items():
        root, _, rest = name.partition("/")
        if root == "blocks":
            if below:
                frozen[f"lower/{rest}"] = array[:below]
            upper = trained if trains_blocks else frozen
            upper[f"upper/{rest}"] = array[below:]
        elif root in EMBEDDING:
            (trained if trains_blocks and not below else frozen)[name] = array
    return frozen, trained


class InsideBackbone:
    """Encodes windows with gradients into the top of the backbone."""

    def __init__(self, spec: videomae.VideoMaeSpec, inside: InsideBackboneSpec):
        self.spec, self.inside = spec, inside
        self._below = spec.depth - inside.top_blocks
        self._lower = self._template(max(self._below, 1))
        self._upper = self._template(inside.top_blocks)
        self._adapters = (params.Template(lambda: self._make_adapters(0))
                          if inside.kind == "tia" else None)

    def _template(self, depth: int) -> params.Template:
        spec = dataclasses.replace(self.spec, depth=depth, num_classes=0,
                                   final_norm="none")
        return params.Template(
            lambda: videomae.VideoMae(spec, rngs=nnx.Rngs(0)))

    def fresh_adapters(self, seed: int) -> params.Tree:
        """Returns initial parameters of the adapters, which add nothing yet."""
        adapters = self._make_adapters(seed)
        return {"adapters": {"stack": params.parameters(adapters)}}

    def _make_adapters(self, seed: int) -> nnx.Module:
        inside = self.inside
        return params.stacked(lambda rngs: TemporalAdapter(
            self.spec.width, inside.width, inside.kernel, rngs),
            inside.top_blocks, nnx.Rngs(params=params.named_key(
                jax.random.key(seed), "inside backbone")))

    def __call__(self, frozen: params.Tree, trained: params.Tree,
                 frames: Num[Array, "b f H W 3"], valid: Bool[Array, "b n u"],
                 key: Array | None, *, chunk_clips: int, dtype: DTypeLike,
                 shards: tuple[int, int] = (1, 1),
                 clip_sharding: NamedSharding | None = None
                 ) -> encode_windows.WindowFeatures:
        """Returns features of windows as `encode_windows`, without taps.

        Args:
          frozen, trained: the two results of `split_backbone`, nested; for
            "tia", `trained` also has `fresh_adapters`.
          valid: real tokens of each window; the adapters mask the others.
          key: for drop path; None means evaluation.
          chunk_clips, dtype, shards, clip_sharding: see `encode_windows`.
        """
        b, place = frames.shape[0], encode_windows.clip_place(clip_sharding)
        both = {**frozen, **trained}
        embedding = {name: both[name] for name in EMBEDDING if name in both}
        upper = self._upper.bind({**embedding, "blocks": both["upper"]})
        clips = rearrange(frames, "b (n f) H W c -> b n f H W c",
                          f=self.spec.clip_frames)

        def embed(backbone: videomae.VideoMae, clips: Array) -> Array:
            return rearrange(backbone.embed(clips, dtype),
                             "m u h w c -> m (u h w) c")

        if self._below:
            lower = self._lower.bind({**embedding, "blocks": both["lower"]})
            chunks = encode_windows.chunks_of(clips, chunk_clips, shards,
                                              clip_sharding)
            x = jax.lax.map(lambda chunk: lower.run_blocks(
                embed(lower, chunk), place=place)[0], chunks)
            x = rearrange(encode_windows.from_chunks(x, b, shards),
                          "b n t c -> (b n) t c")
            x = jax.lax.stop_gradient(x)
        else:
            x = embed(upper, rearrange(clips, "b n ... -> (b n) ..."))
        x = self._run_upper(upper, trained, x, valid, key, place)
        last = rearrange(x.astype(jnp.float32), "(b n) (u s) c -> b n u s c",
                         b=b, u=self.spec.clip_tokens).mean(axis=3)
        return encode_windows.WindowFeatures(last, jnp.zeros(
            (0, *last.shape[:3], 0, 0, self.spec.width), dtype))

    def _run_upper(self, upper: videomae.VideoMae, trained: params.Tree,
                   x: Float[Array, "m t c"], valid: Bool[Array, "b n u"],
                   key: Array | None,
                   place: NamedSharding | None) -> Float[Array, "m t c"]:
        count = self.inside.top_blocks
        numbers = self._below + jnp.arange(count)
        rates = self.inside.drop_path * numbers / max(self.spec.depth - 1, 1)
        keys = (jax.random.split(key, count)
                if key is not None and self.inside.drop_path else None)
        adapters = None if self._adapters is None else self._adapters.bind(
            trained["adapters"]["stack"])
        b, n, u = valid.shape

        def step(x, inputs):
            block, adapter, rate, block_key = inputs
            x = block_on_place(block, x, place, drop_rate=rate,
                               key=block_key)
            if adapter is not None:
                window = rearrange(x, "(b n) (u s) c -> b (n u) s c", b=b, u=u)
                added = adapter(window, valid.reshape(b, n * u))
                x = x + rearrange(added, "b (n u) s c -> (b n) (u s) c",
                                  n=n).astype(x.dtype)
            return x, None

        if self.inside.remat_blocks:
            step = jax.checkpoint(step, prevent_cse=False)
        return jax.lax.scan(step, x, (upper.blocks, adapters, rates, keys))[0]
