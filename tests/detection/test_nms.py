"""Decoding, NMS and voting against loops, by hand and fixtures."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.detection import nms
from losa_jax.detection.decode import DecodeSettings, decode
from losa_jax.detection.nms import NmsSettings, pick_greedily, vote
from losa_jax.detection.segments import Segments
from losa_jax.detection.targets import level_points
from tests.detection.same_list import assert_same_list, stored_list

soft_nms = functools.partial(pick_greedily, method="soft")
hard_nms = functools.partial(pick_greedily, method="hard")
# A level of four points and one of two.
POINTS = level_points(4, (1, 2), ((0, 4), (4, 10000)))


def decode_window(class_logits, offsets, points, valid, **settings):
    return decode(jnp.asarray(class_logits), jnp.asarray(offsets), points,
                  jnp.asarray(valid), DecodeSettings(**settings))


def suppress(segments, scores, labels, num_classes=3, **settings):
    """Segments, scores and labels that NMS leaves."""
    scores = np.asarray(scores, np.float32)
    left, rows = nms.suppress(
        Segments(np.asarray(segments), scores, np.asarray(labels),
                 np.ones(len(scores), bool)), num_classes,
        NmsSettings(**settings))
    assert left.valid.all() and len(rows) == len(left.scores)
    return left[:3]


def logit(probability):
    return np.log(probability) - np.log1p(-np.asarray(probability))


def valid_rows(window):
    """(start, end, score, label) of the valid ones, in order."""
    segments, scores, labels, alive = map(np.asarray, window[:4])
    return [(*map(float, segments[row]), round(float(scores[row]), 5),
             int(labels[row])) for row in np.flatnonzero(alive)]


def test_decode_by_hand():
    probability = np.full((6, 2), 0.001)
    probability[1] = [0.5, 0.9]
    probability[2] = [0.7, 0.05]
    probability[3, 0] = 0.99  # padding
    probability[5] = [0.1, 0.8]
    offsets = np.array([[1, 1], [0.5, 1], [0, 0.25], [1, 1], [1, 1],
                        [0.5, 2]], np.float32)
    valid = np.array([1, 1, 1, 0, 1, 1], bool)
    decode = functools.partial(
        decode_window, logit(probability).astype(np.float32), offsets,
        POINTS, valid, score_threshold=0.06, min_length_tokens=0.3)

    # Point 2 makes segments of 0.25 tokens: too short. Point 5 is at
    # token 2 and counts in strides of 2.
    first = [(0.5, 2.0, 0.9, 1), (0.5, 2.0, 0.5, 0)]
    coarse = [(1.0, 6.0, 0.8, 1), (1.0, 6.0, 0.1, 0)]
    levels = decode(top_k=3, top_k_per_level=True)
    assert levels.scores.shape == (6,)
    assert valid_rows(levels) == first + coarse
    # The short one takes a place of the two before it is removed.
    assert valid_rows(decode(top_k=2, top_k_per_level=True)) == [
        first[0], *coarse]
    together = decode(top_k=3, top_k_per_level=False)
    assert together.scores.shape == (3,)
    assert valid_rows(together) == [first[0], coarse[0]]
    everything = decode(top_k=100, top_k_per_level=False)
    assert everything.scores.shape == (12,)
    assert valid_rows(everything) == [first[0], coarse[0], first[1],
                                      coarse[1]]
    assert not np.asarray(everything.scores)[
        ~np.asarray(everything.valid)].any()


def test_decode_thresholds_are_strict():
    logits = np.zeros((6, 1), np.float32)  # score 1/2 exactly
    offsets = np.full((6, 2), 0.5, np.float32)
    offsets[4:] = 0.25  # every segment is exactly 1 token long
    decode = functools.partial(decode_window, logits, offsets, POINTS,
                               np.ones(6, bool), top_k=9, top_k_per_level=False)
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert not decode(score_threshold=0.5, min_length_tokens=0).valid.any()
    assert decode(score_threshold=below, min_length_tokens=0).valid.all()
    assert not decode(score_threshold=0, min_length_tokens=1).valid.any()
    assert decode(score_threshold=0, min_length_tokens=0.999).valid.all()


def test_decode_keeps_empty_segments_on_demand():
    decode = functools.partial(
        decode_window, np.zeros((6, 1), np.float32),
        np.zeros((6, 2), np.float32), POINTS, np.ones(6, bool),
        score_threshold=0.1, top_k=9, top_k_per_level=False)
    assert not decode(min_length_tokens=0).valid.any()
    assert decode(min_length_tokens=-1).valid.all()


def test_decode_with_offsets_of_each_class():
    probability = np.full((6, 2), 0.001)
    probability[5] = [0.1, 0.8]
    offsets = np.zeros((6, 2, 2), np.float32)
    offsets[5] = [[1, 2], [0.5, 0.75]]
    candidates = decode_window(
        logit(probability), offsets, POINTS, np.ones(6, bool),
        score_threshold=0.06, top_k=12, top_k_per_level=False,
        min_length_tokens=0)
    assert valid_rows(candidates) == [(1.0, 3.5, 0.8, 1), (0.0, 6.0, 0.1, 0)]


def test_decode_runs_jitted_over_a_batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 6, 2)).astype(np.float32)
    offsets = rng.exponential(size=(3, 6, 2)).astype(np.float32)
    valid = rng.random((3, 6)) < 0.7
    decode = functools.partial(
        decode_window, points=POINTS, score_threshold=0.3, top_k=3,
        top_k_per_level=True, min_length_tokens=0.05)
    batch = jax.jit(jax.vmap(
        lambda logits, offsets, valid: decode(
            class_logits=logits, offsets=offsets, valid=valid)))(
                logits, offsets, valid)
    for b in range(3):
        one = decode(class_logits=logits[b], offsets=offsets[b],
                     valid=valid[b])
        for ours, theirs in zip(batch[:4], one[:4], strict=True):
            np.testing.assert_allclose(ours[b], theirs, rtol=1e-6)


def overlap_of(a, b):
    """IoU with 1e-6 on both lengths, in Python numbers."""
    intersection = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return intersection / (a[1] - a[0] + b[1] - b[0] + 2e-6 - intersection)


def soft_by_loops(segments, scores, sigma, min_score, max_kept):
    left, kept = dict(enumerate(scores)), []
    while left and len(kept) < max_kept:
        best = max(left, key=lambda row: (left[row], -row))
        kept.append((best, left.pop(best)))
        for row in list(left):
            left[row] *= math.exp(
                -overlap_of(segments[row], segments[best])**2 / sigma)
            if left[row] < min_score:
                del left[row]
    return kept


def hard_by_loops(segments, scores, iou_threshold, min_score, max_kept):
    kept = []
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        if min_score > 0 and scores[row] <= min_score:
            continue
        if all(overlap_of(segments[row], segments[other]) < iou_threshold
               for other, _ in kept):
            kept.append((row, scores[row]))
    return kept[:max_kept]


def random_segments(count, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 60, count)
    segments = np.stack([start, start + rng.exponential(8, count) + 0.1],
                        axis=1).astype(np.float32)
    return segments, rng.random(count).astype(np.float32)


@pytest.mark.parametrize("max_kept", [7, 80])
@pytest.mark.parametrize("min_score", [0.0, 0.05])
def test_nms_against_loops(max_kept, min_score):
    segments, scores = random_segments(80)
    alive = np.arange(80) % 5 > 0
    living = np.flatnonzero(alive)
    for ours, expected in [
            (soft_nms(segments, scores, alive, sigma=0.3,
                      min_score=min_score, max_kept=max_kept),
             soft_by_loops(segments[alive].tolist(), scores[alive].tolist(),
                           0.3, min_score, max_kept)),
            (hard_nms(segments, scores, alive, iou_threshold=0.4,
                      min_score=min_score, max_kept=max_kept),
             hard_by_loops(segments[alive].tolist(), scores[alive].tolist(),
                           0.4, min_score, max_kept))]:
        count = len(expected)
        np.testing.assert_array_equal(
            ours.valid, np.arange(max_kept) < count)
        np.testing.assert_array_equal(
            ours.row[:count], living[[row for row, _ in expected]])
        np.testing.assert_allclose(
            ours.score[:count], [score for _, score in expected], rtol=1e-4)
        assert not np.asarray(ours.row[count:]).any()
        assert not np.asarray(ours.score[count:]).any()


def test_soft_nms_by_hand():
    segments = np.array([[0, 2], [1, 3], [5, 6]], np.float32)
    kept = soft_nms(segments, np.array([0.9, 0.8, 0.5], np.float32),
                    np.ones(3, bool), sigma=0.5, min_score=0.0, max_kept=3)
    # Overlap 1/3: 0.8 exp(-2/9) = 0.640 stays ahead of 0.5.
    np.testing.assert_array_equal(kept.row, [0, 1, 2])
    np.testing.assert_allclose(kept.score, [0.9, 0.8 * math.exp(-2 / 9),
                                            0.5], rtol=1e-5)


def test_the_first_pick_may_be_below_the_lowest_score():
    segments = np.array([[0, 1], [5, 6]], np.float32)
    kept = soft_nms(segments, np.array([0.02, 0.01], np.float32),
                    np.ones(2, bool), sigma=0.5, min_score=0.1, max_kept=2)
    assert np.asarray(kept.valid).tolist() == [True, False]
    kept = hard_nms(segments, np.array([0.02, 0.01], np.float32),
                    np.ones(2, bool), iou_threshold=0.5, min_score=0.01,
                    max_kept=2)
    assert np.asarray(kept.valid).tolist() == [True, False]


def test_hard_nms_threshold_is_inclusive():
    # At this length 1e-6 is lost in rounding: the overlap is exactly 1/2.
    segments = np.array([[0, 1024], [0, 2048]], np.float32)
    run = functools.partial(hard_nms, segments,
                            np.array([0.2, 0.3], np.float32),
                            np.ones(2, bool), min_score=0.0, max_kept=2)
    kept = run(iou_threshold=0.5)
    assert np.asarray(kept.valid).tolist() == [True, False]
    assert int(kept.row[0]) == 1
    assert run(iou_threshold=0.501).valid.all()


def test_empty_segments_stay_finite():
    # The same place twice: an intersection of 0 over 2e-6.
    kept = soft_nms(np.ones((2, 2), np.float32),
                    np.array([0.2, 0.3], np.float32), np.ones(2, bool),
                    sigma=0.5, min_score=0.0, max_kept=2)
    np.testing.assert_allclose(kept.score, [0.3, 0.2])


def test_equal_scores_go_by_index():
    segments = np.array([[i, i + 0.5] for i in range(6)], np.float32)
    kept = soft_nms(segments, np.array([1, 2, 2, 1, 2, 1], np.float32),
                    np.array([1, 0, 1, 1, 1, 1], bool), sigma=0.5,
                    min_score=0.0, max_kept=6)
    assert np.asarray(kept.row)[np.asarray(kept.valid)].tolist() == [
        2, 4, 0, 3, 5]


def test_scores_of_zero_are_picked_and_padding_is_not():
    segments = np.array([[0, 1], [5, 6]], np.float32)
    kept = soft_nms(segments, np.zeros(2, np.float32), np.ones(2, bool),
                    sigma=0.5, min_score=0.0, max_kept=2)
    assert kept.valid.all()  # a score of 0 is a score
    kept = soft_nms(segments, np.ones(2, np.float32), np.zeros(2, bool),
                    sigma=0.5, min_score=0.0, max_kept=2)
    assert not kept.valid.any()


def test_nms_runs_over_a_batch():
    both = [random_segments(30, seed) for seed in (1, 2)]
    alive = np.arange(30) < np.array([[30], [8]])
    run = functools.partial(soft_nms, sigma=0.5, min_score=0.1, max_kept=20)
    batch = jax.jit(jax.vmap(run))(
        jnp.stack([segments for segments, _ in both]),
        jnp.stack([scores for _, scores in both]), alive)
    for b, (segments, scores) in enumerate(both):
        one = run(segments, scores, alive[b])
        np.testing.assert_array_equal(batch.row[b], one.row)
        np.testing.assert_array_equal(batch.valid[b], one.valid)
        np.testing.assert_allclose(batch.score[b], one.score, rtol=1e-5)
    counts = np.asarray(batch.valid).sum(axis=1)
    assert counts[0] != counts[1]  # one loop goes on while the other rests


OPTIONS = {"num_classes": 3, "method": "soft", "per_class": True,
           "sigma": 0.5, "iou_threshold": 0.5, "min_score": 0.01,
           "max_kept": 50}


def test_suppress_takes_every_class_on_its_own():
    segments, scores = random_segments(300)
    labels = np.arange(300) % 3
    ours = suppress(segments, scores, labels, **OPTIONS)
    expected = []
    for k in range(3):
        rows = np.flatnonzero(labels == k)
        expected += [
            (score, rows[row]) for row, score in soft_by_loops(
                segments[rows].tolist(), scores[rows].tolist(), 0.5, 0.01,
                50)]
    expected = sorted(expected, key=lambda pair: -pair[0])[:50]
    rows = [row for _, row in expected]
    np.testing.assert_array_equal(ours[0], segments[rows])
    np.testing.assert_allclose(ours[1], [score for score, _ in expected],
                               rtol=1e-4)
    np.testing.assert_array_equal(ours[2], labels[rows])
    assert [part.dtype for part in ours] == [np.float32, np.float32,
                                             np.int64]


@pytest.mark.parametrize("method", ["soft", "hard"])
@pytest.mark.parametrize("max_kept", [5, 40, 300])
def test_running_on_the_best_candidates_first_changes_nothing(method, max_kept,
                                                   monkeypatch):
    segments, scores = random_segments(600)
    scores = np.round(scores, 2)  # many are equal
    options = OPTIONS | {"method": method, "max_kept": max_kept}
    labels = np.arange(600) % 3
    whole = suppress(segments, scores, labels, **options)
    monkeypatch.setattr(nms, "FIRST_CANDIDATES", 16)
    # And so does running few classes at a time.
    monkeypatch.setattr(nms, "MOST_ROWS", 100)
    for ours, expected in zip(suppress(segments, scores, labels, **options),
                              whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_suppress_caps_each_class_before_all():
    # Class 0 fills the list alone unless it is capped; nothing overlaps.
    segments = np.array([[i, i + 0.5] for i in range(9)], np.float32)
    scores = np.linspace(0.9, 0.1, 9).astype(np.float32)
    labels = np.array([0] * 6 + [1] * 3)
    ours = suppress(segments, scores, labels, **OPTIONS | {"max_kept": 4})
    assert ours[2].tolist() == [0, 0, 0, 0]
    alone = suppress(segments[::-1], scores, labels[::-1],
                     **OPTIONS | {"max_kept": 4})
    assert alone[2].tolist() == [1, 1, 1, 0]


def test_suppress_without_classes_carries_labels_along():
    segments = np.array([[0, 2], [0, 2], [5, 6]], np.float32)
    ours = suppress(segments, [0.5, 0.9, 0.7], [2, 1, 0],
                    **OPTIONS | {"per_class": False, "method": "hard"})
    assert ours[2].tolist() == [1, 0]
    np.testing.assert_allclose(ours[1], [0.9, 0.7])


def test_suppress_none_only_sorts_and_cuts():
    segments, scores = random_segments(9)
    ours = suppress(segments, scores, np.arange(9) % 3,
                    **OPTIONS | {"method": "none", "max_kept": 4})
    best = np.argsort(-scores)[:4]
    np.testing.assert_array_equal(ours[0], segments[best])
    np.testing.assert_array_equal(ours[1], scores[best])
    np.testing.assert_array_equal(ours[2], best % 3)


def test_suppress_without_candidates():
    for per_class in (True, False):
        for method in ("soft", "hard", "none"):
            segments, scores, labels = suppress(
                np.zeros((0, 2)), [], [], **OPTIONS | {
                    "per_class": per_class, "method": method,
                    "voting_threshold": 0.7})
            assert segments.shape == (0, 2)
            assert scores.shape == labels.shape == (0,)


def test_suppress_refuses_unknown_labels():
    with pytest.raises(ValueError, match="labels from 0 to 3 with 3"):
        suppress(np.zeros((2, 2)), [0.1, 0.2], [0, 3], **OPTIONS)


def test_suppress_compiles_once_for_sizes_of_one_bucket():
    suppress(*random_segments(65), np.zeros(65, int), **OPTIONS)
    before = pick_greedily._cache_size()
    for count in (66, 100, 127, 128):
        suppress(*random_segments(count), np.zeros(count, int), **OPTIONS)
        suppress(*random_segments(count), np.ones(count, int),
                 **OPTIONS | {"sigma": 0.7, "min_score": 0.2})
    assert pick_greedily._cache_size() == before
    suppress(*random_segments(129), np.zeros(129, int), **OPTIONS)
    assert pick_greedily._cache_size() == before + 1


def test_voting_by_hand():
    kept = np.array([[0, 4], [9, 9]], np.float32)
    segments = np.array([[0, 4], [1, 4], [2, 4], [9, 9]], np.float32)
    scores = np.array([0.8, 0.4, 0.9, 0.7], np.float32)
    # IoU with the first: 1, 3/4, 1/2. The empty one has no support at all.
    weighted = (0.4 * 0.75 * 1) / (0.8 + 0.4 * 0.75)
    np.testing.assert_allclose(
        vote(kept, segments, scores, NmsSettings(
            voting_threshold=0.75, voting="actionformer")),
        [[weighted, 4], [9, 9]], rtol=1e-6)
    np.testing.assert_allclose(
        vote(kept, segments, scores, NmsSettings(
            voting_threshold=0.75, voting="tridet")),
        [[0.4 / 1.2, 4], [9, 9]], rtol=1e-6)


def test_voting_in_blocks(monkeypatch):
    segments, scores = random_segments(50)
    settings = NmsSettings(voting_threshold=0.3, voting="tridet")
    whole = vote(segments, segments, scores, settings)
    monkeypatch.setattr(nms, "VOTING_BLOCK", 7)
    blocks = vote(segments, segments, scores, settings)
    np.testing.assert_allclose(blocks, whole, rtol=1e-5)
    assert np.abs(whole - segments).max() > 1


def test_voting_is_for_all_classes_together_only():
    segments, scores = random_segments(40)
    labels = np.arange(40) % 3
    voted, plain = (suppress(segments, scores, labels, **OPTIONS | {
        "voting_threshold": threshold}) for threshold in (0.5, 0.0))
    np.testing.assert_array_equal(voted[0], plain[0])


@pytest.mark.shared
@pytest.mark.parametrize("case", [
    "soft_multi", "soft_agn_vote", "hard_multi", "hard_agn_vote",
    "soft_agn_sig09", "soft_agn_vote_tridet"])
def test_reference_nms(shared_dir, case):
    folder = shared_dir / "data/parity"
    config = json.loads((folder / "nms_1d_cpu_config.json").read_text())[case]
    data = np.load(folder / "nms_1d_cpu.npz")
    assert_same_list(suppress(
        data["in/segments"], data["in/scores"], data["in/labels"],
        num_classes=6, method="soft" if config["use_soft_nms"] else "hard",
        per_class=config["multiclass"], sigma=config.get("sigma", 0.5),
        iou_threshold=config["iou_threshold"],
        min_score=config["min_score"], max_kept=config["max_seg_num"],
        voting_threshold=config["voting_thresh"],
        voting=config["voting_variant"]), stored_list(data, case))


def test_all_scores_of_a_segment_are_kept_on_demand():
    probability = np.array([[0.2, 0.9], [0.6, 0.3], [0.1, 0.1], [0.1, 0.1],
                            [0.1, 0.1], [0.1, 0.1]])
    window = decode_window(logit(probability), np.ones((6, 2)), POINTS,
                           np.ones(6, bool), top_k=2, score_threshold=0.5,
                           keep_all_scores=True)
    np.testing.assert_allclose(window.class_scores, probability[:2],
                               rtol=1e-5)
