"""What is given out early is what the whole video gives."""

import numpy as np
import pytest

from configs import common
from losa_jax.detection.merge import WindowFinds, merge_windows
from losa_jax.detection.online_nms import Settling

NAMES = ("a", "b")


def _settings(**changes):
    settings = common.get_config().evaluate
    settings.update(changes)
    return settings


def _finds(rng, first, count=12, length=10.0):
    start = first + rng.uniform(0, length - 1, count)
    end = np.minimum(start + rng.uniform(0.2, 4, count), first + length)
    return WindowFinds(np.stack([start, end], 1).astype(np.float32),
                       rng.uniform(0.01, 1, count).astype(np.float32),
                       rng.integers(0, 2, count))


def _stream(windows, settings):
    """Windows of 10 s every 5 s, as they come."""
    settling = Settling(NAMES, settings, memory_seconds=10.0)
    given = []
    for number, finds in enumerate(windows):
        settling.add(finds)
        given.append(settling.settle(5.0 * number))
    given.append(settling.settle(np.inf))
    return given


@pytest.mark.parametrize("changes", [
    {}, {"nms": "hard"}, {"nms_per_class": False},
    {"nms_per_class": False, "voting_threshold": 0.7},
], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_as_of_the_whole_video(changes, seed):
    # No window finds what starts before it.
    rng = np.random.default_rng(seed)
    settings = _settings(**changes)
    windows = [_finds(rng, 5.0 * number) for number in range(6)]
    given = [one for part in _stream(windows, settings) for one in part]
    whole = merge_windows(windows, NAMES, settings)
    assert len(given) == len(whole) > 10
    for one, other in zip(sorted(given), sorted(whole), strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(one[:2], other[:2], atol=1e-5)
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_each_is_given_once_and_as_early_as_is_safe():
    rng = np.random.default_rng(7)
    given = _stream([_finds(rng, 5.0 * number) for number in range(20)],
                    _settings(nms="hard", nms_iou_threshold=0.1))
    for number, part in enumerate(given[:-1]):
        assert all(one.end_seconds <= 5.0 * number for one in part)
        assert all(one.end_seconds > 5.0 * (number - 1) for one in part
                   ) or number == 0
    every = sorted(one for part in given for one in part)
    assert len(set(every)) == len(every)


def test_a_late_find_does_not_repeat_what_was_given():
    segments = np.array([[2, 6]], np.float32)

    def finds(score):
        return WindowFinds(segments, np.array([score], np.float32),
                           np.array([0]))

    settings = _settings(nms="hard", nms_iou_threshold=0.5)
    settling = Settling(NAMES, settings, memory_seconds=10.0)
    settling.add(finds(0.5))
    assert [one[:2] for one in settling.settle(7.0)] == [(2.0, 6.0)]
    settling.add(finds(0.9))
    assert settling.settle(np.inf) == []


def test_the_end_cuts_what_waits():
    settling = Settling(NAMES, _settings(), memory_seconds=10.0)
    settling.add(WindowFinds(np.array([[2, 9], [7, 9]], np.float32),
                             np.array([0.5, 0.9], np.float32),
                             np.array([0, 1])))
    settling.cut(6.5)
    one, = settling.settle(np.inf)
    assert one[:3] == (2.0, 6.5, "a")
