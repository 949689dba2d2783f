"""Frames and windows of videos as arrays, and feature files, for tests."""

import numpy as np

from configs import common
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import augment


def read_frames(path, frame_indices, info=None):
    """Frames in any order, repeats allowed: uint8 [f, H, W, 3]."""
    info = info or probe_video(path)
    wanted, inverse = np.unique(np.asarray(frame_indices, np.int64),
                                return_inverse=True)
    frames = [frame.rgb() for frame in iterate_frames(
        path, wanted, info, skip_unneeded=True)]
    return np.stack([np.zeros((info.height, info.width, 3), np.uint8),
                     *frames])[1 + inverse]


def read_window(cache, video, window, view=None):
    """What a `FrameCache` reads of a window: uint8 [f, H, W, 3]."""
    frames, _ = cache.frames(video, window.frame_indices(video.grid),
                             skip_unneeded=True)
    return np.stack([frame.rgb() if view is None else view(frame, i)
                     for i, frame in enumerate(frames)])


def views_of_testing(frames, size, resize):
    return np.stack([augment.test_view(frame, size, resize)
                     for frame in frames])


def feature_settings(folder, stride_frames, clip_frames, width):
    """The config section `features`."""
    settings = common.get_config().features
    settings.folder = str(folder)
    settings.stride_frames = float(stride_frames)
    settings.clip_frames = float(clip_frames)
    settings.width = width
    return settings
