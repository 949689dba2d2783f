"""The contract of a detection head: outputs, targets, loss and decoding."""

from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float, Int

from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.segments import Segments


class HeadLoss(NamedTuple):
    """The loss of a batch, its parts and the next normalizer; float32 scalars.

    Attributes:
      total: the loss to minimize.
      normalizer: the running number of positive points after this batch, an
        argument of the next batch's loss.
      metrics: values to log. Pyramid heads: "classification_loss" and
        "regression_loss" (divided by the normalizer, not yet weighted), and
        "positive_points" of the batch.
    """

    total: Float[Array, ""]
    normalizer: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]


class Head(Protocol):
    """The methods that the train step and prediction call.

    The constructor is `(spec, *, rngs)`; the spec is a frozen dataclass that
    checks itself. If windows need a multiple of some number of tokens, it has
    that number as `token_multiple`. `PyramidHead` describes the arguments.
    """

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None) -> Any:
        """Returns the outputs, any pytree that the other methods take."""

    def targets(self, outputs: Any, segments: Float[Array, "b n 2"],
                labels: Int[Array, "b n"], action_valid: Bool[Array, "b n"],
                loss_weights: Float[Array, "b t k"] | None = None) -> Any:
        """Returns the targets of the outputs."""

    def loss(self, outputs: Any, targets: Any,
             normalizer: Float[Array, ""]) -> HeadLoss:
        """Returns the training loss over the global batch."""

    def decode(self, outputs: Any, settings: DecodeSettings) -> Segments:
        """Returns the best segments of each window."""
