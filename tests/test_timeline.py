"""Hand-worked numbers for the four clocks."""

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.errors import InputError


def test_samples_show_the_middle_frame_of_their_stretch():
    grid = timeline.sample_grid(30.0, 10, sampling="stride", frame_stride=4)
    # Stretches 0-3, 4-7, 8-11: middles 2, 6, 10; frame 10 is past the end.
    assert grid.num_samples == 3
    np.testing.assert_array_equal(grid.frame_indices(np.arange(3)), [2, 6, 9])


def test_stride_one_is_every_frame():
    grid = timeline.sample_grid(25.0, 7, sampling="stride", frame_stride=1)
    np.testing.assert_array_equal(grid.frame_indices(np.arange(7)),
                                  np.arange(7))


@pytest.mark.parametrize("fps", [20.0, 24.0, 25.0, 29.97, 30.0, 60.0])
def test_sampling_by_rate_gives_every_file_the_same_clock(fps):
    frame_count = round(12 * fps)
    grid = timeline.sample_grid(fps, frame_count, sampling="fps",
                                sample_fps=10.0)
    assert grid.num_samples == pytest.approx(120, abs=1)
    assert grid.samples_from_seconds(3.0) == pytest.approx(30.0)
    frames = grid.frame_indices(np.arange(grid.num_samples))
    # The frame shown is on screen at the middle of the sample's stretch.
    middle_seconds = (np.arange(grid.num_samples) + 0.5) / 10.0
    np.testing.assert_array_less(frames / fps, middle_seconds + 1e-6)
    inside = middle_seconds < frame_count / fps
    np.testing.assert_array_less(middle_seconds[inside] - 1e-6,
                                 (frames[inside] + 1) / fps)


def test_resize_spreads_the_window_over_the_whole_video():
    grid = timeline.sample_grid(30.0, 100, sampling="resize",
                                window_samples=10)
    assert grid.num_samples == 10
    np.testing.assert_array_equal(grid.frame_indices(np.arange(10)),
                                  np.arange(10) * 10 + 5)


def test_token_zero_is_in_the_middle_of_its_stretch():
    # 30 fps, every third frame: ten samples a second; two samples a token.
    grid = timeline.sample_grid(30.0, 900, sampling="stride", frame_stride=3)
    # Token 0 of a window at sample 40 covers samples 40 and 41: seconds 4.0
    # to 4.2, so its coordinate 0.0 is second 4.1.
    seconds = timeline.seconds_from_tokens(np.array([0.0, 2.5]), grid, 40, 2)
    np.testing.assert_allclose(seconds, [4.1, 4.6])
    tokens = timeline.tokens_from_seconds(np.array([4.1, 4.6]), grid, 40, 2)
    np.testing.assert_allclose(tokens, [0.0, 2.5], atol=1e-12)


def test_seconds_are_cut_to_the_video():
    grid = timeline.sample_grid(10.0, 50, sampling="stride", frame_stride=1)
    seconds = timeline.seconds_from_tokens(np.array([-9.0, 99.0]), grid, 0, 1)
    np.testing.assert_array_equal(seconds, [0.0, 5.0])


def test_unknown_sampling_is_named():
    with pytest.raises(InputError, match="sampling='every'"):
        timeline.sample_grid(30.0, 10, sampling="every")
    with pytest.raises(InputError, match="sample_fps"):
        timeline.sample_grid(30.0, 10, sampling="fps")
