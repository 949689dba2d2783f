"""The contract of a detection head: outputs, targets, loss and decoding.

A head is one module with a frozen spec that checks itself and four methods
(`Head`). The train step and prediction call these and know nothing else of
it. `PyramidSpec` and the functions below serve heads that classify every
point of a temporal pyramid, as ActionFormer and TriDet do.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losa_jax.detection.decode import DecodeSettings, decode
from losa_jax.detection.losses import DetectionLosses
from losa_jax.detection.segments import Segments
from losa_jax.detection.targets import (
    Points,
    Targets,
    assign_targets,
    level_points,
)
from losa_jax.errors import InputError, check_at_least, check_choice

# Beyond any window: the last level's regression range is open.
OPEN_RANGE = 10000.0


class HeadLoss(NamedTuple):
    """The loss of a batch and what goes with it.

    Attributes:
      total: the scalar to minimize.
      normalizer: the running one after this batch; the next batch gets it.
      metrics: scalars to log, by name.
    """

    total: Float[Array, ""]
    normalizer: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]


class Head(Protocol):
    """What the train step and prediction call.

    The constructor is `(spec, *, rngs)`. Where windows must have a multiple of
    some number of tokens, the spec has it as `token_multiple`. `b` windows
    have `t` tokens on the head's finest grid and up to `n` actions.
    """

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None) -> Any:
        """Outputs, any pytree that the other methods take.

        Args:
          x: features, zero where not valid.
          valid: real tokens; outputs there must not depend on the others.
          key: for dropout and the like; None means evaluation.
        """
        ...

    def targets(self, outputs: Any, segments: Float[Array, "b n 2"],
                labels: Int[Array, "b n"], action_valid: Bool[Array, "b n"]
                ) -> Any:
        """What the outputs should be; segments in tokens."""
        ...

    def loss(self, outputs: Any, targets: Any,
             normalizer: Float[Array, ""]) -> HeadLoss:
        """The training loss over the global batch."""
        ...

    def decode(self, outputs: Any, settings: DecodeSettings) -> Segments:
        """The best segments of each window, [b, m, ...] in tokens."""
        ...


class HeadOutput(NamedTuple):
    """Outputs of a pyramid head at the p points of all levels.

    Attributes:
      class_logits: float32 [b, p, k].
      offsets: float32 [b, p, 2], distances to start and end in strides;
        [b, p, k, 2] where every class has its own (TriDet).
      valid: bool [b, p].
    """

    class_logits: Float[Array, "b p k"]
    offsets: Float[Array, "b p 2"] | Float[Array, "b p k 2"]
    valid: Bool[Array, "b p"]


@dataclasses.dataclass(frozen=True)
class PyramidSpec:
    """Sizes and options that pyramid heads share.

    Most fields are keys of the config sections `head` and `loss`.

    Attributes:
      in_width: channels of the input.
      neck: "identity" or "fpn"; neck_width and head_width 0 mean `width`.
      embedding_norm, neck_norm, head_norm: without, convolutions have
        biases.
      opentad: as OpenTAD's copies of the heads where they differ: epsilon
        1e-6 behind convolutions, which are masked after the activation
        whatever `reference_masking` says, and boundary heads (TriDet) that
        start without the prior.
      input_dropout: of whole channels of the input (OpenTAD).
      input_noise: deviation of noise on the input while training (TriDet).
      max_tokens: longer inputs stretch the table of absolute positions.
      reference_masking: leave padding unmasked after norms, see `layers`.
      remat: rematerialize blocks and outputs in the backward pass: one more
        forward pass, the memory of one block.
      regression_edges: upper ends of the levels' regression ranges in
        tokens, the last one is open; () doubles from 4.
      center_radius: in strides, see `assign_targets`.
      label_smoothing, regression_weight, normalizer_momentum: see
        `detection_loss`.
    """

    in_width: int
    num_classes: int
    width: int = 512
    num_levels: int = 6
    num_embedding_convs: int = 2
    embedding_kernel: int = 3
    embedding_norm: bool = True
    num_stem_blocks: int = 2
    absolute_positions: bool = False
    neck: str = "identity"
    neck_width: int = 0
    neck_norm: bool = True
    head_layers: int = 3
    head_kernel: int = 3
    head_width: int = 0
    head_norm: bool = True
    opentad: bool = False
    prior_probability: float = 0.01
    max_tokens: int = 2304
    drop_path: float = 0.1
    input_dropout: float = 0.0
    input_noise: float = 0.0
    reference_masking: bool = False
    remat: bool = False
    regression_edges: tuple[float, ...] = ()
    center_radius: float = 1.5
    label_smoothing: float = 0.0
    regression_weight: float = 1.0
    normalizer_momentum: float = 0.9

    def __post_init__(self) -> None:
        check_choice(self, "neck", ("identity", "fpn"))
        check_at_least(self, 1, "in_width", "num_classes", "width",
                       "num_levels", "head_layers")
        edges = tuple(self.regression_edges)
        if edges and (len(edges) != self.num_levels - 1
                      or list(edges) != sorted(edges)):
            raise InputError(
                f"{type(self).__name__}.regression_edges={edges}: needs "
                f"{self.num_levels - 1} ascending numbers, one fewer than "
                "levels")

    @property
    def strides(self) -> tuple[int, ...]:
        """Tokens of the finest level that one of each level's spans."""
        return tuple(2 ** level for level in range(self.num_levels))

    @property
    def token_multiple(self) -> int:
        """Windows have a multiple of so many tokens."""
        return self.strides[-1]

    @property
    def level_widths(self) -> tuple[int, int]:
        """Channels between neck and outputs, and inside the outputs."""
        neck = self.neck_width if self.neck == "fpn" else self.width
        return neck or self.width, self.head_width or self.width

    @property
    def regression_ranges(self) -> tuple[tuple[float, float], ...]:
        """(from, to) distances in tokens that each level predicts."""
        edges = tuple(self.regression_edges) or tuple(
            4.0 * 2 ** i for i in range(self.num_levels - 1))
        bounds = (0.0, *map(float, edges), OPEN_RANGE)
        return tuple(zip(bounds[:-1], bounds[1:], strict=True))

    def points(self, num_points: int) -> Points:
        """All points of a window with so many of them.

        t tokens have t (2 - 1 / last stride) points on all levels.
        """
        last = self.strides[-1]
        return level_points(num_points * last // (2 * last - 1), self.strides,
                            self.regression_ranges)


def check_per_level(spec: PyramidSpec, name: str) -> None:
    """Raises InputError unless a field has one value, or one a level."""
    values = getattr(spec, name)
    if len(values) not in (1, spec.num_levels):
        raise InputError(
            f"{type(spec).__name__}.{name}={values}: give one number, or one "
            f"for each of the {spec.num_levels} levels")


# Methods of pyramid heads, which name them in their class: `self.spec` is a
# `PyramidSpec`.

def pyramid_targets(self: Any, outputs: HeadOutput,
                    segments: Float[Array, "b n 2"],
                    labels: Int[Array, "b n"],
                    action_valid: Bool[Array, "b n"]) -> Targets:
    """ActionFormer's assignment of actions (in tokens) to points."""
    spec: PyramidSpec = self.spec
    points = spec.points(outputs.class_logits.shape[1])
    return jax.vmap(lambda segments, labels, valid: assign_targets(
        points, segments, labels, valid, num_classes=spec.num_classes,
        center_radius=spec.center_radius))(segments, labels, action_valid)


def pyramid_decode(self: Any, outputs: HeadOutput, settings: DecodeSettings
                   ) -> Segments:
    """The best segments of each window, [b, m, ...] in tokens."""
    spec: PyramidSpec = self.spec
    points = spec.points(outputs.class_logits.shape[1])
    return jax.vmap(lambda logits, offsets, valid: decode(
        logits, offsets, points, valid, settings))(*outputs)


def joined_outputs(class_logits: Sequence[Array], offsets: Sequence[Array],
                   valid: Sequence[Array]) -> HeadOutput:
    """Outputs of all levels, level 0 first; float32 at least."""
    def join(parts: Sequence[Array]) -> Array:
        whole = jnp.concatenate(parts, 1)
        return whole.astype(jnp.promote_types(whole.dtype, jnp.float32))

    return HeadOutput(join(class_logits), join(offsets),
                      jnp.concatenate(valid, 1))


def head_loss(total: Float[Array, ""], parts: DetectionLosses) -> HeadLoss:
    """What the losses of `losa_jax.detection.losses` return, by name."""
    return HeadLoss(total, parts.normalizer, {
        "classification_loss": parts.classification,
        "regression_loss": parts.regression,
        "positive_points": parts.num_positive})
