"""Sizes and options of heads with outputs at every point of a pyramid."""

import dataclasses
import itertools
import math
from numbers import Real
from typing import Any

from losa_jax import errors
from losa_jax.detection.targets import Points, level_points

# A distance in tokens beyond any window: the last level has no upper limit.
OPEN_RANGE = 10000.0


@dataclasses.dataclass(frozen=True)
class PyramidSpec:
    """Sizes and options that pyramid heads share.

    Attributes:
      in_width, width: channels of the input, and of the pyramid.
      num_classes: number k of action classes.
      num_levels: levels of the pyramid, whose points are 1, 2, 4 ... tokens
        apart. A window's number of tokens is a multiple of the last stride.
      input_widths, input_projections: channels of the parts of the input, as
        of joined features, and of their projections, which are joined; () for
        no projections.
      num_embedding_convs: from `in_width`, or the joined projections, to
        `width`; 0 needs equal widths.
      embedding_kernel: their length in tokens; odd.
      embedding_norm, neck_norm, head_norm: whether a layer norm follows each
        convolution of the embedding, each level of the neck and each hidden
        convolution of the outputs. Convolutions without one have biases.
      num_stem_blocks: blocks at the finest level, before the first halving.
      absolute_positions: whether sinusoids are added after the embedding.
      neck: "identity" or "fpn" (coarse levels are added to finer ones).
      neck_width: channels of "fpn"; 0 is `width`.
      head_layers: convolutions of each output, the last one included.
      head_kernel: their length in tokens of their level; odd.
      head_width: channels between them; 0 is `width`.
      opentad: follow OpenTAD's versions of the heads: norms after convolutions
        have epsilon 1e-6, convolutions are masked after the activation despite
        `reference_masking`, TriDet's boundary heads start without the prior.
      prior_probability: score of every class at the start of training.
      max_tokens: of absolute positions, which are stretched for longer inputs.
      drop_path: share of windows that skip a block's branch in training. Above
        0, branches have learned scales from 1e-4 on (TriDet: not in the stem).
      input_dropout: share of the input's channels that are zeroed in training.
      input_noise: standard deviation of noise on the input in training.
      reference_masking: whether padding stays unmasked after norms as in the
        public code, for checkpoints that were trained so.
      remat: whether blocks and outputs are rematerialized.
      regression_edges: the longest distance in tokens from a point to an end
        of its action, for each level but the last, which has no limit;
        ascending; () is 4, 8, 16 ...
      regression_overlap: by how much the shortest distances of a level are
        below the longest ones of the level before: 1 lets levels adjoin, 2
        halves them, as (0, 4), (2, 8), (4, 16) ...
      center_radius: points this close to the middle of an action are trained
        on it, in strides of their level; None takes all points inside.
      every_class: points learn the classes of all actions that they may learn,
        not only of the shortest.
      label_smoothing: e, below 1: classes y become y (1 - e) + e / (k + 1).
      regression_weight: of the regression loss; below 0 it is scaled to the
        size of the class loss.
      normalizer_momentum: of the running number of positive points.

    Raises:
      InputError: names the field and what it allows.
    """

    in_width: int
    num_classes: int
    width: int = 512
    input_widths: tuple[int, ...] = ()
    input_projections: tuple[int, ...] = ()
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
    regression_overlap: float = 1.0
    center_radius: float | None = 1.5
    every_class: bool = False
    label_smoothing: float = 0.0
    regression_weight: float = 1.0
    normalizer_momentum: float = 0.9

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Puts these fields first in a subclass's docstring, too."""
        super().__init_subclass__(**keywords)
        title = "Attributes:\n"
        shared = (PyramidSpec.__doc__ or "").partition(title)[2]
        fields = shared.partition("\n\n")[0]
        cls.__doc__ = (cls.__doc__ or "").replace(
            title, f"{title}{fields}\n", 1)

    def __post_init__(self) -> None:
        errors.check_flags(self)
        errors.check_choice(self, "neck", ("identity", "fpn"))
        errors.check_whole(self, 1, "in_width", "num_classes", "width",
                           "num_levels", "head_layers", "max_tokens")
        errors.check_whole(self, 0, "num_embedding_convs", "num_stem_blocks",
                           "neck_width", "head_width")
        errors.check_odd(self, "embedding_kernel", "head_kernel")
        errors.check_between(self, 0, 1, "drop_path", "input_dropout",
                             "label_smoothing", without=(1,))
        errors.check_between(self, 0, 1, "prior_probability", without=(0, 1))
        errors.check_between(self, 0, 1, "normalizer_momentum")
        errors.check_between(self, 0, math.inf, "input_noise")
        errors.check_between(self, 1, math.inf, "regression_overlap")
        errors.check_between(self, -math.inf, math.inf, "regression_weight")
        if self.center_radius is not None:
            errors.check_between(self, 0, math.inf, "center_radius",
                                 without=(0,))
        title = type(self).__name__
        parts = (self.input_widths, self.input_projections)
        if any(parts) and (
                len(parts[0]) != len(parts[1])
                or sum(parts[0]) != self.in_width
                or any(type(one) is not int or one < 1
                       for part in parts for one in part)):
            raise errors.InputError(
                f"{title}.input_widths={parts[0]} and {title}."
                f"input_projections={parts[1]}: give as many whole numbers "
                f"above 0, the first with the sum {title}.in_width="
                f"{self.in_width}, or () twice")
        if not self.num_embedding_convs and self.embedded_width != self.width:
            raise errors.InputError(
                f"{title}.num_embedding_convs=0 leaves {title}.in_width="
                f"{self.embedded_width} as it is: set {title}.width="
                f"{self.width} to the same number, or use at least 1 "
                "convolution")
        edges = self.regression_edges
        if edges != () and not (
                isinstance(edges, tuple) and len(edges) == self.num_levels - 1
                and all(isinstance(edge, Real) for edge in edges)
                and all(low < high for low, high
                        in itertools.pairwise((0, *edges, math.inf)))):
            raise errors.InputError(
                f"{title}.regression_edges={edges!r}: give a tuple of "
                f"{self.num_levels - 1} ascending numbers above 0, one fewer "
                "than there are levels, or ()")

    @property
    def embedded_width(self) -> int:
        """Channels that the first convolution sees."""
        return sum(self.input_projections) or self.in_width

    @property
    def strides(self) -> tuple[int, ...]:
        """Distance in tokens between two neighboring points of each level."""
        return tuple(2 ** level for level in range(self.num_levels))

    @property
    def token_multiple(self) -> int:
        """A number that divides the number of tokens of every window."""
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
        starts = [float(edge) / self.regression_overlap for edge in edges]
        return tuple(zip((0.0, *starts), (*map(float, edges), OPEN_RANGE),
                         strict=True))

    def check_per_level(self, name: str, other: int | None = None) -> None:
        """Checks a field with 1 odd number (or `other`), or 1 per level."""
        values = getattr(self, name)
        title = f"{type(self).__name__}.{name}={values!r}"
        if not isinstance(values, tuple):
            example = values if errors.is_odd(values) else 1
            raise errors.InputError(f"{title}: give a tuple, as ({example},)")
        if len(values) not in (1, self.num_levels):
            raise errors.InputError(f"{title}: give one number, or one for "
                                    f"each of the {self.num_levels} levels")
        if not all(errors.is_odd(value) or value == other for value in values):
            raise errors.InputError(
                f"{title}: must be odd, 1 or more"
                f"{'' if other is None else f', or {other} for all tokens'}")

    def of_level(self, values: tuple[int, ...], level: int) -> int:
        """Returns a level's value of a field that `check_per_level` checks."""
        return values[level] if len(values) > 1 else values[0]

    def points(self, num_points: int) -> Points:
        """Returns the points of a window that has `num_points` of them."""
        last = self.strides[-1]
        # t tokens have t (2 - 1 / last) points on all levels together.
        return level_points(num_points * last // (2 * last - 1), self.strides,
                            self.regression_ranges)
