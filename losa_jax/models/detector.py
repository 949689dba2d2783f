"""Adapter and head in one module: backbone features to head outputs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from losa_jax.models.adapters.base import Adapter, StackedAdapter
from losa_jax.models.backbones.encode_windows import WindowFeatures
from losa_jax.models.heads.base import Head
from losa_jax.models.ops.resample import resize_time


class FeatureStatistics(NamedTuple):
    """Mean and deviation of each channel of `last` over the training set."""

    mean: Float[Array, "c"]
    deviation: Float[Array, "c"]


class Detector(nnx.Module):
    """Adapter, resampling to the head's tokens, and head.

    Args:
      adapter: None trains only the head.
      samples_per_token: samples per token of the head's level 0.
      tubelet: samples per token of the backbone.
    """

    def __init__(self, adapter: Adapter | None, head: Head, *,
                 samples_per_token: float, tubelet: int):
        self.adapter, self.head = adapter, head
        self.samples_per_token = samples_per_token
        self.tubelet = tubelet

    def __call__(self, features: WindowFeatures, statistics: FeatureStatistics,
                 valid_samples: Int[Array, "b"],
                 key: Array | None = None) -> Any:
        """Returns the head's outputs for windows.

        `valid_samples` counts the real samples at the start of each window;
        key None means evaluation.
        """
        return self._head_outputs(
            *self.fused(features, statistics, valid_samples), valid_samples,
            key)

    def after_each_tap(self, features: WindowFeatures,
                       statistics: FeatureStatistics,
                       valid_samples: Int[Array, "b"],
                       key: Array | None = None) -> Any:
        """Returns the head's outputs for the features after each of k taps.

        As `__call__`, with a first axis of k; the last are its outputs.
        """
        assert isinstance(self.adapter, StackedAdapter)
        last, valid = self._standardized(features, statistics, valid_samples)
        sums = self.adapter.sums(last, features.taps, valid)
        return jax.vmap(lambda x: self._head_outputs(
            x, valid, valid_samples, key))(sums)

    def _head_outputs(self, x: Float[Array, "b t c"],
                      step_valid: Bool[Array, "b n u"],
                      valid_samples: Int[Array, "b"], key: Array | None
                      ) -> Any:
        tokens = round(x.shape[1] * self.tubelet / self.samples_per_token)
        valid = valid_steps(valid_samples, tokens, self.samples_per_token)
        x = resize_valid_time(x, step_valid, tokens)
        # Interpolation reaches a token after the last real one.
        return self.head(x * valid[..., None].astype(x.dtype), valid, key)

    def fused(self, features: WindowFeatures,
              statistics: FeatureStatistics, valid_samples: Int[Array, "b"]
              ) -> tuple[Float[Array, "b t c"], Bool[Array, "b n u"]]:
        """Returns the adapter's output, and which of its tokens are real.

        Without an adapter the output is the standardized features.
        """
        last, valid = self._standardized(features, statistics, valid_samples)
        if self.adapter is None:
            return rearrange(last, "b n u c -> b (n u) c"), valid
        return self.adapter(last, features.taps, valid), valid

    def _standardized(self, features: WindowFeatures,
                      statistics: FeatureStatistics,
                      valid_samples: Int[Array, "b"]
                      ) -> tuple[Float[Array, "b n u c"],
                                 Bool[Array, "b n u"]]:
        _, n, u, _ = features.last.shape
        last = (features.last - statistics.mean) / statistics.deviation
        step_valid = valid_steps(valid_samples, n * u, self.tubelet)
        step_valid = rearrange(step_valid, "b (n u) -> b n u", u=u)
        # Zero, not standardized padding, which would depend on its length.
        return last * step_valid[..., None], step_valid


def valid_steps(valid_samples: Int[Array, "b"], length: int,
                samples_per_step: float) -> Bool[Array, "b {length}"]:
    """Returns which steps cover at least part of the real samples."""
    first_sample = jnp.arange(length) * samples_per_step
    return first_sample[None, :] < valid_samples[:, None]


def resize_valid_time(x: Float[Array, "b t c"],
                      step_valid: Bool[Array, "b n u"], length: int
                      ) -> Float[Array, "b {length} c"]:
    """Returns `resize_time` with weights renormalized over real tokens."""
    weight = rearrange(step_valid, "b n u -> b (n u) 1").astype(x.dtype)
    if x.shape[1] == length:
        return x * weight
    mixed = resize_time(x * weight, length)
    share = resize_time(weight, length)
    return mixed / jnp.maximum(share, 1e-6)
