"""Weights of the loss against a loop over seconds, and windows by hand."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest

from configs import common
from losa_jax import timeline
from losa_jax.data.records import Action, Video, VideoInfo, Window
from losa_jax.data.windows import examples, loss_weights, sampling

CLASSES = ["run", "jump", "wave"]
FPS, STRIDE, PER_TOKEN, TOKENS = 20.0, 2, 2, 32
# A token is 0.2 s; 32 of them are 6.4 s.


def _video(actions=(), reviewed=None, negatives=(), name="v", seconds=30):
    count = round(seconds * FPS)
    info = VideoInfo(Path(f"{name}.mp4"), FPS, count, seconds, 8, 8)
    return Video(name, info, timeline.sample_grid(
        FPS, count, sampling="stride", frame_stride=STRIDE),
        tuple(Action(*one) for one in actions), None, reviewed,
        tuple(Action(*one) for one in negatives))


def _weights(video, first_sample, class_names=CLASSES, min_action_kept=0.75):
    window = Window(first_sample, TOKENS * PER_TOKEN, TOKENS * PER_TOKEN)
    segments, labels, valid = sampling.window_actions(
        video.grid, window, video.actions, class_names,
        samples_per_token=PER_TOKEN, min_action_kept=min_action_kept,
        max_actions=5)
    return loss_weights.loss_weights(
        video, window, segments[valid], labels[valid], class_names,
        num_tokens=TOKENS, samples_per_token=PER_TOKEN,
        hard_negative_weight=3.0)


def _by_second(video, first_sample, class_names=CLASSES, kept=0.75):
    """The same, with one decision for each token and class, in seconds."""
    first = first_sample * STRIDE / FPS
    weights = np.zeros((TOKENS, len(class_names)), np.float32)
    for token in range(TOKENS):
        time = first + (token + 0.5) * PER_TOKEN * STRIDE / FPS

        def inside(segment, time=time):
            return segment[0] < time < segment[1]

        known = video.reviewed_seconds is None or any(
            map(inside, video.reviewed_seconds))
        for label, name in enumerate(class_names):
            here = [one for one in video.actions
                    if one.label == name and inside(one)]
            targets = [one for one in here if
                       min(one[1], first + 6.4) - max(one[0], first)
                       >= kept * (one[1] - one[0])]
            negatives = [one for one in video.hard_negatives
                         if one.label == name and inside(one)]
            if targets or (known and (here or not negatives)):
                weights[token, label] = 1
            elif negatives and not here:
                weights[token, label] = 3
    return weights


@pytest.mark.parametrize("reviewed", [None, (), ((1.03, 4.11), (6.0, 9.0))])
@pytest.mark.parametrize("first_sample", [0, 7, 31])
def test_weights_are_those_of_a_loop_over_seconds(reviewed, first_sample):
    video = _video([(0.55, 2.21, "run"), (2.0, 3.07, "jump"),
                    (5.9, 8.1, "run"), (6.05, 6.6, "wave")], reviewed,
                   [(2.5, 3.5, "run"), (4.0, 5.0, "wave"), (1.0, 8.0, "jump"),
                    (7.0, 9.9, "wave")])
    got = _weights(video, first_sample)
    np.testing.assert_array_equal(got, _by_second(video, first_sample))
    assert got.dtype == np.float32 and set(np.unique(got)) <= {0, 1, 3}


def test_an_action_of_a_video_known_in_part_is_known_for_its_class_only():
    weights = _weights(_video([(1.0, 2.0, "jump")], ()), 0)
    # Tokens 5 to 9 have their middles at 1.1 to 1.9 s.
    expected = np.zeros((TOKENS, 3))
    expected[5:10, 1] = 1
    np.testing.assert_array_equal(weights, expected)


def test_an_action_that_the_window_cuts_stays_unknown():
    video = _video([(5.4, 8.4, "jump")], ())
    assert not _weights(video, 0).any()  # one third is inside
    assert _weights(video, 0, min_action_kept=0.3).any()


def test_accepted_actions_win_where_classes_are_mapped_to_one():
    video = _video([(1.0, 2.0, "action"), (3.0, 9.0, "action")], None,
                   [(0.5, 2.5, "action"), (4.0, 5.0, "action")])
    for one in (video, dataclasses.replace(video, reviewed_seconds=())):
        weights = _weights(one, 0, ["action"])[:, 0]
        assert weights[5:10].tolist() == [1] * 5
        assert weights[3] == weights[11] == 3
        # The second action is cut, and no background for sure.
        assert weights[21] == (one.reviewed_seconds is None)


def _windows(videos, count=40):
    config = common.get_config()
    config.window.samples, config.window.tokens = TOKENS * PER_TOKEN, TOKENS
    reader = types.SimpleNamespace(
        training_inputs=lambda *arguments, augmented: ({}, 0))
    windows = examples.TrainWindows(videos, CLASSES, config, reader=reader)
    rng = np.random.default_rng(0)
    return [windows.example((number % len(videos), rng),
                            range(config.window.samples))
            for number in range(count)]


def test_a_batch_has_weights_only_if_some_differ():
    plain = _video([(3.0, 4.0, "run")])
    other = _video([(3.0, 4.0, "run")], (), name="w")
    assert all("loss_weights" not in one
               for one in _windows([plain], 2))
    both = _windows([plain, other], 2)
    assert (both[0]["loss_weights"] == 1).all()
    assert both[1]["loss_weights"].sum() in (4, 5)  # a quarter may be cut
    assert both[0]["loss_weights"].shape == (TOKENS, 3)


def test_windows_show_an_action_or_a_hard_negative():
    videos = [_video([], (), [(20.0, 21.0, "jump")]),
              _video([(3.0, 4.0, "run")], (), [(20.0, 21.0, "jump")], "w")]
    for one in _windows(videos):
        weights = one["loss_weights"]
        assert (weights == 3).any() or one["action_valid"].any()
    only, both = (_windows(videos)[first::2] for first in (0, 1))
    assert not any(one["action_valid"].any() for one in only)
    shown = [bool(one["action_valid"].any()) for one in both]
    assert 3 < sum(shown) < 17
