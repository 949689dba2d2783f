"""Decoding by hand, NMS against a plain loop and the public extension."""


import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.detection.postprocess import decode_candidates, suppress
from losa_jax.detection.targets import level_points


def test_decode_by_hand():
    points = level_points(4, (1, 2), ((0, 4), (4, 8)))
    logits = np.full((6, 2), -9.0, np.float32)
    logits[1, 0], logits[4, 1], logits[5, 0] = 2.0, 1.0, 3.0
    offsets = np.ones((6, 2), np.float32)
    offsets[4] = [0.5, 1.5]
    valid = np.array([True] * 5 + [False])
    got = decode_candidates(
        jnp.asarray(logits), jnp.asarray(offsets), points,
        jnp.asarray(valid), score_threshold=0.1, top_k=5, level_sizes=None,
        min_length_tokens=0.05)
    alive = np.asarray(got.alive)
    order = np.argsort(-np.asarray(got.scores)[alive])
    # Point 1 of level 0 at token 1; point 0 of level 1 at token 0, stride 2.
    np.testing.assert_allclose(np.asarray(got.segments)[alive][order],
                               [[0, 2], [-1, 3]])
    np.testing.assert_array_equal(np.asarray(got.labels)[alive][order],
                                  [0, 1])
    np.testing.assert_allclose(
        np.asarray(got.scores)[alive][order],
        1 / (1 + np.exp([-2.0, -1.0])), rtol=1e-5)


def _loop_soft_nms(segments, scores, sigma, min_score):
    scores = scores.astype(np.float64).copy()
    alive, picked = list(range(len(scores))), []
    while alive:
        best = max(alive, key=lambda i: (scores[i], -i))
        picked.append((best, scores[best]))
        alive.remove(best)
        for i in alive:
            inter = max(0.0, min(segments[i, 1], segments[best, 1])
                        - max(segments[i, 0], segments[best, 0]))
            union = sum(segments[j, 1] - segments[j, 0] + 1e-6
                        for j in (i, best)) - inter
            scores[i] *= np.exp(-(inter / union) ** 2 / sigma)
        alive = [i for i in alive if scores[i] >= min_score]
    return picked


@pytest.mark.parametrize("seed", range(5))
def test_soft_nms_equals_the_loop(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 60, 80)
    segments = np.stack([start, start + rng.uniform(1, 20, 80)],
                        1).astype(np.float32)
    scores = rng.uniform(0.01, 1, 80).astype(np.float32)
    got_segments, got_scores, _ = suppress(
        segments, scores, np.zeros(80, int), num_classes=1, method="soft",
        multiclass=True, sigma=0.5, iou_threshold=0.1, min_score=0.02,
        max_kept=200)
    want = _loop_soft_nms(segments, scores, 0.5, 0.02)
    np.testing.assert_allclose(got_segments,
                               segments[[i for i, _ in want]])
    np.testing.assert_allclose(got_scores, [s for _, s in want], rtol=1e-4)


@pytest.mark.shared
@pytest.mark.parametrize("case", [
    "soft_multi", "soft_agn_vote", "hard_multi", "hard_agn_vote",
    "soft_agn_sig09", "soft_agn_vote_tridet"])
def test_nms_equals_the_public_extension(shared_dir, case):
    folder = shared_dir / "data/parity"
    data = np.load(folder / "nms_1d_cpu.npz")
    soft = case.startswith("soft")
    vote = "vote" in case
    segments, scores, labels = suppress(
        data["in/segments"], data["in/scores"], data["in/labels"],
        num_classes=6, method="soft" if soft else "hard",
        multiclass="multi" in case,
        sigma=0.9 if case.endswith("sig09") else 0.5,
        iou_threshold=0.5, min_score=0.001, max_kept=200,
        voting_threshold=(0.7 if soft else 0.75) if vote else 0.0,
        voting="tridet" if case.endswith("tridet") else "actionformer")
    want = [data[f"{case}/{key}"] for key in ("segments", "scores",
                                              "labels")]
    assert len(scores) == len(want[1])
    assert (np.diff(scores) <= 1e-6).all()
    free = set(range(len(scores)))
    for segment, score, label in zip(*want, strict=True):
        partner = next(
            (i for i in free if labels[i] == label
             and np.abs(segments[i] - segment).max() <= 0.02
             and abs(scores[i] - score) <= max(1e-3 * score, 1e-5)), None)
        assert partner is not None, (segment, score, label)
        free.remove(partner)
    assert not free


def test_empty_input():
    for method in ("soft", "hard", "none"):
        segments, scores, labels = suppress(
            np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), num_classes=3,
            method=method, multiclass=True, sigma=0.5, iou_threshold=0.1,
            min_score=0.0, max_kept=5)
        assert len(segments) == len(scores) == len(labels) == 0
