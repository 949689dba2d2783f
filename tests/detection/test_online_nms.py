"""Early detections equal those of the whole video."""

import numpy as np
import pytest

from losa_jax.detection.nms import NmsSettings, suppress
from losa_jax.detection.online_nms import OnlineNms
from losa_jax.detection.segments import Segments, detections, joined

NAMES = ("a", "b")


def _settings(**changes):
    return NmsSettings(**{"sigma": 0.7, **changes})


def _segments(segments, scores, labels):
    return Segments(np.float32(segments), np.float32(scores),
                    np.asarray(labels), np.ones(len(scores), bool))


def _window(rng, first, count=12, length=10.0):
    start = first + rng.uniform(0, length - 1, count)
    end = np.minimum(start + rng.uniform(0.2, 4, count), first + length)
    return _segments(np.stack([start, end], 1), rng.uniform(0.01, 1, count),
                     rng.integers(0, 2, count))


def _stream(windows, settings):
    """Windows of 10 s every 5 s, as they come."""
    online = OnlineNms(NAMES, settings, memory_seconds=10.0)
    given = []
    for number, window in enumerate(windows):
        online.add(window)
        given.append(online.final_before(5.0 * number))
    given.append(online.final_before(np.inf))
    return given


@pytest.mark.parametrize("changes", [
    {}, {"method": "hard"}, {"per_class": False},
    {"per_class": False, "voting_threshold": 0.7},
], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_early_detections_equal_those_of_the_whole_video(changes, seed):
    # No window detects an action that starts before the window.
    rng = np.random.default_rng(seed)
    settings = _settings(**changes)
    windows = [_window(rng, 5.0 * number) for number in range(6)]
    given = [one for part in _stream(windows, settings) for one in part]
    left, _ = suppress(joined(windows), len(NAMES), settings)
    whole = detections(left, NAMES)
    assert len(given) == len(whole) > 10
    for one, other in zip(sorted(given), sorted(whole), strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(one[:2], other[:2], atol=1e-5)
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_each_detection_is_returned_once_and_as_early_as_is_safe():
    rng = np.random.default_rng(7)
    given = _stream([_window(rng, 5.0 * number) for number in range(20)],
                    _settings(method="hard", iou_threshold=0.1))
    for number, part in enumerate(given[:-1]):
        assert all(one.end_seconds <= 5.0 * number for one in part)
        assert all(one.end_seconds > 5.0 * (number - 1) for one in part
                   ) or number == 0
    every = sorted(one for part in given for one in part)
    assert len(set(every)) == len(every)


def test_a_late_detection_does_not_repeat_a_returned_one():
    segments = np.array([[2, 6]], np.float32)

    def window(score):
        return _segments(segments, [score], [0])

    settings = _settings(method="hard", iou_threshold=0.5)
    online = OnlineNms(NAMES, settings, memory_seconds=10.0)
    online.add(window(0.5))
    assert [one[:2] for one in online.final_before(7.0)] == [(2.0, 6.0)]
    online.add(window(0.9))
    assert online.final_before(np.inf) == []


@pytest.mark.parametrize("voting_threshold", [0.0, 0.7])
@pytest.mark.parametrize("is_empty", [False, True])
def test_memory_does_not_grow_with_the_video(voting_threshold, is_empty):
    rng = np.random.default_rng(0)
    online = OnlineNms(NAMES, _settings(
        per_class=False, voting_threshold=voting_threshold), 10.0)
    most = []
    for number in range(60):
        if not (is_empty and number):
            online.add(_window(rng, 5.0 * number))
        online.final_before(5.0 * number)
        most.append(sum(len(part.scores) for part in (
            online._open, online._picked, online._voters)))
    assert max(most[30:]) <= (0 if is_empty else max(most[:30]) + 12)


def test_open_candidates_are_cut_to_the_length_of_the_video():
    online = OnlineNms(NAMES, _settings(), memory_seconds=10.0)
    online.add(_segments([[2, 9], [7, 9]], [0.5, 0.9], [0, 1]))
    online.cut(6.5)
    one, = online.final_before(np.inf)
    assert one[:3] == (2.0, 6.5, "a")
