"""Opens the features that a run reads in place of videos."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.features.tap_cache import TapCache, stored_facts
from losa_jax.data.windows.sampling import clip_step
from losa_jax.errors import InputError
from losa_jax.training import restore, specs

TAP_DTYPES = {**specs.DTYPES, "float16": jnp.float16}


def open_store(config: Any) -> TapCache | FeatureFiles | None:
    """Opens config.features.folder or config.data.cache; None without both.

    Raises:
      InputError: the features are missing or incomplete, or do not fit.
    """
    if config.features.folder:
        return open_feature_files(config)
    if not config.data.cache:
        return None
    if not config.window.align_to_clips:
        raise InputError("cached features need "
                         "--config.window.align_to_clips=True")
    facts, stored = cache_facts(config), stored_facts(config.data.cache)
    taps: list[int] | None = None
    if config.adapter.kind == "none":
        # The cache may hold any taps.
        for name in ("tap_layers", "tap_grid", "tap_dtype"):
            del facts[name]
    else:
        if stored.get("tap_grid") == []:
            # A cache of every patch serves any grid.
            facts["tap_grid"] = []
        layers = stored.get("tap_layers", [])
        if set(facts["tap_layers"]) < set(layers):
            taps = [layers.index(layer) for layer in facts["tap_layers"]]
            facts["tap_layers"] = layers
    return TapCache(config.data.cache, facts, config.window.clip_samples,
                    clip_step(config.window), taps=taps)


def open_feature_files(config: Any) -> FeatureFiles:
    """Opens the files of config.features."""
    if config.adapter.kind != "none" or config.data.cache:
        raise InputError(
            "config.features.folder trains the head alone on files of "
            "features: set --config.adapter.kind=none and no data.cache")
    window = config.window
    if window.clip_samples != 1 or window.samples != window.tokens:
        raise InputError(
            "with config.features.folder a sample is one feature: set "
            "--config.window.clip_samples=1 and --config.window.samples = "
            f"--config.window.tokens (now {window.clip_samples}, "
            f"{window.samples} and {window.tokens})")
    return FeatureFiles(
        config.features,
        resized_to=window.samples if window.sampling == "resize" else 0,
        cache_gib=config.data.frame_cache_gib,
        joined_widths=config.head.input_widths)


def cache_facts(config: Any) -> dict[str, Any]:
    """Returns the facts that a cache and a config must share."""
    if config.adapter.kind not in specs.FROZEN_TYPES:
        raise InputError(
            f"config.adapter.kind={config.adapter.kind} changes the backbone's "
            "features while it trains: use cached features only with "
            f"{', '.join(specs.FROZEN_TYPES)}")
    spec, _, info = specs.configured_backbone(config)
    window, has_taps = config.window, config.adapter.kind != "none"
    copies = config.data.cache_copies
    return restore.plain({
        "backbone": info.fingerprint,
        "dtype": config.backbone.dtype,
        "tap_layers": sorted(set(specs.choose_tap_layers(
            config.adapter, spec.depth))) if has_taps else (),
        "tap_grid": specs.tap_grid(config, spec) if has_taps else (),
        "tap_dtype": cache_dtype(config).name,
        # The seed only draws the augmented copies.
        "augmented": {"copies": copies, "seed": config.seed,
                      **config.augment.to_dict()} if copies else {},
        "size": config.augment.size,
        "test_resize": config.augment.test_resize,
        "clip_frames": window.clip_samples,
        "clip_overlap": window.clip_overlap, "sampling": window.sampling,
        "frame_stride": window.frame_stride, "sample_fps": window.sample_fps,
        "resized_frames": window.samples if window.sampling == "resize" else 0,
    })


def as_stored(config: Any) -> Any:
    """Returns the config with the taps of an existing cache, which may hold
    more than a run reads."""
    stored = stored_facts(config.data.cache)
    config = config.copy_and_resolve_references()
    if stored.get("tap_layers"):
        if config.adapter.kind == "none":
            config.adapter.kind = "losa"
            config.data.cache_dtype = stored["tap_dtype"]
        config.adapter.tap_layers = tuple(stored["tap_layers"])
        config.adapter.tap_grid = tuple(stored["tap_grid"])
    return config


def cache_dtype(config: Any) -> np.dtype:
    """Returns the dtype of the taps on disk."""
    name = config.data.cache_dtype or config.backbone.dtype
    if name not in TAP_DTYPES:
        raise InputError(f"config.data.cache_dtype={name!r}: choose one of "
                         f"{', '.join(TAP_DTYPES)}")
    return np.dtype(TAP_DTYPES[name])
