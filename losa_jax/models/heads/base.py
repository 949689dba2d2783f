"""The contract of a detection head: outputs, targets, loss and decoding.

A head is one module with a frozen spec that checks itself and four methods
(`Head`). The train step and prediction call these and know nothing else of
it. `PyramidSpec` and the functions below serve heads that classify every
point of a temporal pyramid, as ActionFormer and TriDet do.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losa_jax.detection.decode import (
    DEFAULT_DECODING,
    DecodeSettings,
    decode,
)
from losa_jax.detection.losses import DetectionLosses
from losa_jax.detection.segments import Segments
from losa_jax.detection.targets import (
    Points,
    Targets,
    assign_targets,
    level_points,
)
from losa_jax.errors import (
    InputError,
    check_between,
    check_choice,
    check_odd,
    check_whole,
    is_odd,
)

# Beyond any window: the last level's regression range is open.
OPEN_RANGE = 10000.0
_FIELDS_FROM = "Attributes:\n"


class HeadLoss(NamedTuple):
    """The loss of a batch and what goes with it; float32 scalars.

    Attributes:
      total: what to minimize.
      normalizer: the running number of positive points after this batch; the
        next batch gets it.
      metrics: to log, by name. Pyramid heads: "classification_loss" and
        "regression_loss" (over the normalizer, before its weight), and
        "positive_points" of the batch.
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

    The finest level comes first: t points one token apart, then t / 2 two
    apart and so on, p = t (2 - 1 / 2^(num_levels - 1)) in all.

    Attributes:
      class_logits: float32 [b, p, k], before the sigmoid.
      offsets: float32 [b, p, 2], distances to start and end, 0 or more, in
        strides of the point's level; [b, p, k, 2] where every class has its
        own (TriDet with `trident`).
      valid: bool [b, p], False on padding.
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
      num_classes: classes k of actions; each has a logit at every point.
      width: channels of the pyramid.
      num_levels: levels of the pyramid, whose points are 1, 2, 4 ... tokens
        apart: strides of 1 to 2^(num_levels - 1). Inputs have a multiple of
        the last stride in tokens.
      num_embedding_convs: convolutions that bring the input to `width`; 0
        takes it as it is, with `in_width` equal to `width`.
      embedding_kernel: their length in tokens; odd.
      embedding_norm, neck_norm, head_norm: a layer norm behind each
        convolution of the embedding, at each level of the neck, and behind
        each hidden convolution of the outputs. Convolutions without have
        biases.
      num_stem_blocks: blocks at the finest level, before the first halving;
        0 or more.
      absolute_positions: sinusoids are added behind the embedding.
      neck: between pyramid and outputs, "identity" or "fpn" (coarse levels
        are added to finer ones).
      neck_width: channels of "fpn"; 0 is `width`.
      head_layers: convolutions of each output, the one that predicts
        included; 1 or more.
      head_kernel: their length in tokens of their level; odd.
      head_width: channels between them; 0 is `width`.
      opentad: as OpenTAD's copies of the heads where they differ: epsilon
        1e-6 behind convolutions, which are masked after the activation
        whatever `reference_masking` says, and boundary heads (TriDet) that
        start without the prior.
      prior_probability: score of every class at the start of training, above
        0 and below 1.
      max_tokens: length of the table of absolute positions, which longer
        inputs stretch.
      drop_path: share of windows for which a block's branch is left out
        while training, 0 or more and below 1. Above 0, each branch has a
        learned scale that starts at 1e-4. (TriDet: not in stem blocks.)
      input_dropout: share of whole channels of the input that are zeroed
        while training (OpenTAD), below 1.
      input_noise: standard deviation of noise on the input while training
        (TriDet).
      reference_masking: leave padding unmasked after norms as the public
        codes do, for checkpoints that were trained so.
      remat: compute blocks and outputs again in the backward pass: one more
        forward pass, the memory of one block.
      regression_edges: the longest distance from a point to an end of its
        action, in tokens, for each level but the last, which has none;
        num_levels - 1 ascending numbers; () is 4, 8, 16 ...
      center_radius: points this close to the middle of an action learn it,
        in strides of their level; None takes all inside it.
      label_smoothing: e, below 1: classes y become y (1 - e) + e / (k + 1).
      regression_weight: of the regression loss; below 0 it is scaled to the
        size of the class loss.
      normalizer_momentum: 0..1, share that the running number of positive
        points keeps of itself in each batch.

    Raises:
      InputError: names the field and what it allows.
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
    center_radius: float | None = 1.5
    label_smoothing: float = 0.0
    regression_weight: float = 1.0
    normalizer_momentum: float = 0.9

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Fields of this class stand first in a subclass's help, too."""
        super().__init_subclass__(**keywords)
        start, shared, rest = (PyramidSpec.__doc__ or "").partition(
            _FIELDS_FROM)
        fields = rest.partition("\n\n")[0].rstrip()
        if cls.__doc__ and shared:
            cls.__doc__ = cls.__doc__.replace(
                _FIELDS_FROM, f"{_FIELDS_FROM}{fields}\n", 1)

    def __post_init__(self) -> None:
        check_choice(self, "neck", ("identity", "fpn"))
        for name in ("embedding_norm", "absolute_positions", "neck_norm",
                     "head_norm", "opentad", "reference_masking", "remat"):
            check_choice(self, name, (True, False))
        check_whole(self, 1, "in_width", "num_classes", "width",
                    "num_levels", "head_layers", "max_tokens")
        check_whole(self, 0, "num_embedding_convs", "num_stem_blocks",
                    "neck_width", "head_width")
        check_odd(self, "embedding_kernel", "head_kernel")
        check_between(self, 0, 1, "drop_path", "input_dropout",
                      "label_smoothing", without=(1,))
        check_between(self, 0, 1, "prior_probability", without=(0, 1))
        check_between(self, 0, 1, "normalizer_momentum")
        check_between(self, 0, math.inf, "input_noise")
        check_between(self, -math.inf, math.inf, "regression_weight")
        if self.center_radius is not None:
            check_between(self, 0, math.inf, "center_radius", without=(0,))
        title = type(self).__name__
        if not self.num_embedding_convs and self.in_width != self.width:
            raise InputError(
                f"{title}.num_embedding_convs=0 leaves {title}.in_width="
                f"{self.in_width} as it is: give {title}.width={self.width} "
                "the same number, or 1 convolution or more")
        edges = self.regression_edges
        if not isinstance(edges, tuple) or edges and (
                len(edges) != self.num_levels - 1 or not _ascend(edges)):
            raise InputError(
                f"{title}.regression_edges={edges!r}: needs a tuple of "
                f"{self.num_levels - 1} ascending numbers above 0, one fewer "
                "than levels, or ()")

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


def check_per_level(spec: PyramidSpec, name: str, *, other: int | None = None
                    ) -> None:
    """Raises InputError unless a field has odd numbers: one, or one a level.

    Args:
      spec: whose field it is.
      name: of the field, a tuple.
      other: a number that is allowed beside the odd ones.
    """
    values = getattr(spec, name)
    title = f"{type(spec).__name__}.{name}={values!r}"
    if not isinstance(values, tuple):
        example = values if is_odd(values) else 1
        raise InputError(f"{title}: give a tuple, as ({example},)")
    if len(values) not in (1, spec.num_levels):
        raise InputError(f"{title}: give one number, or one for each of the "
                         f"{spec.num_levels} levels")
    if not all(is_odd(value) or value == other for value in values):
        raise InputError(
            f"{title}: must be odd, 1 or more"
            f"{'' if other is None else f', or {other} for everything'}")


def _ascend(edges: tuple[float, ...]) -> bool:
    """Whether these are finite numbers above 0, each above the one before."""
    return all(isinstance(edge, Real) for edge in edges) and all(
        low < high for low, high
        in itertools.pairwise((0, *edges, math.inf)))


# Methods of pyramid heads, which name them in their class: `self.spec` is a
# `PyramidSpec`.

def pyramid_targets(self: Any, outputs: HeadOutput,
                    segments: Float[Array, "b n 2"],
                    labels: Int[Array, "b n"],
                    action_valid: Bool[Array, "b n"]) -> Targets:
    """What the outputs should be: ActionFormer's assignment of actions.

    Args:
      outputs: of the head; only their number of points p is read.
      segments: float [b, n, 2], start and end of up to n actions a window,
        in tokens of the finest level; n is 1 or more.
      labels: int [b, n], class 0 .. k - 1; anything where not valid.
      action_valid: bool [b, n], False on rows that hold no action.

    Returns:
      (classes, offsets, positive): float32 [b, p, k] of 0 and 1; float32
      [b, p, 2], distances to start and end in strides of the point's level;
      bool [b, p], whether the point has an action.
    """
    spec: PyramidSpec = self.spec
    points = spec.points(outputs.class_logits.shape[1])
    return jax.vmap(lambda segments, labels, valid: assign_targets(
        points, segments, labels, valid, num_classes=spec.num_classes,
        center_radius=spec.center_radius))(segments, labels, action_valid)


def pyramid_decode(self: Any, outputs: HeadOutput,
                   settings: DecodeSettings = DEFAULT_DECODING) -> Segments:
    """The best segments of each window, before NMS.

    Args:
      outputs: of the head.
      settings: which are kept; by default up to 2000 of a window whose score
        is above 0.001 and that are longer than 0.05 tokens.

    Returns:
      (segments, scores, labels, valid, class_scores): float32 [b, m, 2],
      start and end in tokens of the finest level, which may lie outside the
      window; float32 [b, m], 0 where not valid; int32 [b, m], class
      0 .. k - 1; bool [b, m], False on rows that hold nothing; and None, or
      [b, m, k] with `keep_all_scores`. m is the smaller of `top_k` and p k,
      on each level with `top_k_per_level`.
    """
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
