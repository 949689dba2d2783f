"""Bootstrap intervals of a mAP and of the difference of two.

Videos are drawn with replacement, the same ones for all compared runs, so that
hard videos cancel in a difference. The runs of several seeds are drawn too;
three seeds underestimate their true spread, so intervals may be too short.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from losa_jax.detection import metrics

# Draws that are in memory at once.
_CHUNK = 64


def draw_videos(num_videos: int, num_draws: int
                ) -> Int[np.ndarray, "{num_draws} {num_videos}"]:
    """Returns how often each video is in each draw."""
    return np.random.default_rng(0).multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), size=num_draws)


def map_draws(ground_truth: metrics.Truth, predictions: metrics.Predictions, *,
              class_names: Sequence[str], tiou_thresholds: Sequence[float],
              counts: Int[np.ndarray, "draws videos"]
              ) -> Float[np.ndarray, "draws"]:
    """Returns the average mAP of each draw.

    `counts` is of `draw_videos`, in the order of the ground truth.
    """
    matches = metrics.match_predictions(
        ground_truth, predictions, class_names=class_names,
        tiou_thresholds=tiou_thresholds)
    precisions = [np.concatenate([
        _weighted_precision(one, counts[first:first + _CHUNK])
        for first in range(0, len(counts), _CHUNK)]) for one in matches]
    # A class without actions in a draw is not part of its mean.
    return np.nanmean(np.stack(precisions), axis=0)


def _weighted_precision(matches: metrics.ClassMatches, counts: np.ndarray
                        ) -> Float[np.ndarray, "draws"]:
    """Returns a class's average precision over the thresholds."""
    num_actions = counts @ matches.actions_per_video
    total = np.zeros(len(counts))
    for hits in matches.hits:
        # Predictions after the last hit change nothing.
        length = int(np.flatnonzero(hits)[-1]) + 1 if hits.any() else 0
        total += metrics.precision_sums(
            hits[:length], counts[:, matches.video[:length]].astype(np.float32))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = total / len(matches.hits) / num_actions
    return np.where(num_actions > 0, share, np.nan)


def interval(runs: Float[np.ndarray, "seeds draws"],
             others: Float[np.ndarray, "_ draws"] | None = None
             ) -> tuple[float, float]:
    """Returns the bounds of the middle 95 % of a mean over seeds.

    With the `others` of another variant, the bounds are of the lead over it.
    Draws are those of `map_draws`, of the same videos.
    """
    rng = np.random.default_rng(0)

    def over_seeds(values: np.ndarray) -> np.ndarray:
        chosen = rng.integers(len(values), size=values.shape)
        return np.take_along_axis(values, chosen, axis=0).mean(axis=0)

    drawn = over_seeds(runs)
    if others is not None:
        drawn = drawn - over_seeds(others)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
