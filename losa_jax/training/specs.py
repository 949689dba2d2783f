"""Derives typed specs from a config.

All functions raise InputError for values that do not fit.
"""

import contextlib
import dataclasses
import logging
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from losa_jax.detection.decode import DecodeSettings
from losa_jax.errors import InputError, fields_as_keys
from losa_jax.models import backbones
from losa_jax.models.adapters import ADAPTERS, inside_backbone
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.heads import HEADS
from losa_jax.weights.backbone_folder import BackboneInfo, open_backbone

logger = logging.getLogger(__name__)

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Adapter types that do not change the backbone's features.
FROZEN_TYPES = ("none", *ADAPTERS)


def configured_backbone(config: Any) -> tuple[
        BackboneSpec, dict[str, np.ndarray], BackboneInfo]:
    """Opens config.backbone.checkpoint and checks it.

    A backbone for clips of any length gets config.window.clip_samples.
    """
    if not config.backbone.checkpoint:
        raise InputError(
            "config.backbone.checkpoint is empty: convert one with `python -m "
            "losa_jax.convert CHECKPOINT --output=DIR` and set "
            "--config.backbone.checkpoint=DIR")
    spec, flat, info = open_backbone(config.backbone.checkpoint)
    check_backbone(config.backbone, spec)
    if not spec.has_fixed_frames:
        with fields_as_keys(type(spec), "config.backbone",
                            clip_frames="config.window.clip_samples"):
            spec = dataclasses.replace(
                spec, clip_frames=config.window.clip_samples)
    return spec, flat, info


def check_backbone(backbone: Any, spec: BackboneSpec) -> None:
    """Raises InputError where the backbone is not what the config asks."""
    asked = backbone_request(backbone)
    if asked["name"]:
        wanted = {"family": backbones.requested_family(asked["name"]),
                  **backbones.backbone_size(**asked)}
    else:
        wanted = {key: value for key, value in asked.items() if value}
    for key, value in wanted.items():
        actual = {"family": backbones.family_of(spec), **vars(spec)}.get(key)
        if actual != value:
            raise InputError(
                f"config.backbone asks for {key}={value} ("
                f"{asked['name'] or 'without a name'}), but the backbone in "
                f"{backbone.checkpoint} has {key}={actual}: change "
                "--config.backbone.checkpoint or --config.backbone."
                f"{'name' if asked['name'] else key}")


def backbone_request(backbone: Any) -> dict[str, Any]:
    """Returns the name and sizes that the config asks of a backbone."""
    return {key: backbone[key] for key in (
        "name", "width", "depth", "heads", "mlp_width", "patch")}


def backbone_keys(config: Any) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which errors of a backbone spec name config keys."""
    family = backbones.requested_family(config.backbone.name)
    return fields_as_keys(backbones.BACKBONES[family].spec, "config.backbone",
                          clip_frames="config.window.clip_samples",
                          image_size="config.augment.size")


def compute_dtype(name: str) -> DTypeLike:
    """Returns the dtype that config.backbone.dtype names."""
    if name not in DTYPES:
        raise InputError(f"config.backbone.dtype={name!r}: choose one of "
                         f"{', '.join(DTYPES)}")
    return DTYPES[name]


def check_window(config: Any, spec: BackboneSpec | None) -> None:
    """Raises InputError where sizes of window, clip or frame do not fit; warns
    where pixels are left out."""
    window = config.window
    if spec is not None and window.clip_samples != spec.clip_frames:
        raise InputError(
            f"config.window.clip_samples={window.clip_samples}, but the "
            f"backbone {config.backbone.checkpoint} reads clips of "
            f"{spec.clip_frames} frames: set it to {spec.clip_frames}")
    window_clips(config)
    check_clip_overlap(config, 1 if spec is None else spec.tubelet)
    if spec is not None and config.augment.size < spec.patch:
        raise InputError(f"config.augment.size={config.augment.size} pixels "
                         f"is below the backbone's patch of {spec.patch}: "
                         "give a larger one")
    if spec is not None and (rest := config.augment.size % spec.patch):
        smaller = config.augment.size - rest
        logger.warning(
            "config.augment.size=%d is no multiple of the backbone's patch of "
            "%d pixels: the last %d rows and columns of every frame are not "
            "seen; %d or %d loses none", config.augment.size, spec.patch, rest,
            smaller, smaller + spec.patch)


def window_clips(config: Any) -> int:
    """Returns the number of clips in a window; InputError if not whole."""
    window = config.window
    count, rest = divmod(window.samples, window.clip_samples)
    if rest:
        smaller = window.samples - rest
        raise InputError(
            f"config.window.samples={window.samples} is no multiple of "
            f"config.window.clip_samples={window.clip_samples}, and the "
            f"backbone reads whole clips: take {smaller} or "
            f"{smaller + window.clip_samples}")
    return count


def check_clip_overlap(config: Any, tubelet: int) -> None:
    """Raises InputError where clips of a window cannot overlap like this."""
    window = config.window
    clip, overlap = window.clip_samples, window.clip_overlap
    if not overlap:
        return
    possible = [clip - step for step in range(tubelet, clip + 1, tubelet)
                if clip % step == 0]
    if window.samples == clip:  # one clip
        possible = [0]
    if overlap not in possible:
        raise InputError(
            f"config.window.clip_overlap={overlap}: clips of {clip} samples in "
            f"windows of {window.samples} must begin every so many samples "
            f"that this number divides {clip} and is a multiple of the "
            f"backbone's tubelet of {tubelet}, so the overlap can be "
            f"{', '.join(map(str, sorted(possible)))}: set it to "
            f"{min(possible, key=lambda one: abs(one - overlap))}")
    if config.augment.per == "clip":
        raise InputError(
            "config.augment.per=clip draws a view for each clip, but with "
            f"config.window.clip_overlap={overlap} a frame is in several "
            "clips: set config.augment.per=window, or the overlap to 0")


def check_tokens(config: Any, head_spec: Any) -> None:
    """Raises InputError where the head's levels do not divide a window."""
    tokens = config.window.tokens
    multiple = getattr(head_spec, "token_multiple", 1)
    if tokens % multiple:
        raise InputError(
            f"config.window.tokens={tokens} is no multiple of {multiple}, the "
            "stride of the last of config.head.num_levels="
            f"{config.head.num_levels} levels: give "
            f"{-(-tokens // multiple) * multiple}")


def choose_tap_layers(adapter: Any, depth: int) -> tuple[int, ...]:
    """Returns the indices of the blocks that the adapter reads, ascending.

    In `tap_layers`, -1 is the last block, and a block that occurs k times is
    read by k adapters. Without `tap_layers` these are `num_taps` evenly spaced
    blocks of the last half, with the last block among them (0: all of that
    half).
    """
    if given := tuple(adapter.tap_layers):
        layers = tuple(layer + depth * (layer < 0) for layer in given)
        if list(layers) != sorted(layers) or not set(layers) <= set(
                range(depth)):
            raise InputError(
                f"config.adapter.tap_layers={given}: must not descend and lie "
                f"within 0 .. {depth - 1}, the backbone's blocks, or -{depth} "
                ".. -1, counted from the end")
        return layers
    half = depth // 2
    count = adapter.num_taps or half
    if not 1 <= count <= half:
        raise InputError(f"config.adapter.num_taps={count}: give 0 to {half}, "
                         "half of the backbone's blocks")
    return tuple(depth - 1 - round((count - 1 - i) * half / count)
                 for i in range(count))


def reads_raw_taps(config: Any) -> bool:
    """Whether the adapter reads every patch of the tapped blocks."""
    adapter = ADAPTERS.get(config.adapter.kind)
    return (adapter is not None and adapter.raw_taps
            and config.adapter.raw_taps)


def tap_grid(config: Any, spec: BackboneSpec) -> tuple[int, int] | tuple[()]:
    """Returns rows and columns of the taps; () keeps every patch."""
    asked = tuple(config.adapter.tap_grid)
    if not asked or reads_raw_taps(config):
        return ()
    if len(asked) != 2 or min(asked) < 1:
        raise InputError(f"config.adapter.tap_grid={asked}: give rows and "
                         "columns, as '(4,4)', or '()' for every patch")
    patches = config.augment.size // spec.patch
    rows, columns = (min(side, patches) for side in asked)
    return () if rows == columns == patches else (rows, columns)


def make_adapter_spec(config: Any, spec: BackboneSpec,
                      tap_layers: tuple[int, ...]) -> Any:
    """Returns the spec of the adapter beside the backbone, None without one."""
    adapter = config.adapter
    known = (*FROZEN_TYPES, *inside_backbone.ADAPTER_TYPES)
    if adapter.kind not in known:
        raise InputError(f"config.adapter.kind={adapter.kind!r}: choose one "
                         f"of {', '.join(known)}")
    if adapter.kind not in ADAPTERS:
        return None
    patches = config.augment.size // spec.patch
    with fields_as_keys(ADAPTERS[adapter.kind].spec, "config.adapter"):
        return from_sections(
            ADAPTERS[adapter.kind].spec, adapter, in_width=spec.width,
            num_taps=len(tap_layers), clip_tokens=spec.clip_tokens,
            tap_grid=tap_grid(config, spec) or (patches, patches))


def check_deep_supervision(config: Any, num_taps: int) -> None:
    """Raises InputError where there are no losses after earlier taps."""
    weight, kind = config.loss.deep_supervision, config.adapter.kind
    if weight and (kind not in ADAPTERS or num_taps < 2):
        raise InputError(
            f"config.loss.deep_supervision={weight} needs an adapter beside "
            f"the backbone, config.adapter.kind={' or '.join(ADAPTERS)}, with "
            f"two taps or more; now it is {kind} with {num_taps}: set the "
            "weight to 0, or change the adapter")


def inside_backbone_spec(adapter: Any, spec: BackboneSpec
                         ) -> inside_backbone.InsideBackboneSpec:
    """Returns which blocks of the backbone are trained, and how."""
    top = adapter.top_blocks or spec.depth
    if not 1 <= top <= spec.depth:
        raise InputError(f"config.adapter.top_blocks={top}: the backbone has "
                         f"{spec.depth} blocks; 0 is all of them")
    with fields_as_keys(inside_backbone.InsideBackboneSpec, "config.adapter",
                        kernel="long_kernel"):
        return from_sections(
            inside_backbone.InsideBackboneSpec, adapter, top_blocks=top,
            width=adapter.width or spec.width // 4, kernel=adapter.long_kernel)


def make_head_spec(config: Any, *, in_width: int, num_classes: int,
                   remat: bool = False) -> Any:
    """Returns the spec of the head for features of `in_width` channels."""
    if config.head.kind not in HEADS:
        raise InputError(f"config.head.kind={config.head.kind!r}: choose one "
                         f"of {', '.join(HEADS)}")
    spec = HEADS[config.head.kind].spec
    width_key = "features" if config.features.folder else "backbone"
    with fields_as_keys(
            spec, "config.head", in_width=f"config.{width_key}.width",
            max_tokens="config.window.tokens",
            **{name: f"config.loss.{name}" for name in config.loss}):
        return from_sections(
            spec, config.head, config.loss, in_width=in_width,
            num_classes=num_classes, max_tokens=config.window.tokens,
            remat=remat)


def decode_settings(evaluate: Any) -> DecodeSettings:
    """Returns the settings in the config section `evaluate`."""
    with fields_as_keys(DecodeSettings, "config.evaluate"):
        return from_sections(DecodeSettings, evaluate)


def from_sections(spec: type[Any], *sections: Any, **given: Any) -> Any:
    """Returns a spec from the given values and keys of config sections."""
    names = {field.name for field in dataclasses.fields(spec)}
    return spec(**{
        key: tuple(value) if isinstance(value, (tuple, list)) else value
        for section in (*reversed(sections), given)
        for key, value in section.items() if key in names})
