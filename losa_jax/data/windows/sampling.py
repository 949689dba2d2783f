"""Which part of a video is fed at once: train crops and test windows.

Pure numpy, nothing is decoded here. A window is a stretch of samples
(`losa_jax.timeline`); actions come along in tokens of the head's grid.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from losa_jax import timeline
from losa_jax.data.records import Action, Video, VideoInfo, Window
from losa_jax.errors import InputError

# ActionFormer tries as often to find a crop that keeps an action.
MAX_CROP_TRIES = 200


def video_grid(info: VideoInfo, window: Any) -> timeline.SampleGrid:
    """The samples of a video under the config section `window`."""
    return timeline.sample_grid(
        info.fps, info.frame_count, sampling=window.sampling,
        frame_stride=window.frame_stride, sample_fps=window.sample_fps,
        window_samples=window.samples)


def test_windows(grid: timeline.SampleGrid, window_samples: int,
                 overlap: float, align: int = 1) -> list[Window]:
    """Sliding windows that together hold every sample of the video.

    The last window is shifted back to end with the video (AdaTAD's rule), so
    only a video shorter than one window is padded.
    Differs from OpenTAD: its window count can leave a tail uncovered when
    the overlap is below 0.5.

    Args:
      grid: the video's samples.
      window_samples: length of a window.
      overlap: share of a window that the next one sees again, in [0, 1).
      align: windows start at multiples of so many samples; the last one may
        then reach past the video's end, by less than that.
    """
    step = window_step(window_samples, overlap, align)
    total = grid.num_samples
    if total <= window_samples:
        return [Window(0, window_samples, total)]
    last = last_start(total, window_samples, align)
    starts = [*range(0, last, step), last]
    return [Window(start, window_samples,
                   min(window_samples, total - start)) for start in starts]


def test_windows_of(video: Video, config: Any) -> list[Window]:
    """The test windows of a video under a config.

    Args:
      config: the whole config (sections `window`, `head`).
    """
    settings = config.window
    if not settings.test_whole:
        return test_windows(video.grid, settings.samples, settings.overlap,
                            align=clip_alignment(settings))
    # Few lengths, each of which is compiled once.
    stride = 2 ** (config.head.num_levels - 1)
    unit = -(-settings.samples // 4 // stride) * stride
    total = video.grid.num_samples
    length = max(settings.samples, -(-total // unit) * unit)
    return [Window(0, length, total)]


def token_windows(windows: Sequence[Window], num_samples: int, tubelet: int
                  ) -> np.ndarray:
    """Which window each token of a video is taken from, int [tokens].

    Windows overlap; a token is taken from the one in whose middle it lies
    best, since a window's edges know one side only.

    Args:
      windows: of the video, starting at whole tokens.
      num_samples: of the video.
      tubelet: samples that a token stands for.
    """
    length = windows[0].num_samples // tubelet
    firsts = np.array([window.first_sample // tubelet for window in windows])
    tokens = np.arange(-(-num_samples // tubelet))
    distance = np.abs(tokens[:, None] - firsts - (length - 1) / 2)
    inside = (tokens[:, None] >= firsts) & (tokens[:, None] < firsts + length)
    return np.where(inside, distance, np.inf).argmin(axis=1)


def num_clips(num_samples: int, clip_frames: int, stride_frames: int) -> int:
    """Clips that lie inside a video, as VideoMAEv2 counts them; at least
    one, which repeats the last frame of a video that is shorter."""
    return max(1, (num_samples - clip_frames) // stride_frames + 1)


def clip_alignment(window: Any) -> int:
    """Samples at whose multiples windows start, by the section `window`."""
    return window.clip_samples if window.align_to_clips else 1


def window_step(window_samples: int, overlap: float, align: int = 1) -> int:
    """Samples from one window to the next; arguments as `test_windows`."""
    if not 0 <= overlap < 1:
        raise InputError(f"config.window.overlap={overlap}: must be at least "
                         "0 and below 1")
    return max(1, round(window_samples * (1 - overlap) / align)) * align


def last_start(total: int, window_samples: int, align: int = 1) -> int:
    """Where the last window of a longer video starts."""
    return _round_up(total - window_samples, align)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def train_window(grid: timeline.SampleGrid, actions: Sequence[Action],
                 window_samples: int, rng: np.random.Generator, *,
                 crop_ratio: tuple[float, float] | None,
                 min_action_kept: float, align: int = 1) -> Window:
    """A random window that keeps enough of at least one action.

    As ActionFormer and AdaTAD: a video longer than the window is cut at a
    random place; a shorter one to a random share of itself within
    `crop_ratio` (None: whole). Up to 200 draws look for a crop in which some
    action keeps `min_action_kept` of its length; the last draw stands
    otherwise (a video without actions is background, and that is worth
    learning too). Crops start, and end unless the video does, at multiples
    of `align` samples.
    """
    total = grid.num_samples
    window = Window(0, window_samples, min(total, window_samples))
    spans = [grid.samples_from_seconds(
        np.array([action.start_seconds, action.end_seconds]))
        for action in actions]
    for _ in range(MAX_CROP_TRIES):
        if total > window_samples:
            length = window_samples
        elif crop_ratio is not None:
            low, high = crop_ratio
            length = max(1, round(rng.uniform(low, high) * total))
            length = min(total, _round_up(length, align))
        else:
            length = total
        last = total - length
        # A video longer than the window may be cut up to its very end.
        last = _round_up(last, align) if total > window_samples else last
        first = align * int(rng.integers(0, last // align + 1))
        length = min(length, total - first)
        window = Window(first, window_samples, length)
        kept = [_kept_share(span, first, first + length) for span in spans]
        if not kept or max(kept) >= min_action_kept:
            break
    return window


def _kept_share(span: np.ndarray, first: float, last: float) -> float:
    inside = min(span[1], last) - max(span[0], first)
    return max(0.0, inside) / max(span[1] - span[0], 1e-9)


def window_actions(grid: timeline.SampleGrid, window: Window,
                   actions: Sequence[Action], class_names: Sequence[str], *,
                   samples_per_token: float, min_action_kept: float,
                   max_actions: int
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions of a window on the head's grid, padded to a fixed number.

    Actions that keep less than `min_action_kept` of their length are left
    out, others are cut to the window's real samples.

    Returns:
      segments: float32 [n, 2], token coordinates in the window.
      labels: int32 [n], index in `class_names`.
      valid: bool [n], False for padding.
    """
    first = window.first_sample
    last = first + window.valid_samples
    bounds = grid.seconds_from_samples(np.array([first, last]))
    segments = np.zeros((max_actions, 2), np.float32)
    labels = np.zeros(max_actions, np.int32)
    valid = np.zeros(max_actions, bool)
    row = 0
    for action in actions:
        span = grid.samples_from_seconds(
            np.array([action.start_seconds, action.end_seconds]))
        if _kept_share(span, first, last) < max(min_action_kept, 1e-9):
            continue
        seconds = np.clip([action.start_seconds, action.end_seconds],
                          bounds[0], bounds[1])
        segments[row] = timeline.tokens_from_seconds(
            seconds, grid, first, samples_per_token)
        labels[row] = class_names.index(action.label)
        valid[row] = True
        row += 1
    return segments, labels, valid
