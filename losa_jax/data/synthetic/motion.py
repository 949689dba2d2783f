"""How the main object of a synthetic video moves, and when an action is.

Eight action classes in four pairs: the two of a pair show the same poses in
another order, so no single frame, and often no single clip, tells them apart.
Twelve motion classes, each a single motion, for clips to pre-train on, and
twelve others, which have no part of an action and no circle.
Lengths are in pixels of a frame `STAGE` wide; time is continuous seconds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

STAGE = 64.0
FRAME_RATES = (20, 24, 25, 30)

# name -> (axis of the pose, direction of the first half)
_SWINGS = {
    "right_then_left": (0, 1), "left_then_right": (0, -1),
    "down_then_up": (1, 1), "up_then_down": (1, -1),
    "grow_then_shrink": (2, 1), "shrink_then_grow": (2, -1),
}
# name -> sense of rotation (y points down, so clockwise is positive)
_CIRCLES = {"clockwise": 1, "counter_clockwise": -1}
_SLIDES = {
    "slide_right": (0, 1), "slide_left": (0, -1),
    "slide_down": (1, 1), "slide_up": (1, -1),
    "grow": (2, 1), "shrink": (2, -1),
}
ACTION_CLASSES = (*_SWINGS, *_CIRCLES)
MOTION_CLASSES = (*_SLIDES, *_CIRCLES, "shake", "bounce", "wander", "still")
# name -> direction along x and y
_DIAGONALS = {"to_upper_left": (-1, -1), "to_upper_right": (1, -1),
              "to_lower_left": (-1, 1), "to_lower_right": (1, 1)}
OTHER_CLASSES = (*_DIAGONALS, "zigzag", "figure_eight", "square", "spiral_out",
                 "spiral_in", "pulse", "shake", "bounce")

_ACTION_SECONDS = (0.5, 8.0)
_VIDEO_SECONDS = (20.0, 32.0)
_CLIP_SECONDS = (2.0, 2.5)
_LABELED_SHARE = (0.3, 0.42)
# The object rests at least this long on both sides of an action, so that the
# boundary is visible; an unlabeled move in between takes this long.
_REST_SECONDS = 0.6
_MOVE_SECONDS = (1.0, 3.0)
_GAP_SECONDS = 2 * _REST_SECONDS + _MOVE_SECONDS[0]

# Maps shares of a duration, 0 to 1, [f] to poses [f, 3] (x and y in stage
# pixels, log radius) or to some of their columns.
PosePath = Callable[[np.ndarray], np.ndarray]
# Draws the path of one of the named motions.
PathOf = Callable[[np.random.Generator, str], PosePath]


class Piece(NamedTuple):
    """A stretch of the main object's motion."""

    duration_seconds: float
    path: PosePath  # the pose at each share of the duration
    opacity: tuple[float, float] = (1.0, 1.0)  # at its start and its end


class Plan(NamedTuple):
    """What happens in one video."""

    fps: int
    frame_count: int
    pieces: tuple[Piece, ...]  # from the first frame to the last
    # (class index, start seconds, end seconds), in time order.
    actions: tuple[tuple[int, float, float], ...]


def plan_untrimmed(rng: np.random.Generator) -> Plan:
    """Draws what happens in an untrimmed video."""
    fps = int(rng.choice(FRAME_RATES))
    while True:
        low, high = np.log(_ACTION_SECONDS)
        lengths = np.exp(rng.uniform(low, high, int(rng.integers(3, 7))))
        labeled = float(lengths.sum())
        seconds = float(np.clip(
            labeled / rng.uniform(*_LABELED_SHARE), *_VIDEO_SECONDS))
        seconds = round(seconds * fps) / fps
        if labeled < seconds / 2 and spare_seconds(lengths, seconds) > 0:
            break
    return Plan(fps, round(seconds * fps), *arrange(
        rng, lengths, seconds, ACTION_CLASSES, action_path))


def arrange(rng: np.random.Generator, lengths: np.ndarray, seconds: float,
            names: Sequence[str], path_of: PathOf
            ) -> tuple[tuple[Piece, ...],
                       tuple[tuple[int, float, float], ...]]:
    """Returns pieces and actions of a `Plan`: actions of these lengths in
    seconds, of random classes, with gaps that fill the video.

    The video has `spare_seconds`.
    """
    spare = spare_seconds(lengths, seconds)
    gaps = _GAP_SECONDS + spare * rng.dirichlet(np.ones(len(lengths) + 1))
    classes = rng.integers(len(names), size=len(lengths))
    paths = [path_of(rng, names[index]) for index in classes]

    pieces, actions, now = [], [], 0.0
    pose = _Stance(rng).rest
    for index, path, gap, length in zip(
            classes, paths, gaps[:-1], lengths, strict=True):
        pieces += _gap_pieces(rng, pose, path(np.zeros(1))[0], gap)
        pieces.append(Piece(length, path))
        actions.append((int(index), now + gap, now + gap + length))
        now += gap + length
        pose = path(np.ones(1))[0]
    pieces += _gap_pieces(rng, pose, _Stance(rng).rest, gaps[-1])
    return tuple(pieces), tuple(actions)


def spare_seconds(lengths: np.ndarray, seconds: float) -> float:
    """Returns what a video has beside actions of these lengths and the
    shortest gaps."""
    return seconds - float(lengths.sum()) - (len(lengths) + 1) * _GAP_SECONDS


def plan_trimmed(rng: np.random.Generator) -> Plan:
    """Draws what happens in a trimmed clip."""
    fps = int(rng.choice(FRAME_RATES))
    frame_count = round(rng.uniform(*_CLIP_SECONDS) * fps)
    seconds = frame_count / fps
    index = int(rng.integers(len(MOTION_CLASSES)))
    name, stance = MOTION_CLASSES[index], _Stance(rng)
    if name in _SLIDES:
        axis, direction = _SLIDES[name]
        reach = direction * stance.half[axis]
        path = stance.move(axis, lambda u: reach * (2 * _ramp(u) - 1))
        length = log_uniform(rng, (0.4, seconds))
        # Near the middle, so that a shorter crop of the clip still shows it.
        before = (seconds - length) * rng.uniform(0.4, 0.6)
        pieces = (
            Piece(before, _hold(path(np.zeros(1))[0])),
            Piece(length, path),
            Piece(seconds - before - length, _hold(path(np.ones(1))[0])))
        return Plan(fps, frame_count, pieces, ((index, 0.0, seconds),))
    if name in _CIRCLES:
        turns = _CIRCLES[name] * seconds / log_uniform(rng, (0.7, 4.0))
        path = stance.circle(rng.uniform(0, 2 * np.pi), turns)
    elif name == "shake":
        path = _shake(rng, stance.rest, seconds)
    elif name == "bounce":
        path = _bounce(rng, stance.rest, seconds)
    elif name == "wander":
        path = _wander(rng, stance.rest, stance.rest)
    else:
        path = _hold(stance.rest)
    return Plan(fps, frame_count, (Piece(seconds, path),),
                ((index, 0.0, seconds),))


def plan_other_trimmed(rng: np.random.Generator) -> Plan:
    """Draws a trimmed clip of one of `OTHER_CLASSES`."""
    fps = int(rng.choice(FRAME_RATES))
    frame_count = round(rng.uniform(*_CLIP_SECONDS) * fps)
    seconds = frame_count / fps
    index = int(rng.integers(len(OTHER_CLASSES)))
    path = other_path(rng, OTHER_CLASSES[index])
    return Plan(fps, frame_count, (Piece(seconds, path),),
                ((index, 0.0, seconds),))


def resting(rng: np.random.Generator, fps: int, frame_count: int) -> Plan:
    """Draws where an object rests that does not move."""
    return Plan(fps, frame_count, (
        Piece(frame_count / fps, _hold(_Stance(rng).rest)),), ())


def other_path(rng: np.random.Generator, name: str) -> PosePath:
    """Returns the path of one of `OTHER_CLASSES`, which takes about 2 s."""
    stance = _Stance(rng)
    half = stance.half[0]
    if name == "shake":
        return _shake(rng, stance.rest, 2.0)
    if name == "bounce":
        return _bounce(rng, stance.rest, 2.0)
    if name == "pulse":
        beats = rng.integers(2, 5)
        return stance.move(2, lambda u: stance.half[2] * np.sin(
            2 * np.pi * beats * u))
    if name == "square":
        corners = half * np.array(
            [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
        corners = corners[::rng.choice([-1, 1])]
        return stance.move(slice(2), lambda u: np.stack([
            np.interp(4 * u, np.arange(5), side) for side in corners.T], 1))
    if name in _DIAGONALS:
        direction = half * np.array(_DIAGONALS[name])
        return stance.move(slice(2), lambda u: np.outer(
            2 * _ramp(u) - 1, direction))
    turns, sense = rng.uniform(1.5, 2.5), rng.choice([-1, 1])

    def course(u: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * turns * u * sense
        if name == "zigzag":
            x, y = (2 * u - 1) * sense, np.sin(2 * angle)
        elif name == "figure_eight":
            x, y = np.sin(angle), np.sin(2 * angle)
        else:
            reach = u if name == "spiral_out" else 1 - u
            x, y = reach * np.cos(angle), reach * np.sin(angle)
        return half * np.stack([x, y], axis=1)

    return stance.move(slice(2), course)


def follow(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Returns the main object's poses [f, 3] (x, y, log radius) and opacity
    [f]; frame i shows the moment i / fps."""
    seconds = np.arange(plan.frame_count) / plan.fps
    lengths = np.array([piece.duration_seconds for piece in plan.pieces])
    ends = np.cumsum(lengths)
    index = np.minimum(
        np.searchsorted(ends, seconds, side="right"), len(ends) - 1)
    share = (seconds - ends[index]) / lengths[index] + 1
    poses = np.empty((len(seconds), 3))
    opacity = np.empty(len(seconds))
    for piece_index, piece in enumerate(plan.pieces):
        here = index == piece_index
        poses[here] = piece.path(share[here])
        opacity[here] = np.interp(share[here], (0, 1), piece.opacity)
    return poses, opacity


class _Stance:
    """Where an object is and how far it reaches, drawn alike for all classes.

    Each axis of the pose stays within center - half .. center + half. `rest`,
    for axes that do not move, is distributed as a moving axis is over time, so
    that no single frame reveals the class.
    """

    def __init__(self, rng: np.random.Generator):
        reach = rng.uniform(9, 14)
        self.half = np.array([reach, reach, rng.uniform(0.25, 0.4)])
        # 12 pixels from the edge even a large object is mostly visible.
        middle = STAGE / 2
        play = middle - 12 - reach
        self.center = np.array([
            middle + rng.uniform(-play, play),
            middle + rng.uniform(-play, play),
            rng.uniform(np.log(7.0), np.log(8.5))])
        self.rest = self.center + self.half * (
            2 * _ramp(rng.uniform(size=3)) - 1)

    def move(self, axis: int | slice, course: PosePath) -> PosePath:
        """Moves one axis, or x and y, along a course of offsets from the
        center."""
        def path(u: np.ndarray) -> np.ndarray:
            poses = np.tile(self.rest, (len(u), 1))
            poses[:, axis] = self.center[axis] + course(u)
            return poses

        return path

    def circle(self, start: float, turns: float) -> PosePath:
        """Circles the center; a positive number of turns is clockwise."""
        def course(u: np.ndarray) -> np.ndarray:
            # With this radius x and y vary as much as they do in a slide.
            radius = np.sqrt(2 / 3) * self.half[0]
            angle = start + 2 * np.pi * turns * u
            return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

        return self.move(slice(2), course)


def action_path(rng: np.random.Generator, name: str) -> PosePath:
    """Returns the path of one action; it ends where it began."""
    stance = _Stance(rng)
    if name in _CIRCLES:
        circle = stance.circle(rng.uniform(0, 2 * np.pi), _CIRCLES[name])
        return lambda u: circle(_ramp(u))
    axis, direction = _SWINGS[name]
    reach, turn = direction * stance.half[axis], rng.uniform(0.4, 0.6)
    return stance.move(axis, lambda u: reach * (2 * np.where(
        u < turn, _ramp(u / turn), _ramp((1 - u) / (1 - turn))) - 1))


def _gap_pieces(rng: np.random.Generator, start: np.ndarray, end: np.ndarray,
                seconds: float) -> list[Piece]:
    """Unlabeled time between two poses [3]: rest, a one-way move, rest."""
    spare = seconds - 2 * _REST_SECONDS
    length = min(spare, log_uniform(rng, _MOVE_SECONDS))
    before = (spare - length) * rng.uniform()
    move = rng.choice(["straight", "by_axis", "wander", "vanish"])
    if move == "straight":
        moves = [Piece(length, _line(start, end))]
    elif move == "wander":
        moves = [Piece(length, _wander(rng, start, end))]
    elif move == "vanish":
        moves = [Piece(0.3, _hold(start), (1.0, 0.0)),
                 Piece(length - 0.6, _hold(start), (0.0, 0.0)),
                 Piece(0.3, _hold(end), (0.0, 1.0))]
    else:
        moves, pose = [], start
        for axis in rng.permutation(3):
            target = pose.copy()
            target[axis] = end[axis]
            moves.append(Piece(length / 3, _line(pose, target)))
            pose = target
    return [
        *_idle_pieces(rng, start, _REST_SECONDS + before),
        *moves,
        *_idle_pieces(rng, end, seconds - _REST_SECONDS - before - length)]


def _idle_pieces(rng: np.random.Generator, pose: np.ndarray, seconds: float
                 ) -> list[Piece]:
    """Rest at a pose [3], sometimes interrupted by a shake or a bounce."""
    length = seconds - 2 * _REST_SECONDS
    if length < 0.8 or rng.uniform() < 0.5:
        return [Piece(seconds, _hold(pose))]
    length = min(length, rng.uniform(0.8, 1.6))
    fidget = _shake if rng.uniform() < 0.5 else _bounce
    return [
        Piece(_REST_SECONDS, _hold(pose)),
        Piece(length, fidget(rng, pose, length)),
        Piece(seconds - _REST_SECONDS - length, _hold(pose))]


def _hold(pose: np.ndarray) -> PosePath:
    return lambda u: np.tile(pose, (len(u), 1))


def _line(start: np.ndarray, end: np.ndarray) -> PosePath:
    return lambda u: start + (end - start) * _ramp(u)[:, None]


def _wander(rng: np.random.Generator, start: np.ndarray, end: np.ndarray
            ) -> PosePath:
    """A winding way between two poses [3]."""
    line = _line(start, end)
    waves = np.arange(2, 5)  # half waves along the way
    reach = rng.uniform(4, 9, (2, 3)) * rng.choice([-1, 1], (2, 3)) / 2

    def path(u: np.ndarray) -> np.ndarray:
        poses = line(u)
        bends = np.sin(np.pi * u[:, None] * waves)
        poses[:, :2] += bends @ reach.T
        return poses

    return path


def _shake(rng: np.random.Generator, pose: np.ndarray, seconds: float
           ) -> PosePath:
    """Quick sideways oscillation, two whole periods or more."""
    periods = max(2, np.ceil(rng.uniform(1.5, 2.8) * seconds))
    reach = rng.uniform(4, 7)
    return lambda u: pose + np.outer(
        np.sin(2 * np.pi * periods * u), [reach, 0, 0])


def _bounce(rng: np.random.Generator, pose: np.ndarray, seconds: float
            ) -> PosePath:
    """Whole hops upwards, like a ball on the ground."""
    # Two at least: a single hop would be "up_then_down" but for its height.
    hops = max(2, np.ceil(rng.uniform(1.2, 2.4) * seconds))
    reach = rng.uniform(7, 12)
    return lambda u: pose - np.outer(
        np.abs(np.sin(np.pi * hops * u)), [0, reach, 0])


def _ramp(u: np.ndarray) -> np.ndarray:
    """0 to 1 with constant speed but for a soft start and stop, [f] -> [f]."""
    soft = 0.12  # share of the time spent accelerating
    u = np.clip(u, 0, 1)
    near = np.minimum(u, 1 - u)
    height = np.where(
        near < soft, near**2 / (2 * soft), near - soft / 2) / (1 - soft)
    return np.where(u < 0.5, height, 1 - height)


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]
                ) -> float:
    """Returns a number whose logarithm is uniform between the bounds."""
    return float(np.exp(rng.uniform(*np.log(bounds))))
