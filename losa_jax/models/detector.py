"""The whole model: frozen backbone, trained adapters and head.

Two modules, two parameter trees. `encode_windows` runs the frozen backbone
clip by clip; `Detector` holds everything that is trained.
"""

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from losa_jax.models.adapters.ladder import Ladder, LadderSpec
from losa_jax.models.adapters.losa import Losa, LosaSpec
from losa_jax.models.backbones.encode_windows import WindowFeatures
from losa_jax.models.heads.actionformer import ActionFormer
from losa_jax.models.heads.layers import HeadSpec
from losa_jax.models.heads.tridet import TriDet
from losa_jax.models.ops.resample import resize_time

HEADS = {"actionformer": ActionFormer, "tridet": TriDet}


class FeatureStatistics(NamedTuple):
    """Mean and deviation of each channel of `last` over the training set.

    Standardising the head's input is worth more than any adapter
    (shared/reference/losa_prototype.md), so every kind of adapter gets it.
    """

    mean: Array
    deviation: Array


class DetectorOutput(NamedTuple):
    """Predictions at the p points of all levels.

    Attributes:
      class_logits: float32 [b, p, k].
      offsets: float32 [b, p, 2], distances to start and end in strides;
        [b, p, k, 2] where every class has its own (TriDet).
      valid: bool [b, p].
    """

    class_logits: Array
    offsets: Array
    valid: Array


class Detector(nnx.Module):
    """Everything that is trained: adapters, fusion and head."""

    def __init__(self, adapter: LosaSpec | LadderSpec | None, head: HeadSpec, *,
                 samples_per_token: float, tubelet: int,
                 resample: str = "linear", rngs: nnx.Rngs):
        """
        Args:
          adapter: None trains the head only.
          head: sizes of the TAL head.
          samples_per_token: samples that a token of the head's level 0
            stands for.
          tubelet: samples that one backbone token stands for.
          resample: from its tokens to level 0, see `resize_time`.
        """
        self.adapter: Ladder | Losa | None
        if adapter is None:
            self.adapter = None
        elif isinstance(adapter, LadderSpec):
            self.adapter = Ladder(adapter, rngs=rngs)
        else:
            self.adapter = Losa(adapter, rngs=rngs)
        self.head = HEADS[head.kind](head, rngs=rngs)
        self.samples_per_token = samples_per_token
        self.tubelet = tubelet
        self.resample = resample

    def __call__(self, features: WindowFeatures,
                 statistics: FeatureStatistics,
                 valid_samples: Int[Array, "b"],
                 key: Array | None = None) -> DetectorOutput:
        """Predictions for windows.

        Args:
          features: from `encode_windows`.
          statistics: of the training set.
          valid_samples: real samples at the start of each window.
          key: for drop path and dropout; None means evaluation.
        """
        x, step_valid = self.fused(features, statistics, valid_samples)
        tokens = round(x.shape[1] * self.tubelet / self.samples_per_token)
        valid = valid_steps(valid_samples, tokens, self.samples_per_token)
        x = resize_valid_time(x, step_valid, tokens, self.resample)
        logits, offsets, point_valid = self.head(x, valid, key)
        return DetectorOutput(logits.astype(jnp.float32),
                              offsets.astype(jnp.float32), point_valid)

    def fused(self, features: WindowFeatures,
              statistics: FeatureStatistics, valid_samples: Int[Array, "b"]
              ) -> tuple[Float[Array, "b t c"], Bool[Array, "b n u"]]:
        """What the head reads, at the backbone's t = n u temporal tokens:
        standardised, with what the adapters add; and which are real.

        Arguments as `__call__`.
        """
        _, n, u, _ = features.last.shape
        last = (features.last - statistics.mean) / statistics.deviation
        step_valid = valid_steps(valid_samples, n * u, self.tubelet)
        step_valid = rearrange(step_valid, "b (n u) -> b n u", u=u)
        # Zero, not standardised padding: it must look the same for every
        # video and every pad length.
        last = last * step_valid[..., None]
        if self.adapter is None:
            return rearrange(last, "b n u c -> b (n u) c"), step_valid
        return self.adapter(last, features.taps, step_valid), step_valid


def valid_steps(valid_samples: Int[Array, "b"], length: int,
                samples_per_step: float) -> Bool[Array, "b length"]:
    """Steps that stand for at least some real samples."""
    first_sample = jnp.arange(length) * samples_per_step
    return first_sample[None, :] < valid_samples[:, None]


def resize_valid_time(x: Float[Array, "b t c"],
                      step_valid: Bool[Array, "b n u"],
                      length: int, method: str = "linear"
                      ) -> Float[Array, "b length c"]:
    """`resize_time` in which padding does not count.

    Interpolation at the last real token would mix in padding; weights are
    renormalised over the real neighbours instead.
    """
    weight = rearrange(step_valid, "b n u -> b (n u) 1").astype(x.dtype)
    if x.shape[1] == length:
        return x * weight
    mixed = resize_time(x * weight, length, method)
    share = resize_time(weight, length, method)
    return mixed / jnp.maximum(share, 1e-6)
