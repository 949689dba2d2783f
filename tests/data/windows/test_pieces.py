"""Pieces of videos against pictures cut out one by one; records."""

import json
from pathlib import Path

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.features.record import (
    read_record,
    record_path,
    write_record,
)
from losa_jax.data.records import Video, VideoInfo
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import stream
from losa_jax.data.windows.pieces import (
    clip_pieces,
    ending_in_errors,
    num_clips,
    window_pieces,
)
from losa_jax.errors import InputError

VIDEOS = 16  # pixels of a side


def _video(frame_count, fps=30.0, **sampling):
    info = VideoInfo(Path("v.mp4"), fps, frame_count, frame_count / fps,
                     VIDEOS, VIDEOS)
    grid = timeline.sample_grid(fps, frame_count,
                                **{"sampling": "stride", **sampling})
    return Video("v", info, grid, ())


@pytest.fixture
def decoded(monkeypatch):
    """Pictures that are their own frame number; returns what was decoded."""
    asked = []

    def iterate(path, frame_indices, *, info, threads):
        assert np.all(np.diff(frame_indices) >= 0)
        picture = np.zeros((VIDEOS, VIDEOS, 3), np.uint8)
        for i, frame_index in enumerate(frame_indices):
            if i == 0 or frame_index != frame_indices[i - 1]:
                asked.append(int(frame_index))
                picture = np.full_like(picture, frame_index)
            yield picture

    monkeypatch.setattr(stream, "iterate_frames", iterate)
    return asked


@pytest.mark.parametrize("frames, stride, sampling, want", [
    # VideoMAEv2's range(0, frames - 15, stride).
    (100, 4, {}, [range(i, i + 16) for i in range(0, 85, 4)]),
    (100, 16, {}, [range(i, i + 16) for i in range(0, 85, 16)]),
    (100, 40, {}, [range(i, i + 16) for i in range(0, 85, 40)]),
    (17, 4, {}, [range(16)]),
    # Shorter than a clip: the last picture again.
    (10, 4, {}, [[*range(10)] + [9] * 6]),
    # 15 of 30 a second; sample i shows the frame in its middle.
    (100, 4, {"sampling": "fps", "sample_fps": 15.0},
     [range(2 * i + 1, 2 * i + 33, 2) for i in range(0, 35, 4)]),
])
def test_clips_are_the_frames_they_should_be(decoded, frames, stride,
                                             sampling, want):
    video = _video(frames, **sampling)
    pieces = list(clip_pieces(video, clip_frames=16, stride_frames=stride,
                              batch_clips=3, size=8, resize="squash"))
    assert num_clips(video.grid.num_samples, 16, stride) == len(want)
    got = {}
    for piece in pieces:
        assert piece.inputs["clips"].shape == (3, 16, 8, 8, 3)
        for row, place in zip(piece.take, piece.put, strict=True):
            got[place] = piece.inputs["clips"][row, :, 0, 0, 0].tolist()
    assert [got[i] for i in range(len(want))] == [list(c) for c in want]
    assert [piece.is_last for piece in pieces] == (
        [False] * (len(pieces) - 1) + [True])
    # Each frame is decoded once, those that no clip shows never.
    assert decoded == sorted({frame for clip in want for frame in clip})


def test_tokens_come_from_the_window_that_holds_them_best(monkeypatch):
    monkeypatch.setattr(
        FrameCache, "read_window",
        lambda self, video, window, view, size: np.repeat(window.frame_indices(
            video.grid), 8 * 8 * 3).reshape(-1, 8, 8, 3).astype(np.uint8))

    class Section:
        frames, overlap, clip_frames = 32, 0.5, 8

    pieces = list(window_pieces(
        _video(101), Section, tubelet=2, batch_windows=2, size=8,
        resize="squash"))
    # Windows begin at 0, 16, 32, 48, 64 and 72.
    assert [piece.is_last for piece in pieces] == [False, False, True]
    frame_of, window_of = {}, {}
    for i, piece in enumerate(pieces):
        tokens = piece.inputs["frames"][:, ::2, 0, 0, 0].reshape(-1)
        for row, place in zip(piece.take, piece.put, strict=True):
            assert place not in frame_of
            frame_of[place] = int(tokens[row])
            window_of[place] = 2 * i + row // 16
    assert [frame_of[i] for i in range(51)] == [2 * i for i in range(51)]
    # The first half of a window's surplus goes to the one before it.
    assert [window_of[i] for i in (0, 11, 12, 19, 20, 37, 50)] == [
        0, 0, 1, 1, 2, 4, 5]
    assert pieces[-1].inputs["valid_samples"].tolist() == [32, 29]


def test_a_video_that_breaks_ends_in_its_error():
    def pieces():
        yield "first"
        raise VideoDecodeError("frame 7")

    got = list(ending_in_errors(_video(9), pieces()))
    assert got[0] == "first" and len(got) == 2
    assert (got[1].is_last, str(got[1].error)) == (True, "frame 7")


def test_records_of_several_processes_are_one(tmp_path):
    facts = {"stride_frames": 4, "width": 8}
    entry = {"fps": 30.0, "frame_count": 90, "length": 19}
    assert read_record(tmp_path) is None
    write_record(tmp_path, facts, {"a": entry}, {"x": "empty"}, 0)
    write_record(tmp_path, facts, {"b": entry}, {}, 1)
    write_record(tmp_path, facts, {"c": entry}, {}, 1)
    record = read_record(tmp_path)
    assert (record.facts, sorted(record.videos)) == (facts, ["a", "b", "c"])
    assert json.loads(record_path(tmp_path).read_text())["broken"] == {
        "x": "empty"}
    with pytest.raises(InputError, match=r"width=8 \(asked for 16\)"):
        write_record(tmp_path, {**facts, "width": 16}, {}, {}, 0)
    record_path(tmp_path).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_record(tmp_path)
