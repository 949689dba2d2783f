"""Encodes windows with the backbone, of which a part may be trained.

Trained parameters, norms and biases are float32 in any compute dtype.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh
from jax.typing import DTypeLike

from losa_jax.data.windows.batch import INPUT_KEYS
from losa_jax.data.windows.sampling import clip_step
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.models import backbones
from losa_jax.models.adapters import inside_backbone
from losa_jax.models.backbones import encode_windows, videomae
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.clip_overlap import mean_over_clips
from losa_jax.models.detector import valid_steps
from losa_jax.models.ops.params import Tree, nest
from losa_jax.models.ops.resample import shape_tap
from losa_jax.training import specs

# (frozen, trained, inputs, valid_samples, key) to features: `inputs` is of
# `encoder_inputs`, `trained` the whole tree, key None means evaluation.
Encode = Callable[[Tree, Tree, dict, jax.Array | None, jax.Array | None],
                  encode_windows.WindowFeatures]


def encoder_inputs(batch: dict) -> dict:
    """Returns the frames or features of a batch."""
    return {name: batch[name] for name in INPUT_KEYS if name in batch}


class Encoder(NamedTuple):
    """Parameters without gradient, on the mesh, and how to encode with them.
    """

    frozen: Tree
    encode: Encode


def frozen_encoder(config: Any, spec: BackboneSpec, flat: dict[str, Any],
                   tap_layers: tuple[int, ...], mesh: Mesh, *,
                   raw_taps: bool | None = None,
                   has_single_clips: bool = False,
                   abstract: bool = False) -> Encoder:
    """Returns the encoder of a frozen backbone.

    Args:
      flat: parameters of the backbone by name; none to read cached features.
      tap_layers: blocks that the adapter reads, ascending, maybe one several
        times; () for none.
      raw_taps: returns every patch of the blocks; None: as the adapter needs.
      has_single_clips: windows are clips, which have no overlap.
      abstract: see `sharding.read_onto_mesh`.
    """
    dtype = specs.compute_dtype(config.backbone.dtype)
    frozen = sharding.read_onto_mesh(nest(flat), mesh, frozen_dtype(dtype),
                                     abstract=abstract)
    template = backbones.backbone_template(spec)
    shards, place = sharding.clip_placement(mesh, specs.window_clips(config))
    raw_taps = specs.reads_raw_taps(config) if raw_taps is None else raw_taps
    grid = None if raw_taps else specs.tap_grid(config, spec) or None
    clip = spec.clip_frames
    step = clip if has_single_clips else clip_step(config.window)
    blocks = tuple(sorted(set(tap_layers)))
    slots = np.searchsorted(blocks, tap_layers)

    def cached_taps(inputs):
        if "taps" in inputs:
            taps = rearrange(inputs["taps"], "b k ... -> k b ...")
            return taps.astype(dtype)
        # The blocks' patches, from which any grid is made.
        b, k, n = inputs["raw_taps"].shape[:3]
        taps = rearrange(inputs["raw_taps"],
                         "b k n u h w c -> (k b n) u h w c").astype(dtype)
        taps = shape_tap(taps, grid, not raw_taps, spec.norm_epsilon)
        return rearrange(taps, "(k b n) ... -> k b n ...", k=k, b=b, n=n)

    def encode_clips(frozen, inputs):
        if "last" in inputs:
            return encode_windows.WindowFeatures(inputs["last"],
                                                 cached_taps(inputs))
        return encode_windows.encode_windows(
            template.bind(frozen), inputs["frames"], taps=blocks,
            tap_grid=grid, tap_norm=not raw_taps,
            chunk_clips=config.backbone.chunk_clips, dtype=dtype,
            shards=shards, clip_sharding=place, clip_step=step)

    def encode(frozen, trained, inputs, valid_samples, key):
        del trained, key
        last, taps = encode_clips(frozen, inputs)

        def mean(x):
            return mean_over_clips(x, valid_samples, clip, step)

        if step != clip:
            # One tap at a time, to limit the memory of the sums.
            last, taps = mean(last), jax.lax.map(mean, taps)
        return encode_windows.WindowFeatures(
            last, taps[slots] if len(slots) > len(blocks) else taps)

    return Encoder(frozen, encode)


def feature_encoder() -> Encoder:
    """Returns the encoder of features from files."""
    def encode(frozen, trained, inputs, valid_samples, key):
        del frozen, trained, valid_samples, key
        b, n, u, c = inputs["last"].shape
        return encode_windows.WindowFeatures(inputs["last"],
                                             jnp.zeros((0, b, n, u, 0, 0, c)))

    return Encoder({}, encode)


def inside_backbone_encoder(config: Any, spec: BackboneSpec,
                            flat: dict[str, Any], mesh: Mesh, *,
                            abstract: bool = False) -> tuple[Encoder, Tree]:
    """Returns a partly trained encoder and its trained parameters on the mesh.
    For the adapters `tia` and `full`; arguments: see `frozen_encoder`.

    Raises:
      InputError: the backbone is not a VideoMAE, or its clips overlap.
    """
    if config.window.clip_overlap:
        raise InputError(
            f"config.window.clip_overlap={config.window.clip_overlap} needs a "
            f"frozen backbone, and config.adapter.kind={config.adapter.kind} "
            "trains inside it: set the overlap to 0, or choose an adapter "
            "beside the backbone")
    if not isinstance(spec, videomae.VideoMaeSpec):
        raise InputError(
            f"config.adapter.kind={config.adapter.kind} needs a videomae "
            "backbone, but "
            f"{config.backbone.checkpoint or config.backbone.name} is a "
            f"{backbones.family_of(spec)}: choose an adapter beside the "
            "backbone")
    dtype = specs.compute_dtype(config.backbone.dtype)
    settings = specs.inside_backbone_spec(config.adapter, spec)
    frozen_flat, trained_flat = inside_backbone.split_backbone(
        flat, spec, settings)
    frozen = sharding.read_onto_mesh(
        nest(frozen_flat), mesh, frozen_dtype(dtype), abstract=abstract)
    backbone = inside_backbone.InsideBackbone(spec, settings)
    shards, place = sharding.clip_placement(mesh, specs.window_clips(config))
    if settings.kind == "tia":
        trained = sharding.make_on_mesh(
            lambda: backbone.fresh_adapters(config.seed), mesh,
            abstract=abstract)
    else:
        trained = sharding.read_onto_mesh(
            nest(trained_flat), mesh, lambda leaf: jnp.float32,
            abstract=abstract)
        if not abstract:
            # Copied, because the step donates them and they may be mapped.
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

    return Encoder(frozen, encode), trained


def frozen_dtype(dtype: DTypeLike) -> Callable[[Any], Any]:
    """Returns `dtype_of` of `sharding.read_onto_mesh`, for the frozen part."""
    return lambda leaf: dtype if leaf.ndim > 2 else jnp.float32
