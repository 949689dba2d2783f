"""Points and target assignment against loops, by hand and fixtures."""

import functools
import json

import jax
import numpy as np
import pytest

from losa_jax.detection.targets import assign_targets, level_points
from losa_jax.errors import InputError

STRIDES = (1, 2, 4)
RANGES = ((0, 4), (4, 8), (8, 10000))


def test_points_of_two_levels():
    points = level_points(4, (1, 2), ((0, 4), (4, 10000)))
    np.testing.assert_array_equal(points.time, [0, 1, 2, 3, 0, 2])
    np.testing.assert_array_equal(points.range_min, [0, 0, 0, 0, 4, 4])
    np.testing.assert_array_equal(points.range_max,
                                  [4, 4, 4, 4, 10000, 10000])
    np.testing.assert_array_equal(points.stride, [1, 1, 1, 1, 2, 2])
    assert all(values.dtype == np.float32 for values in points)


def test_points_refuse_a_bad_pyramid():
    with pytest.raises(InputError, match=r"\[4\].*multiple of 4"):
        level_points(6, (1, 2, 4), RANGES)
    with pytest.raises(InputError, match="one range for each level"):
        level_points(8, (1, 2), RANGES)


def assign(points, segments, labels, num_classes=3, center_radius=None,
           **options):
    """Without padding, as numpy."""
    targets = jax.jit(functools.partial(
        assign_targets, points, num_classes=num_classes,
        center_radius=center_radius, **options))(
            np.asarray(segments, np.float32), np.asarray(labels),
            np.ones(len(labels), bool))
    return jax.tree.map(np.asarray, targets)


def test_points_may_learn_the_classes_of_all_their_actions():
    points = level_points(16, (1, 2), ((0, 100), (0, 3)))
    segments, labels = [[2, 10], [3, 9], [5, 7]], [0, 1, 2]
    targets = assign(points, segments, labels, every_class=True)
    usual = assign(points, segments, labels)
    for place, time in enumerate(points.time):
        row = [float(start < time < end and (
            max(time - start, end - time) <= points.range_max[place]))
            for start, end in segments]
        assert targets.classes[place].tolist() == row
    assert usual.classes[6].tolist() == [0, 0, 1]
    assert targets.classes[6].tolist() == [1, 1, 1]
    # Distances are those of the shortest.
    np.testing.assert_array_equal(targets.offsets, usual.offsets)
    np.testing.assert_array_equal(targets.positive, usual.positive)


def test_range_is_inclusive_at_both_ends():
    points = level_points(16, (1, 2), ((0, 4), (4, 8)))
    targets = assign(points, [[0, 8]], [0])
    # On level 0 only t = 4 has both ends within 4; on level 1 every inner
    # point has its farther end within 4 .. 8, t = 4 (exactly 4) included.
    assert np.flatnonzero(targets.positive).tolist() == [4, 17, 18, 19]
    np.testing.assert_array_equal(targets.offsets[4], [4, 4])
    np.testing.assert_array_equal(targets.offsets[17], [1, 3])


def test_inside_is_strict_and_the_radius_counts_strides():
    points = level_points(16, (1, 2), ((0, 100), (0, 100)))
    # Level 1 follows from index 16 on, its point 2 is at t = 4.
    assert np.flatnonzero(assign(
        points, [[2, 6]], [0]).positive).tolist() == [3, 4, 5, 16 + 2]
    # The middle is 7: 1.5 strides are 5.5 .. 8.5 and 4 .. 10, open.
    assert np.flatnonzero(assign(
        points, [[0, 14]], [0], center_radius=1.5).positive
                          ).tolist() == [6, 7, 8, 16 + 3, 16 + 4]
    # An action shorter than the radius ends where it ends.
    assert np.flatnonzero(assign(
        points, [[6.5, 7.5]], [0], center_radius=1.5).positive
                          ).tolist() == [7]


def test_the_shortest_wins_and_equals_share():
    points = level_points(8, (1,), ((0, 100),))
    targets = assign(points, [[0, 8], [1, 5], [1, 5.0005], [1, 5.002]],
                     [0, 1, 2, 0])
    np.testing.assert_array_equal(targets.classes[3], [0, 1, 1])
    np.testing.assert_array_equal(targets.offsets[3], [2, 2])
    np.testing.assert_array_equal(targets.classes[6], [1, 0, 0])
    np.testing.assert_array_equal(targets.offsets[6], [6, 2])
    np.testing.assert_array_equal(targets.classes[0], [0, 0, 0])


def test_one_class_twice_is_still_one():
    points = level_points(8, (1,), ((0, 100),))
    targets = assign(points, [[1, 5], [1, 5]], [2, 2])
    np.testing.assert_array_equal(targets.classes[3], [0, 0, 1])


def by_loops(points, segments, labels, num_classes, center_radius,
             every_class):
    """The rule, point by point."""
    classes = np.zeros((len(points.time), num_classes), np.float32)
    offsets = np.zeros((len(points.time), 2), np.float32)
    for p, (time, low, high, stride) in enumerate(
            zip(*points, strict=True)):
        fitting = []
        for (start, end), label in zip(segments, labels, strict=True):
            inner_start, inner_end = start, end
            if center_radius is not None:
                middle = np.float32(0.5) * (start + end)
                inner_start = max(start, middle - center_radius * stride)
                inner_end = min(end, middle + center_radius * stride)
            if (inner_start < time < inner_end
                    and low <= max(time - start, end - time) <= high):
                fitting.append((end - start, start, end, label))
        if fitting:
            length, start, end, _ = min(fitting, key=lambda row: row[0])
            offsets[p] = (time - start) / stride, (end - time) / stride
            for other in fitting:
                if every_class or other[0] <= length + 1e-3:
                    classes[p, other[3]] = 1
    return classes, offsets


# The last one as Ego4D's recipes in OpenTAD, whose ranges overlap.
@pytest.mark.parametrize("center_radius, overlap, every_class", [
    (None, 1, False), (1.5, 1, False), (1.5, 2, True)])
def test_against_loops_with_padding(center_radius, overlap, every_class):
    rng = np.random.default_rng(0)
    points = level_points(32, STRIDES, tuple(
        (low / overlap, high) for low, high in RANGES))
    # Multiples of 1/2: exact in float32, and many equal lengths.
    start = rng.integers(0, 50, (6, 9)) / 2
    segments = np.stack([start, start + rng.choice([1.5, 8, 20], (6, 9))],
                        axis=-1).astype(np.float32)
    labels = rng.integers(0, 4, (6, 9))
    counts = [9, 5, 1, 0, 7, 3]
    valid = np.arange(9) < np.array(counts)[:, None]
    # Values on padding are ignored.
    labels[~valid] = -1

    targets = jax.jit(jax.vmap(functools.partial(
        assign_targets, points, num_classes=4, every_class=every_class,
        center_radius=center_radius)))(segments, labels, valid)
    assert targets.classes.dtype == targets.offsets.dtype == np.float32
    num_shared = 0
    for video, count in enumerate(counts):
        classes, offsets = by_loops(points, segments[video, :count],
                                    labels[video, :count], 4, center_radius,
                                    every_class)
        np.testing.assert_array_equal(targets.classes[video], classes)
        np.testing.assert_array_equal(targets.offsets[video], offsets)
        np.testing.assert_array_equal(targets.positive[video],
                                      classes.any(axis=1))
        num_shared += np.sum(classes.sum(axis=1) > 1)
    assert num_shared > 0  # the case is in the test


@pytest.mark.shared
@pytest.mark.parametrize("name", ["actionformer_tiny", "tridet_tiny"])
def test_reference_targets(shared_dir, name):
    config = json.loads(
        (shared_dir / f"data/parity/{name}_config.json").read_text())
    data = np.load(shared_dir / f"data/parity/{name}.npz")
    ranges = [*map(tuple, config["model"]["regression_range"])]
    strides = [2**level for level in range(len(ranges))]
    points = level_points(config["model"]["max_seq_len"], strides, ranges)
    np.testing.assert_array_equal(
        np.stack(points, axis=1),
        np.concatenate([data[f"train/points/{level}"]
                        for level in range(len(ranges))]))

    counts = [len(data[f"in/{video}/labels"]) for video in range(2)]
    segments = np.zeros((2, 8, 2), np.float32)
    labels = np.zeros((2, 8), np.int32)
    for video, count in enumerate(counts):
        segments[video, :count] = data[f"in/{video}/segments"]
        labels[video, :count] = data[f"in/{video}/labels"]
    targets = jax.vmap(functools.partial(
        assign_targets, points, num_classes=config["model"]["num_classes"],
        center_radius=config["train_cfg"]["center_sample_radius"]))(
            segments, labels, np.arange(8) < np.array(counts)[:, None])

    valid = np.concatenate([data[f"train/fpn_masks/{level}"]
                            for level in range(len(ranges))], axis=1)
    np.testing.assert_array_equal(targets.positive & valid,
                                  data["train/pos_mask"])
    for video in range(2):
        expected = data[f"train/gt_cls_labels/{video}"]
        np.testing.assert_array_equal(targets.classes[video], expected)
        rows = expected.any(axis=1)
        np.testing.assert_array_equal(
            targets.offsets[video][rows],
            data[f"train/gt_offsets/{video}"][rows])
        assert not np.asarray(targets.offsets[video])[~rows].any()
