"""The backbone of a run: which of it is frozen, and how windows go through.

Norms and biases stay float32 in any compute dtype: they are small, and
statistics need it. What is trained is kept in float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from losa_jax import timeline
from losa_jax.data.windows.batch import INPUT_KEYS
from losa_jax.distributed import sharding
from losa_jax.errors import InputError, fields_as_keys
from losa_jax.models.adapters import ADAPTERS, inside_backbone
from losa_jax.models.backbones import backbone_template, family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.encode_windows import (
    WindowFeatures,
    encode_windows,
)
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.models.detector import valid_steps
from losa_jax.models.ops.params import Tree, nest
from losa_jax.models.ops.taps import shape_tap

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# (frozen, trained, inputs, valid_samples, key) to the windows' features;
# `inputs` as `encoder_inputs` gives them, `trained` is the whole trained
# tree, key None means evaluation.
Encode = Callable[[Tree, Tree, dict, jax.Array | None, jax.Array | None],
                  WindowFeatures]


def encoder_inputs(batch: dict) -> dict:
    """Of a batch, what the encoder reads: frames or cached features."""
    return {name: batch[name] for name in INPUT_KEYS if name in batch}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """How windows become features.

    Attributes:
      frozen: parameters without gradient, on the mesh.
      trained: parameters that belong under "backbone" in the trained tree,
        on the mesh; empty where no gradient enters the backbone.
      encode: see `Encode`.
    """

    frozen: Tree
    trained: Tree
    encode: Encode


def frozen_encoder(config: Any, spec: BackboneSpec, flat: dict[str, Any],
                   tap_layers: tuple[int, ...], mesh: Mesh, *,
                   raw_taps: bool | None = None,
                   abstract: bool = False) -> Encoder:
    """For adapters beside the backbone, and for none.

    Args:
      config: the whole config.
      spec, flat: of the converted backbone.
      tap_layers: blocks that the adapters read; () for none.
      mesh: where it lies.
      raw_taps: give every patch as the blocks do; None asks the adapter.
      abstract: see `sharding.read_onto_mesh`.
    """
    dtype = compute_dtype(config.backbone.dtype)
    # With cached features the backbone has nothing left to do.
    flat = {} if config.data.cache else flat
    frozen = sharding.read_onto_mesh(nest(flat), mesh, frozen_dtype(dtype),
                                     abstract=abstract)
    template = backbone_template(spec)
    shards, place = clip_placement(config, mesh)
    raw_taps = reads_raw_taps(config) if raw_taps is None else raw_taps
    tap_norm = not raw_taps
    grid = None if raw_taps else tap_grid(config, spec) or None

    def cached_taps(inputs):
        if "taps" in inputs:
            taps = rearrange(inputs["taps"], "b k ... -> k b ...")
            return taps.astype(dtype)
        # Every patch as the blocks gave it: one cache serves all grids.
        taps = rearrange(inputs["raw_taps"],
                         "b k n u h w c -> (k b n) u h w c").astype(dtype)
        taps = shape_tap(taps, grid, tap_norm, spec.norm_epsilon)
        b, k, n = inputs["raw_taps"].shape[:3]
        return rearrange(taps, "(k b n) ... -> k b n ...", k=k, b=b, n=n)

    def encode(frozen, trained, inputs, valid_samples, key):
        del trained, valid_samples, key
        if "last" in inputs:
            return WindowFeatures(inputs["last"], cached_taps(inputs))
        return encode_windows(
            template.bind(frozen), inputs["frames"], taps=tap_layers,
            tap_grid=grid, tap_norm=tap_norm,
            chunk_clips=config.backbone.chunk_clips, dtype=dtype,
            shards=shards, clip_sharding=place)

    return Encoder(frozen, {}, encode)


def clip_placement(config: Any, mesh: Mesh
                   ) -> tuple[tuple[int, int], NamedSharding]:
    """`sharding.clip_placement` of a config's windows."""
    return sharding.clip_placement(mesh, len(timeline.clip_edges(
        config.window.samples, config.window.clip_samples)))


def feature_encoder() -> Encoder:
    """For features from files: they are the last features already."""
    def encode(frozen, trained, inputs, valid_samples, key):
        del frozen, trained, valid_samples, key
        last = inputs["last"]
        b, n, u, c = last.shape
        return WindowFeatures(last, jnp.zeros((0, b, n, u, 0, 0, c)))

    return Encoder({}, {}, encode)


def reads_raw_taps(config: Any) -> bool:
    """Whether the adapter reads every patch as the blocks give it."""
    adapter = ADAPTERS.get(config.adapter.kind)
    return adapter is not None and adapter.raw_taps


def tap_grid(config: Any, spec: BackboneSpec) -> tuple[int, int] | tuple[()]:
    """Rows and columns of the taps; () keeps every patch.

    No grid is finer than the patches are.

    Raises:
      InputError: config.adapter.tap_grid is no grid.
    """
    asked = tuple(config.adapter.tap_grid)
    if not asked or reads_raw_taps(config):
        return ()
    if len(asked) != 2 or min(asked) < 1:
        raise InputError(f"config.adapter.tap_grid={asked}: give rows and "
                         "columns, as '(4,4)', or '()' for every patch")
    patches = config.augment.size // spec.patch
    rows, columns = (min(side, patches) for side in asked)
    return () if rows == columns == patches else (rows, columns)


def inside_backbone_encoder(config: Any, spec: BackboneSpec,
                            flat: dict[str, Any], mesh: Mesh, *,
                            abstract: bool = False) -> Encoder:
    """For adapters inside the backbone (`tia`) and for training it (`full`).

    Arguments as `frozen_encoder`.

    Raises:
      InputError: the backbone is no VideoMAE, whose parts these types need.
    """
    if not isinstance(spec, VideoMaeSpec):
        raise InputError(
            f"config.adapter.kind={config.adapter.kind} trains inside a "
            f"videomae backbone, {config.backbone.checkpoint} is of "
            f"{family_of(spec)}: choose an adapter beside the backbone")
    dtype = compute_dtype(config.backbone.dtype)
    settings = inside_backbone_spec(config.adapter, spec)
    frozen_flat, trained_flat = inside_backbone.split_backbone(
        flat, spec, settings)
    frozen = sharding.read_onto_mesh(
        nest(frozen_flat), mesh, frozen_dtype(dtype), abstract=abstract)
    backbone = inside_backbone.InsideBackbone(spec, settings)
    shards, place = clip_placement(config, mesh)
    if settings.kind == "tia":
        trained = sharding.make_on_mesh(
            lambda: backbone.fresh_adapters(config.seed), mesh,
            abstract=abstract)
    else:
        trained = sharding.read_onto_mesh(
            nest(trained_flat), mesh, lambda leaf: jnp.float32,
            abstract=abstract)
        if not abstract:
            # The step donates its buffers, and these may be the file's.
            trained = jax.tree.map(jnp.array, trained)

    def encode(frozen, trained, inputs, valid_samples, key):
        frames = inputs["frames"]
        steps = frames.shape[1] // spec.tubelet
        valid = rearrange(valid_steps(valid_samples, steps, spec.tubelet),
                          "b (n u) -> b n u", u=spec.clip_tokens)
        return backbone(
            frozen, trained["backbone"], frames, valid, key,
            chunk_clips=config.backbone.chunk_clips, dtype=dtype,
            shards=shards, clip_sharding=place)

    return Encoder(frozen, trained, encode)


def inside_backbone_spec(adapter: Any, spec: BackboneSpec
                         ) -> inside_backbone.InsideBackboneSpec:
    """Returns which blocks are trained, and how, from `config.adapter`.

    Raises:
      InputError: more blocks to tune than the backbone has, or another
        value that `InsideBackboneSpec` refuses.
    """
    top = adapter.top_blocks or spec.depth
    if not 1 <= top <= spec.depth:
        raise InputError(f"config.adapter.top_blocks={top}: the backbone has "
                         f"{spec.depth} blocks; 0 is all of them")
    with fields_as_keys(inside_backbone.InsideBackboneSpec, "config.adapter",
                        kernel="long_kernel"):
        return inside_backbone.InsideBackboneSpec(
            kind=adapter.kind, top_blocks=top,
            width=adapter.width or spec.width // 4,
            kernel=adapter.long_kernel, drop_path=adapter.drop_path,
            remat_blocks=adapter.remat_blocks)


def compute_dtype(name: str) -> DTypeLike:
    """The dtype that config.backbone.dtype names."""
    if name not in DTYPES:
        raise InputError(f"config.backbone.dtype={name!r}: choose one of "
                         f"{', '.join(DTYPES)}")
    return DTYPES[name]


def frozen_dtype(dtype: DTypeLike) -> Callable[[Any], Any]:
    """What a frozen parameter is kept in, for `sharding.read_onto_mesh`."""
    return lambda leaf: dtype if leaf.ndim > 2 else jnp.float32
