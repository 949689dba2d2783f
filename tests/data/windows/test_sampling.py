"""Windows cover every frame; crops keep actions."""

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.records import Action, Window
from losa_jax.data.windows import sampling
from losa_jax.errors import InputError


def _grid(frame_count, stride=1, fps=10.0):
    return timeline.sample_grid(fps, frame_count, sampling="stride",
                                frame_stride=stride)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("frame_count", [1, 15, 64, 65, 127, 1151, 2000])
@pytest.mark.parametrize("stride", [1, 3])
def test_test_windows_cover_every_sample(frame_count, stride, overlap):
    grid = _grid(frame_count, stride)
    windows = sampling.test_windows(grid, 64, overlap)
    covered = np.zeros(grid.num_samples, bool)
    for window in windows:
        assert window.num_samples == 64
        last = window.first_sample + window.valid_samples
        assert 0 <= window.first_sample and last <= grid.num_samples
        covered[window.first_sample:last] = True
    assert covered.all()
    if grid.num_samples >= 64:
        assert all(window.valid_samples == 64 for window in windows)
    # Samples stand for stretches of frames: the last one reaches the end.
    assert grid.num_samples * grid.frames_per_sample >= frame_count


def test_last_test_window_ends_with_the_video():
    windows = sampling.test_windows(_grid(100), 64, 0.5)
    assert [w.first_sample for w in windows] == [0, 32, 36]


def test_padding_repeats_the_last_real_frame():
    window = Window(first_sample=0, num_samples=8, valid_samples=5)
    np.testing.assert_array_equal(window.frame_indices(_grid(5)),
                                  [0, 1, 2, 3, 4, 4, 4, 4])


def test_overlap_of_one_is_refused():
    with pytest.raises(InputError, match="overlap=1"):
        sampling.test_windows(_grid(100), 64, 1.0)


def test_train_windows_keep_an_action_and_stay_inside():
    grid = _grid(1000)
    actions = (Action(50.0, 53.0, "jump"),)
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(50):
        window = sampling.train_window(grid, actions, 64, rng,
                                      crop_ratio=(0.9, 1.0),
                                      min_action_kept=0.75)
        assert window.valid_samples == 64
        assert 0 <= window.first_sample <= 1000 - 64
        kept = (min(530, window.first_sample + 64)
                - max(500, window.first_sample)) / 30
        assert kept >= 0.75
        starts.add(window.first_sample)
    assert len(starts) > 10


def test_one_of_several_actions_is_enough():
    grid = _grid(1000)
    actions = (Action(10.0, 13.0, "jump"), Action(80.0, 83.0, "jump"))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        window = sampling.train_window(grid, actions, 64, rng,
                                      crop_ratio=None, min_action_kept=1.0)
        first, last = window.first_sample, window.first_sample + 64
        whole = [first <= begin and begin + 30 <= last
                 for begin in (100, 800)]
        assert any(whole)
        seen.add(whole.index(True))
    assert seen == {0, 1}


def test_short_videos_are_cropped_by_the_ratio():
    rng = np.random.default_rng(0)
    lengths = [sampling.train_window(
        _grid(50), (), 64, rng, crop_ratio=(0.5, 0.8),
        min_action_kept=0.75).valid_samples for _ in range(100)]
    assert min(lengths) >= 25 and max(lengths) <= 40
    assert len(set(lengths)) > 5
    whole = sampling.train_window(_grid(50), (), 64, rng, crop_ratio=None,
                                 min_action_kept=0.75)
    assert whole == Window(0, 64, 50)


def test_actions_are_cut_or_dropped_in_tokens():
    grid = _grid(200)  # 10 samples a second
    window = Window(first_sample=40, num_samples=64, valid_samples=60)
    actions = (
        Action(5.0, 6.0, "b"),    # samples 50 to 60: whole
        Action(9.5, 11.0, "a"),   # a third inside: dropped
        Action(3.5, 5.0, "a"),    # two thirds inside: cut to 4.0
        Action(12.0, 13.0, "b"),  # outside
    )
    segments, labels, valid = sampling.window_actions(
        grid, window, actions, ["a", "b"], samples_per_token=2,
        min_action_kept=0.5, max_actions=5)
    # token = (sample - 40) / 2 - 0.5
    np.testing.assert_allclose(segments[:2], [[4.5, 9.5], [-0.5, 4.5]],
                               atol=1e-6)
    np.testing.assert_array_equal(labels[:2], [1, 0])
    np.testing.assert_array_equal(valid, [True, True, False, False, False])


def test_tokens_come_from_the_window_that_holds_them_best():
    windows = sampling.test_windows(_grid(101), 32, 0.5, align=8)
    assert [window.first_sample for window in windows] == [
        0, 16, 32, 48, 64, 72]
    owner = sampling.token_windows(windows, 101, 2)
    assert len(owner) == 51
    # The first half of a window's surplus goes to the one before it.
    assert owner[[0, 11, 12, 19, 20, 37, 50]].tolist() == [
        0, 0, 1, 1, 2, 4, 5]
    for token, number in enumerate(owner):
        first = windows[number].first_sample // 2
        assert first <= token < first + 16
