"""Windows in one pass are the windows that evaluation reads."""

import threading

import numpy as np
import pytest

from configs import quick
from losa_jax import timeline
from losa_jax.data.records import Video
from losa_jax.data.synthetic import data_set
from losa_jax.data.video import decode
from losa_jax.data.video.decode import probe_video
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import examples, sampling, stream
from losa_jax.data.windows.sampling import video_grid


@pytest.fixture(scope="module")
def config():
    config = quick.get_config()
    config.window.frames = config.window.tokens = 32
    config.augment.size = 16
    return config


@pytest.fixture(scope="module")
def videos(config, tmp_path_factory):
    folder = data_set.render_untrimmed_set(
        tmp_path_factory.mktemp("stream") / "set", num_training=2,
        num_testing=1, size=32, progress=False)
    found = []
    for path in sorted((folder / "videos").glob("*.mp4")):
        info = probe_video(path)
        found.append(Video(path.stem, info,
                                 video_grid(info, config.window), ()))
    return found


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("total", [1, 15, 63, 64, 65, 100, 127, 128, 1151])
def test_windows_that_do_not_know_the_end(total, overlap, align, config):
    window = config.copy_and_resolve_references().window
    window.frames, window.overlap, window.align_to_clips = 64, overlap, align
    grid = timeline.sample_grid(10.0, total, sampling="stride",
                                frame_stride=1)
    expected = sampling.test_windows(grid, 64, overlap,
                                    examples.clip_alignment(window))
    found = list(stream.sliding_windows(
        (np.array([i]) for i in range(total)), window))
    assert [place for place, _ in found] == expected
    for place, frames in found:
        np.testing.assert_array_equal(frames[:, 0],
                                      place.frame_indices(grid))


def test_no_samples_are_no_windows(config):
    assert list(stream.sliding_windows([], config.window)) == []


@pytest.mark.parametrize("sampling, fps", [("fps", 10.0), ("fps", 60.0),
                                           ("resize", 0.0)])
def test_frames_are_those_of_the_evaluation(videos, config, sampling, fps):
    other = config.copy_and_resolve_references()
    other.window.sampling, other.window.sample_fps = sampling, fps
    sources = [Video(one.video_id, one.info,
                           video_grid(one.info, other.window), ())
               for one in videos]
    reader = examples.TestWindows(sources, other, cache=FrameCache(0))
    left = dict(enumerate(reader.items))
    ends = []
    for item in stream.stream_windows(sources, other, num_threads=2):
        if isinstance(item, stream.VideoEnd):
            ends.append(item)
            continue
        number = next(number for number, (video_number, window)
                      in left.items() if video_number == item.video_number)
        assert left.pop(number)[1] == item.window
        np.testing.assert_array_equal(item.frames, reader(number)["frames"])
    assert not left
    assert sorted(end.video_number for end in ends) == [0, 1, 2]
    assert all(end.error is None for end in ends)


def test_a_video_is_opened_once_and_read_forward(videos, config,
                                                 monkeypatch):
    opened, asked = [], []
    real_open, real_next = decode.open_video, decode.decode_packets

    def counted(packets):
        for picture in real_next(packets):
            asked.append(picture.pts)
            yield picture

    monkeypatch.setattr(decode, "open_video", lambda path, threads: (
        opened.append(path), real_open(path, threads))[1])
    monkeypatch.setattr(decode, "decode_packets", counted)
    list(stream.stream_windows(videos[:1], config, num_threads=1))
    assert opened == [videos[0].path]
    assert asked == sorted(set(asked))  # half of each window is seen twice
    assert len(asked) == videos[0].info.frame_count


def test_a_damaged_video_ends_with_its_reason(videos, config, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    content = videos[0].path.read_bytes()
    middle = len(content) * 2 // 3
    damaged.write_bytes(content[:middle] + bytes(len(content) - middle))
    info = videos[0].info.__class__(**{
        **vars(videos[0].info), "path": damaged})
    sources = [Video("damaged", info, videos[0].grid, ()), videos[1]]
    items = list(stream.stream_windows(sources, config, num_threads=1))
    ends = {item.video_number: item.error for item in items
            if isinstance(item, stream.VideoEnd)}
    assert "damaged.mp4" in str(ends[0]) and ends[1] is None
    assert sum(not isinstance(item, stream.VideoEnd)
               and item.video_number == 1 for item in items) == len(
        sampling.test_windows(videos[1].grid, 32, 0.5))


def test_memory_does_not_grow_with_the_length(config):
    alive, most = set(), [0]

    class Sample(np.ndarray):
        def __new__(cls, number):
            self = np.zeros(1).view(cls)
            self.number = number
            alive.add(number)
            most[0] = max(most[0], len(alive))
            return self

        def __del__(self):
            alive.discard(getattr(self, "number", None))

    for _ in stream.sliding_windows(map(Sample, range(1000)), config.window):
        pass
    assert most[0] <= config.window.frames + 2


def test_who_stops_early_leaves_no_thread(videos, config):
    before = threading.active_count()
    items = stream.stream_windows(videos, config, num_threads=2)
    next(items)
    assert threading.active_count() > before
    items.close()
    assert threading.active_count() == before


def test_an_error_of_a_reader_reaches_the_caller():
    def broken():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(stream.read_ahead([broken()], num_threads=1, queue_size=1))
