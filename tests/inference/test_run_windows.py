"""Each window has one output, in order, before the end of its video."""

import types

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.records import Window
from losa_jax.data.windows.stream import VideoEnd, WindowBatch, WindowRow
from losa_jax.detection.segments import Segments
from losa_jax.errors import InputError
from losa_jax.inference.run_windows import VideoSegments, run_windows


def _row(video_number, first_sample=0):
    return WindowRow(video_number, Window(first_sample, 8, 8))


def _batch(rows, ended=(), value=0):
    inputs = {} if not rows else {
        "frames": np.arange(len(rows)) + value,
        "valid_samples": np.full(len(rows), 8, np.int32)}
    return WindowBatch(inputs, tuple(rows), tuple(ended))


def test_padding_has_no_output_and_a_video_ends_after_its_last_window():
    error = InputError("damaged")
    batches = [_batch([_row(0), _row(0, 8)]),
               _batch([_row(1), None], [VideoEnd(0)], value=10),
               _batch([], [VideoEnd(1, error), VideoEnd(2)])]
    outputs = list(run_windows(lambda inputs: 2 * inputs["frames"], batches))
    assert outputs == [
        (_row(0), 0), (_row(0, 8), 2), (_row(1), 20), VideoEnd(0),
        VideoEnd(1, error), VideoEnd(2)]


@pytest.mark.parametrize("is_ahead, order", [
    # No result is worked on while the device has nothing to do.
    (True, ["step 0", "step 1", "fetch 0", "step 2", "got 0", "fetch 1",
            "step 3", "got 1", "fetch 2", "fetch 3", "got 2", "got 3"]),
    (False, ["step 0", "fetch 0", "got 0", "step 1", "fetch 1", "got 1",
             "step 2", "fetch 2", "got 2", "step 3", "fetch 3", "got 3"])])
def test_the_next_batch_starts_before_a_result_is_awaited(is_ahead, order):
    seen = []

    def step(inputs):
        seen.append(f"step {inputs['frames'][0]}")
        return Output(inputs["frames"])

    class Output:
        def __init__(self, value):
            self._value = value

        def __array__(self, dtype=None, copy=None):
            seen.append(f"fetch {self._value[0]}")
            return self._value

    batches = [_batch([_row(number)], value=number) for number in range(4)]
    for _, output in run_windows(step, batches, is_ahead=is_ahead):
        seen.append(f"got {output}")
    assert seen == order


def test_a_process_takes_its_own_rows_of_a_global_output():
    batches = [_batch([_row(4), _row(5)], [VideoEnd(4)]),
               _batch([], [VideoEnd(5)])]
    outputs = list(run_windows(lambda inputs: np.arange(10, 18), batches,
                             output_rows=[2, 5]))
    assert outputs == [(_row(4), 12), (_row(5), 15), VideoEnd(4), VideoEnd(5)]


def test_segments_of_a_video_are_collected_in_its_seconds():
    # A sample every second frame of 25 a second; two samples a token.
    grid = timeline.sample_grid(25.0, 400, sampling="stride", frame_stride=2)
    videos = VideoSegments(
        [grid, grid], types.SimpleNamespace(samples=8, tokens=4))
    window = Segments(np.float32([[0.0, 1.0], [3.0, 5.0]]),
                      np.float32([0.9, 0.2]), np.int32([1, 0]),
                      np.bool([True, True]))
    videos.add(_row(0), window)
    videos.add(_row(0, 50), window)
    videos.add(_row(1), window)
    segments = videos.take(0)
    # The middle of token 0 is sample 1, which begins at second 2 / 25.
    first = np.array([[0.08, 0.24], [0.56, 0.88]])
    np.testing.assert_allclose(segments.segments,
                               np.concatenate([first, first + 4.0]))
    np.testing.assert_array_equal(segments.labels, [1, 0, 1, 0])
    assert len(videos.take(0).segments) == 0
    assert len(videos.take(1).segments) == 2
