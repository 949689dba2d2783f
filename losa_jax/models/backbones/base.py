"""The contract of a frozen video backbone.

A family of backbones has an `nnx.Module` that follows `Backbone` and a frozen
dataclass derived from `BackboneSpec`. Parameter paths such as
"blocks/attn/qkv/kernel" are part of converted weights and of checkpoints: they
may not change once weights were converted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from losa_jax.errors import InputError, check_grid, check_whole

# Red, green, blue on the scale 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class ClipFeatures(NamedTuple):
    """Features of n clips; `BackboneSpec.last_pooling` describes `last`."""

    last: Float[Array, "n u c"]
    taps: Float[Array, "k n u h w c"]


class BackboneSpec:
    """The sizes and variants of a checkpoint of any family.

    Fields of the derived dataclass are what checkpoints differ in: numbers,
    strings, booleans and tuples of them, which `backbone.json` stores. What
    all checkpoints of a family share is a class variable or a property.

    `VideoMaeSpec` describes the other fields.

    Attributes:
      image_size: height and width in pixels that the checkpoint was trained
        with; `features` takes other sizes too.
      has_fixed_frames: whether clips of another length are refused. If not, no
        parameter depends on `clip_frames`, set by config.window.clip_samples.
      pixel_mean, pixel_std: of red, green and blue on the scale 0..255.
      last_pooling: description of `ClipFeatures.last` in extracted features.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    width: int
    depth: int
    patch: int
    tubelet: int
    clip_frames: int
    image_size: tuple[int, int]
    norm_epsilon: float
    has_fixed_frames: ClassVar[bool]
    pixel_mean: ClassVar[tuple[float, float, float]]
    pixel_std: ClassVar[tuple[float, float, float]]
    last_pooling: ClassVar[str]

    def __post_init__(self) -> None:
        check_whole(self, 1, "width", "depth", "patch", "tubelet",
                    "clip_frames")
        check_grid(self, "image_size")
        title = type(self).__name__
        if self.clip_frames % self.tubelet:
            raise InputError(
                f"{title}.clip_frames={self.clip_frames} cannot be cut into "
                f"tubelets of {self.tubelet}: give a multiple")
        if min(self.image_size) < self.patch:
            raise InputError(
                f"{title}.image_size={self.image_size} is below the patch of "
                f"{self.patch} pixels: give that or more")

    @property
    def clip_pooling(self) -> str:
        """Description of `mean_features`; "" if the module has none."""
        return ""

    @property
    def clip_tokens(self) -> int:
        """Temporal tokens of a clip."""
        return self.clip_frames // self.tubelet

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at `image_size`."""
        height, width = self.image_size
        return height // self.patch, width // self.patch


@runtime_checkable
class Backbone(Protocol):
    """A frozen video backbone that sees each clip alone.

    A module may also have `mean_features(clips, dtype) -> float32 [n, c]`, one
    vector a clip, for feature files.
    """

    @property
    def spec(self) -> BackboneSpec: ...

    def features(self, clips: ArrayLike, *, taps: tuple[int, ...] = (),
                 tap_grid: tuple[int, int] | None = None,
                 tap_norm: bool = True, dtype: DTypeLike = jnp.float32,
                 place: NamedSharding | None = None) -> ClipFeatures:
        """Returns the features of clips; see `VideoMae.features`."""


class BackboneFamily(NamedTuple):
    """A family of backbones, for the table `BACKBONES`.

    Attributes:
      sizes: arguments of `spec` by public name, for config.backbone.name;
        the names are unique among families.
    """

    spec: Callable[..., BackboneSpec]
    module: Callable[..., Backbone]
    sizes: Mapping[str, Mapping[str, Any]] = {}


def normalized_pixels(clips: ArrayLike, spec: BackboneSpec, *,
                      tubelet: int = 0) -> Float[Array, "n f H W 3"]:
    """Returns clips of 0..255 minus the mean, divided by the deviation.

    The number of frames must be a multiple of `tubelet`, by default that of
    the spec.

    Raises:
      InputError: the clips cannot be cut into tokens.
    """
    clips = jnp.asarray(clips)
    if len(clips.shape) != 5 or clips.shape[-1] != 3 or not len(clips):
        raise InputError(f"clips of shape {clips.shape}: must be "
                         "[n, frames, height, width, 3], n at least 1")
    frames, height, width = clips.shape[1:4]
    if spec.has_fixed_frames and frames != spec.clip_frames:
        raise InputError(f"clips of {frames} frames; the weights are for "
                         f"{spec.clip_frames}")
    tubelet = tubelet or spec.tubelet
    if frames < 1 or frames % tubelet:
        raise InputError(f"clips of {frames} frames cannot be cut into "
                         f"tubelets of {tubelet}")
    if min(height, width) < spec.patch:
        raise InputError(f"frames of {height} x {width} pixels are below the "
                         f"patch of {spec.patch}")
    mean = jnp.asarray(spec.pixel_mean, jnp.float32)
    std = jnp.asarray(spec.pixel_std, jnp.float32)
    return (clips.astype(jnp.float32) - mean) / std


def check_taps(taps: Sequence[int], spec: BackboneSpec) -> None:
    """Raises InputError unless taps are blocks in ascending order."""
    if list(taps) != sorted(set(taps)) or any(
            not 0 <= tap < spec.depth for tap in taps):
        raise InputError(f"taps={tuple(taps)}: must ascend and be indices 0 "
                         f".. {spec.depth - 1} of the backbone's blocks, a "
                         f"depth of {spec.depth}")
