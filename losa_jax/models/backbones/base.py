"""The contract of a frozen video backbone.

A family of backbones has an `nnx.Module` that follows `Backbone` and a frozen
dataclass that follows `BackboneSpec`. Parameter paths such as
"blocks/attn/qkv/kernel" are part of converted weights and of checkpoints: they
may not change once weights were converted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from losa_jax.errors import InputError, check_grid, check_whole

# Red, green, blue on the scale 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class ClipFeatures(NamedTuple):
    """Features of n clips.

    Attributes:
      last: float32 [n, u, c], one vector for each temporal token, as
        `BackboneSpec.last_pooling` says.
      taps: [k, n, u, h, w, c], outputs of the tapped blocks on the tap grid.
    """

    last: Array
    taps: Array


class BackboneSpec(Protocol):
    """The sizes and variants of a checkpoint of any family.

    A frozen dataclass that checks itself and raises InputError.
    `backbone.json` stores its fields: numbers, strings, booleans and tuples of
    them. What all checkpoints of a family share is a class variable or a
    property instead.

    Attributes:
      width: channels of every token.
      depth: number of blocks; taps count them from 0.
      patch: side of a patch in pixels.
      tubelet: frames of one temporal token.
      clip_frames: frames of a clip.
      has_fixed_frames: whether clips of another length are refused. If not,
        the parameters do not depend on `clip_frames`, and a run sets it to
        config.window.clip_samples.
      image_size: height and width in pixels that the checkpoint was trained
        with; `features` takes other sizes too.
      pixel_mean, pixel_std: of red, green and blue on the scale 0..255, for
        normalization.
      norm_epsilon: of the norms, and of the standardization of taps.
      last_pooling: description of `ClipFeatures.last`, stored with extracted
        features.
      clip_pooling: likewise of `mean_features`; "" if the module has none.
      clip_tokens: temporal tokens of a clip.
      grid: rows and columns of patches at `image_size`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def width(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def patch(self) -> int: ...

    @property
    def tubelet(self) -> int: ...

    @property
    def clip_frames(self) -> int: ...

    @property
    def has_fixed_frames(self) -> bool: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def pixel_mean(self) -> tuple[float, float, float]: ...

    @property
    def pixel_std(self) -> tuple[float, float, float]: ...

    @property
    def norm_epsilon(self) -> float: ...

    @property
    def last_pooling(self) -> str: ...

    @property
    def clip_pooling(self) -> str: ...

    @property
    def clip_tokens(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...


class Backbone(Protocol):
    """A frozen video backbone that sees each clip alone.

    A module may also have `mean_features(clips, dtype) -> float32 [n, c]`, one
    vector a clip, for feature files.
    """

    @property
    def spec(self) -> BackboneSpec: ...

    def features(self, clips: Array, *, taps: tuple[int, ...] = (),
                 tap_grid: tuple[int, int] | None = None,
                 tap_norm: bool = True, dtype: DTypeLike = jnp.float32,
                 place: NamedSharding | None = None) -> ClipFeatures:
        """Returns the features of clips; see `VideoMae.features`."""
        ...


class BackboneFamily(NamedTuple):
    """A family of backbones, for the table `BACKBONES`.

    Attributes:
      spec: dataclass that follows `BackboneSpec`.
      module: `nnx.Module` that follows `Backbone`, made by
        `module(spec, rngs=...)`.
      sizes: arguments of `spec` by public name, for config.backbone.name;
        the names are unique among families.
    """

    spec: Callable[..., BackboneSpec]
    module: Callable[..., Backbone]
    sizes: Mapping[str, Mapping[str, Any]] = {}


def normalized_pixels(clips: Array, spec: BackboneSpec
                      ) -> Float[Array, "n f H W 3"]:
    """Returns clips of 0..255 minus the mean, divided by the deviation."""
    mean = jnp.asarray(spec.pixel_mean, jnp.float32)
    std = jnp.asarray(spec.pixel_std, jnp.float32)
    return (clips.astype(jnp.float32) - mean) / std


def check_clips(clips: Array, spec: BackboneSpec) -> None:
    """Raises InputError if clips cannot be cut into tokens."""
    if len(clips.shape) != 5 or clips.shape[-1] != 3:
        raise InputError(f"clips of shape {clips.shape}: must be "
                         "[n, frames, height, width, 3]")
    frames, height, width = clips.shape[1:4]
    if spec.has_fixed_frames and frames != spec.clip_frames:
        raise InputError(f"clips of {frames} frames; the weights are for "
                         f"{spec.clip_frames}")
    if frames < 1 or frames % spec.tubelet:
        raise InputError(f"clips of {frames} frames cannot be cut into "
                         f"tubelets of {spec.tubelet}")
    if min(height, width) < spec.patch:
        raise InputError(f"frames of {height} x {width} pixels are below the "
                         f"patch of {spec.patch}")


def check_taps(taps: Sequence[int], spec: BackboneSpec) -> None:
    """Raises InputError unless taps are blocks in ascending order."""
    if list(taps) != sorted(set(taps)) or any(
            not 0 <= tap < spec.depth for tap in taps):
        raise InputError(f"taps={tuple(taps)}: must ascend and lie within 0 "
                         f".. {spec.depth - 1}, the backbone's depth of "
                         f"{spec.depth} blocks")


def check_sizes(spec: BackboneSpec, *names: str) -> None:
    """Raises InputError for sizes that no backbone can have.

    Args:
      spec: of any family.
      names: further fields that must be whole numbers of 1 or more.
    """
    check_whole(spec, 1, "width", "depth", "patch", "tubelet",
                "clip_frames", *names)
    check_grid(spec, "image_size")
    title = type(spec).__name__
    if spec.clip_frames % spec.tubelet:
        raise InputError(f"{title}.clip_frames={spec.clip_frames} cannot be "
                         f"cut into tubelets of {spec.tubelet}: give a "
                         "multiple")
    if min(spec.image_size) < spec.patch:
        raise InputError(f"{title}.image_size={spec.image_size} is below the "
                         f"patch of {spec.patch} pixels: give that or more")
