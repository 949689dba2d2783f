"""Which samples of a video are a window: training crops and test windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from losa_jax import timeline
from losa_jax.data.records import Action, Video, VideoInfo, Window
from losa_jax.errors import InputError

# ActionFormer's number of draws for a crop that keeps an action.
MAX_CROP_TRIES = 200


def video_grid(info: VideoInfo, window: Any) -> timeline.SampleGrid:
    """Returns the samples of a video under the config section `window`."""
    return timeline.sample_grid(
        info.fps, info.frame_count, sampling=window.sampling,
        frame_stride=window.frame_stride, sample_fps=window.sample_fps,
        window_samples=window.samples)


def test_windows(grid: timeline.SampleGrid, window_samples: int,
                 overlap: float, align: int = 1) -> list[Window]:
    """Returns sliding windows that together hold every sample of a video.

    The last window is shifted back to end with the video (AdaTAD's rule), so
    only a video shorter than one window is padded. Differs from OpenTAD,
    which can leave a tail uncovered when the overlap is below 0.5.

    `overlap` is the share of a window that is in the next one too, in [0, 1).
    Windows start at multiples of `align` samples; the last one may then reach
    past the video's end, by less than that.
    """
    step = window_step(window_samples, overlap, align)
    total = grid.num_samples
    last = round_up(max(0, total - window_samples), align)
    return [Window(start, window_samples, min(window_samples, total - start))
            for start in [*range(0, last, step), last]]


def test_windows_of(video: Video, config: Any) -> list[Window]:
    """Returns the test windows of a video under a whole config."""
    settings = config.window
    if not settings.test_whole:
        return test_windows(video.grid, settings.samples, settings.overlap,
                            align=clip_alignment(settings))
    # Few lengths, each of which is compiled once.
    unit = round_up(-(-settings.samples // 4),
                    2 ** (config.head.num_levels - 1))
    total = video.grid.num_samples
    return [Window(0, max(settings.samples, round_up(total, unit)), total)]


def token_windows(windows: Sequence[Window], num_samples: int, tubelet: int
                  ) -> np.ndarray:
    """Returns the window that each token of a video, of `tubelet` samples, is
    taken from, int [tokens]: the one whose middle is nearest, because a
    window's edges know one side only."""
    length = windows[0].num_samples // tubelet
    firsts = np.array([window.first_sample // tubelet for window in windows])
    tokens = np.arange(-(-num_samples // tubelet))
    distance = np.abs(tokens[:, None] - firsts - (length - 1) / 2)
    inside = (tokens[:, None] >= firsts) & (tokens[:, None] < firsts + length)
    return np.where(inside, distance, np.inf).argmin(axis=1)


def num_clips(num_samples: int, clip_frames: int, stride_frames: int) -> int:
    """Returns the number of clips inside a video (VideoMAEv2), at least one."""
    return max(1, (num_samples - clip_frames) // stride_frames + 1)


def clip_step(window: Any) -> int:
    """Samples from one clip to the next, by the section `window`."""
    return window.clip_samples - window.clip_overlap


def clip_alignment(window: Any) -> int:
    """Samples at whose multiples windows start, by the section `window`."""
    return window.clip_samples if window.align_to_clips else 1


def window_step(window_samples: int, overlap: float, align: int = 1) -> int:
    """Samples from one window to the next; arguments as `test_windows`."""
    if not 0 <= overlap < 1:
        raise InputError(f"config.window.overlap={overlap}: must be at least "
                         "0 and below 1")
    return max(1, round(window_samples * (1 - overlap) / align)) * align


def round_up(number: int, multiple: int) -> int:
    """Returns the next multiple."""
    return -(-number // multiple) * multiple


def train_window(grid: timeline.SampleGrid, actions: Sequence[Action],
                 window_samples: int, rng: np.random.Generator, *,
                 crop_ratio: tuple[float, float] | None,
                 min_action_kept: float, align: int = 1) -> Window:
    """Draws a window that keeps enough of at least one of the `actions`, which
    may also be hard negatives.

    As ActionFormer and AdaTAD: a video longer than the window is cropped at
    a random place; a shorter one to a random share of itself within
    `crop_ratio` (None: all of it). If in no try an action keeps
    `min_action_kept` of its length, the last crop is used. Crops start at
    multiples of `align` samples, and end at one or at the end.
    """
    total = grid.num_samples
    window = Window(0, window_samples, min(total, window_samples))
    spans = [_span(grid, action) for action in actions]
    for _ in range(MAX_CROP_TRIES):
        length = min(total, window_samples)
        if total <= window_samples and crop_ratio is not None:
            length = max(1, round(rng.uniform(*crop_ratio) * total))
            length = min(total, round_up(length, align))
        last = total - length
        # A video longer than the window may be cropped up to its very end.
        last = round_up(last, align) if total > window_samples else last
        first = align * int(rng.integers(0, last // align + 1))
        length = min(length, total - first)
        window = Window(first, window_samples, length)
        kept = [_kept_share(span, first, first + length) for span in spans]
        if not kept or max(kept) >= min_action_kept:
            break
    return window


def _span(grid: timeline.SampleGrid, action: Action) -> np.ndarray:
    return grid.samples_from_seconds(np.array(action[:2]))


def _kept_share(span: np.ndarray, first: float, last: float) -> float:
    inside = min(span[1], last) - max(span[0], first)
    return max(0.0, inside) / max(span[1] - span[0], 1e-9)


def window_actions(grid: timeline.SampleGrid, window: Window,
                   actions: Sequence[Action], class_names: Sequence[str], *,
                   samples_per_token: float, min_action_kept: float,
                   max_actions: int
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the actions of a window, padded to a fixed number: segments,
    float32 [n, 2], in tokens; labels, int32 [n]; valid, bool [n].

    Actions that keep less than `min_action_kept` of their length are left
    out, others are clipped to the window's real samples.
    """
    first = window.first_sample
    last = first + window.valid_samples
    bounds = grid.seconds_from_samples(np.array([first, last]))
    segments = np.zeros((max_actions, 2), np.float32)
    labels = np.zeros(max_actions, np.int32)
    kept = [action for action in actions
            if _kept_share(_span(grid, action), first, last)
            >= max(min_action_kept, 1e-9)]
    for row, action in enumerate(kept):
        segments[row] = timeline.tokens_from_seconds(
            np.clip(action[:2], *bounds), grid, first, samples_per_token)
        labels[row] = class_names.index(action.label)
    return segments, labels, np.arange(max_actions) < len(kept)
