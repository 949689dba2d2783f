"""The evaluation step: windows to candidate segments, all on the device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from losa_jax.detection.postprocess import decode_with_points
from losa_jax.training.build import Model
from losa_jax.training.step import make_predict_step


def make_candidates_step(config: Any, model: Model) -> Callable[..., Any]:
    """(parameters, statistics, frozen, batch) to (candidates, scores).

    Candidates as `decode_with_points` gives them, a leading axis of windows;
    the scores are those of all classes of a candidate, None without
    evaluate.keep_all_scores.
    """
    settings = config.evaluate
    predict = make_predict_step(model.encode, model.detector)

    def num_samples(batch):
        if "frames" in batch:
            return batch["frames"].shape[1]
        _, clips, steps, _ = batch["last"].shape
        return clips * steps * model.tubelet

    def candidates_step(parameters, statistics, frozen, batch):
        output = predict(parameters, statistics, frozen, batch)
        points = model.points_of(num_samples(batch))
        level_sizes = None
        if settings.top_k_per_level:
            level_sizes = np.unique(points.stride, return_counts=True)[1]

        def decode(logits, offsets, valid):
            found, point = decode_with_points(
                logits, offsets, points, valid,
                score_threshold=settings.score_threshold,
                top_k=settings.top_k, level_sizes=level_sizes,
                min_length_tokens=settings.min_length_tokens)
            every = (jax.nn.sigmoid(logits)[point]
                     if settings.keep_all_scores else None)
            return found, every

        return jax.vmap(decode)(output.class_logits, output.offsets,
                                output.valid)

    return candidates_step
