"""Pairs of classes of two heads against a loop over points and classes."""

import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.detection.decode import DecodeSettings, decode_pairs
from losa_jax.detection.targets import level_points


def _loop(logits, offsets, points, valid, top_k, threshold, best=10):
    """As the public script goes: ten nouns by ten verbs at each point."""
    rows = []
    num_second = logits[1].shape[1]
    first, second = (1 / (1 + np.exp(-one.astype(np.float64)))
                     for one in logits)
    for p in range(len(valid)):
        if not valid[p]:
            continue
        segment = np.mean([
            (points.time[p] - one[p, 0] * points.stride[p],
             points.time[p] + one[p, 1] * points.stride[p])
            for one in offsets], axis=0)
        for i in np.argsort(-first[p], kind="stable")[:best]:
            for j in np.argsort(-second[p], kind="stable")[:best]:
                score = np.sqrt(first[p, i] * second[p, j])
                if score > threshold:
                    rows.append((score, i * num_second + j, *segment))
    return sorted(rows, key=lambda row: -row[0])[:top_k]


@pytest.mark.parametrize("classes", [(13, 17), (3, 12)])
def test_pairs_are_those_of_a_loop(classes):
    rng = np.random.default_rng(0)
    points = level_points(8, (1, 2), ((0, 4), (2, 1e4)))
    count = len(points.time)
    logits = [rng.normal(-2, 2, (count, k)).astype(np.float32)
              for k in classes]
    offsets = [rng.uniform(0.2, 4, (count, 2)).astype(np.float32)
               for _ in classes]
    valid = np.arange(count) % 5 != 3
    settings = DecodeSettings(score_threshold=0.05, top_k=400,
                              min_length_tokens=0.0)
    got = decode_pairs(tuple(map(jnp.asarray, logits)),
                       tuple(map(jnp.asarray, offsets)), points,
                       jnp.asarray(valid), settings)
    want = _loop(logits, offsets, points, valid, 400, 0.05)
    kept = np.asarray(got.valid)
    assert kept.sum() == len(want) > 50
    np.testing.assert_allclose(np.asarray(got.scores)[kept],
                               [row[0] for row in want], rtol=1e-5)
    assert np.asarray(got.labels)[kept].tolist() == [row[1] for row in want]
    np.testing.assert_allclose(np.asarray(got.segments)[kept],
                               [row[2:] for row in want], rtol=1e-5,
                               atol=1e-5)
