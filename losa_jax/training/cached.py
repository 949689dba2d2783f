"""Which cached features fit a run."""

from typing import Any

from losa_jax.data.tap_store import TapStore
from losa_jax.errors import InputError
from losa_jax.models.weights import load_backbone
from losa_jax.training.build import choose_tap_layers
from losa_jax.training.restore import plain

# Kinds whose features stay the same while they train, and are few.
CACHED_KINDS = ("none", "losa")


def open_store(config: Any) -> TapStore | None:
    """The cache that config.data.cache names, checked; None without one.

    Raises:
      InputError: it is missing, unfinished, or of something else.
    """
    if not config.data.cache:
        return None
    if not config.window.align_to_clips:
        raise InputError("cached features need --config.window."
                         "align_to_clips=True, as they were made")
    facts = cache_facts(config)
    if config.adapter.kind == "none":
        # Any taps may lie beside the last features.
        del facts["tap_layers"], facts["tap_grid"]
    return TapStore(config.data.cache, facts, config.window.clip_frames)


def cache_facts(config: Any) -> dict[str, Any]:
    """What must be equal for cached features to be those of a config."""
    if config.adapter.kind not in CACHED_KINDS:
        raise InputError(
            f"config.adapter.kind={config.adapter.kind}: its features of the "
            "backbone change while it trains, or are too many to be kept; "
            f"cached features serve {' and '.join(CACHED_KINDS)}")
    spec, _, info = load_backbone(config.backbone.checkpoint)
    window, has_taps = config.window, config.adapter.kind != "none"
    return plain({
        "backbone": info.fingerprint,
        "dtype": config.backbone.dtype,
        "tap_layers": (choose_tap_layers(config.adapter, spec.depth)
                       if has_taps else ()),
        "tap_grid": config.adapter.tap_grid if has_taps else (),
        "size": config.augment.size,
        "test_resize": config.augment.test_resize,
        "clip_frames": window.clip_frames, "sampling": window.sampling,
        "frame_stride": window.frame_stride, "sample_fps": window.sample_fps,
        "resized_frames": window.frames if window.sampling == "resize" else 0,
    })
