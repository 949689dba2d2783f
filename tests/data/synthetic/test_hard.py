"""The hard rendered set: labels, and nothing shared between subsets."""

import json
import time

import numpy as np
import pytest

from losa_jax.data.synthetic import data_set, hard, motion
from losa_jax.data.synthetic.motion import (
    ACTION_CLASSES,
    MOTION_CLASSES,
    OTHER_CLASSES,
)

_SMALL = {"num_training": 1, "num_validation": 1, "num_testing": 1, "size": 32}


def _plans(subset, count=40):
    return [hard.plan_video(np.random.default_rng((2, i)), subset)
            for i in range(count)]


def _overlap(ranges, others):
    return any(low < other_high and other_low < high
               for low, high in ranges for other_low, other_high in others)


@pytest.mark.parametrize("one, other", [
    ("training", "validation"), ("training", "testing"),
    ("validation", "testing")])
def test_two_subsets_have_only_the_actions_in_common(one, other):
    first, second = hard.DOMAINS[one], hard.DOMAINS[other]
    for name in ("shapes", "textures", "cameras", "others"):
        assert not set(getattr(first, name)) & set(getattr(second, name)), name
    assert not _overlap(first.action_seconds, second.action_seconds)
    assert not _overlap(first.zooms, second.zooms)


def test_clips_for_a_backbone_show_one_of_the_other_motions():
    plans = [hard.plan_clip(np.random.default_rng(i)) for i in range(40)]
    assert {one.actions[0][0] for one in plans} == set(
        range(len(motion.OTHER_CLASSES)))
    for plan in plans:
        resting, moving = (motion.follow(actor)[0] for actor in plan.actors)
        assert np.ptp(resting, axis=0).max() == 0
        assert np.ptp(moving, axis=0).max() > 0.2
        assert plan.actions == ((plan.actions[0][0], 0.0,
                                 plan.frame_count / plan.fps),)
    frames = np.stack([*hard.render_frames(
        np.random.default_rng(0), plans[0], 32)])
    assert frames.shape == (plans[0].frame_count, 32, 32, 3)


@pytest.mark.parametrize("subset", hard.DOMAINS)
def test_actions_have_the_lengths_and_classes_of_their_subset(subset):
    ranges, classes, has_overlap = hard.DOMAINS[subset].action_seconds, set(), 0
    for plan in _plans(subset):
        starts = [start for _, start, _ in plan.actions]
        assert starts == sorted(starts) and 2 <= len(starts) <= 8
        for index, start, end in plan.actions:
            classes.add(index)
            assert any(low - 1e-9 <= end - start <= high + 1e-9
                       for low, high in ranges)
            assert 0 < start and end < plan.frame_count / plan.fps
        # Two actors act at once now and then.
        has_overlap += any(start < end for start, end in zip(
            starts[1:], (end for *_, end in plan.actions), strict=False))
        for actor in plan.actors:
            assert len(motion.follow(actor)[0]) == plan.frame_count
    assert classes == set(range(len(ACTION_CLASSES)))
    assert has_overlap > 5


def test_actors_occlusion_and_cuts_vary_from_video_to_video():
    plans = _plans("training", 80)
    assert {len(plan.actors) for plan in plans} == {1, 2, 3}
    assert {plan.is_hidden for plan in plans} == {False, True}
    assert {plan.num_cuts for plan in plans} == {0, 1, 2}


def test_the_backbone_is_not_trained_on_the_actions_or_parts_of_them():
    assert not set(OTHER_CLASSES) & set(ACTION_CLASSES)
    assert set(OTHER_CLASSES) & set(MOTION_CLASSES) == {"shake", "bounce"}
    assert {name for domain in hard.DOMAINS.values()
            for name in domain.others} == set(OTHER_CLASSES)
    seen = set()
    for seed in range(150):
        plan = motion.plan_other_trimmed(np.random.default_rng((7, seed)))
        name = OTHER_CLASSES[plan.actions[0][0]]
        poses, _ = motion.follow(plan)
        seen.add(name)
        assert np.isfinite(poses).all()
        # No circle: x and y of a circle have a constant distance to its
        # center; no slide or swing: a single axis moves there and stops.
        moved = np.ptp(poses, axis=0) > 1e-9
        assert moved.any()
        if name not in ("shake", "bounce", "pulse"):
            assert moved[:2].all() and not moved[2]
    assert seen == set(OTHER_CLASSES)


@pytest.mark.parametrize("name, step", [
    ("to_upper_left", (-1, -1)), ("to_upper_right", (1, -1)),
    ("to_lower_left", (-1, 1)), ("to_lower_right", (1, 1))])
def test_diagonals_go_as_their_name_says(name, step):
    path = motion.other_path(np.random.default_rng(0), name)
    first, last = path(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(np.sign(last - first)[:2], step)


def test_frames_show_actors_and_cuts():
    """Between two frames of a shot little changes; at a cut, all does."""
    for subset in hard.DOMAINS:
        plan, look = data_set._plan_video(
            {"kind": "hard_untrimmed", "seed": 0}, subset, 0)
        frames = np.stack([*hard.render_frames(look, plan, 32)])
        assert frames.shape == (plan.frame_count, 32, 32, 3)
        change = np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))
        cuts = np.flatnonzero(change > 4 * np.median(change))
        assert len(cuts) == plan.num_cuts
        # Actors are brighter than backgrounds.
        assert (frames.max((1, 2, 3)) > 120).all()


@pytest.mark.parametrize("subset", hard.DOMAINS)
def test_the_same_seed_gives_the_same_frames(subset):
    def frames():
        plan, look = data_set._plan_video(
            {"kind": "hard_untrimmed", "seed": 3}, subset, 1)
        return np.stack([*hard.render_frames(look, plan, 32)])

    np.testing.assert_array_equal(frames(), frames())


def test_a_hard_set_on_disk_and_again_bit_for_bit(tmp_path):
    one, other = (data_set.render_untrimmed_set(
        tmp_path / name, hard=True, **_SMALL) for name in ("one", "other"))
    videos = sorted(path.name for path in (one / "videos").iterdir())
    assert videos == [f"hard_untrimmed_{subset}_0000.mp4" for subset in (
        "testing", "training", "validation")]
    for name in videos:
        assert (one / "videos" / name).read_bytes() == (
            other / "videos" / name).read_bytes()
    database = json.loads((one / "annotations.json").read_text())["database"]
    assert all(2 <= len(entry["annotations"]) <= 8
               for entry in database.values())


def test_a_thousand_frames_take_seconds_of_processor_time():
    """1400 hard videos of 26 s then take less than an hour on two cores."""
    plan, look = data_set._plan_video(
        {"kind": "hard_untrimmed", "seed": 0}, "testing", 0)
    start = time.process_time()
    count = sum(1 for _ in hard.render_frames(look, plan, 64))
    assert time.process_time() - start < 6e-3 * count
