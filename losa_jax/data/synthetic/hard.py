"""Videos whose subsets have nothing in common but the actions to detect.

Shapes, textures, sizes, cameras, lengths of actions and the motions that are
not to be detected come from generators of one subset each (`DOMAINS`). A video
has one or two actors, whose actions may overlap in time, and by chance an
object with other motions, one that hides them now and then, and up to two
cuts, after which camera and background are others.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from losa_jax.data.synthetic import motion, scene

_VIDEO_SECONDS = (20.0, 32.0)
_MIDDLE = motion.STAGE / 2


class Domain(NamedTuple):
    """What only the videos of one subset have.

    Attributes:
      shapes, textures: of all objects and backgrounds.
      action_seconds: ranges of the lengths of actions.
      zooms: ranges of the camera's magnification.
      cameras: how they may move: "pan", "turn" or "shake".
      others: the motions of `motion.OTHER_CLASSES` that distract.
    """

    shapes: tuple[tuple[str, int], ...]
    textures: tuple[str, ...]
    action_seconds: tuple[tuple[float, float], ...]
    zooms: tuple[tuple[float, float], ...]
    cameras: tuple[str, ...]
    others: tuple[str, ...]


DOMAINS = {
    "training": Domain(
        (("polygon", 3), ("polygon", 5), ("polygon", 40), ("star", 4)),
        ("noise", "grating"), ((1.5, 2.5),), ((0.85, 1.0),), ("pan",),
        ("to_upper_left", "to_lower_right", "zigzag", "spiral_in", "shake")),
    "validation": Domain(
        (("polygon", 4), ("star", 6)), ("checker",),
        ((1.2, 1.5), (2.5, 3.0)), ((1.0, 1.1),), ("turn",),
        ("to_upper_right", "square", "bounce")),
    "testing": Domain(
        (("stretched", 4), ("stretched", 40), ("star", 8)),
        ("dots", "waves"), ((1.0, 1.2), (3.0, 3.6)),
        ((0.75, 0.85), (1.1, 1.2)), ("shake",),
        ("to_lower_left", "figure_eight", "spiral_out", "pulse")),
}


# Clips for training a backbone have other motions and everything else, as
# the videos that public backbones saw.
CLIPS = Domain(
    shapes=tuple(shape for one in DOMAINS.values() for shape in one.shapes),
    textures=tuple(name for one in DOMAINS.values() for name in one.textures),
    action_seconds=(),
    zooms=tuple(zoom for one in DOMAINS.values() for zoom in one.zooms),
    cameras=tuple(name for one in DOMAINS.values() for name in one.cameras),
    others=motion.OTHER_CLASSES)


class Plan(NamedTuple):
    """What happens in one video; `actions` as in `motion.Plan`."""

    fps: int
    frame_count: int
    actors: tuple[motion.Plan, ...]  # from back to front
    actions: tuple[tuple[int, float, float], ...]
    domain: Domain
    is_hidden: bool  # an object passes in front of the actors
    num_cuts: int


def plan_video(rng: np.random.Generator, subset: str) -> Plan:
    """Draws what happens in a video of a subset."""
    domain = DOMAINS[subset]
    fps = int(rng.choice(motion.FRAME_RATES))
    count = round(rng.uniform(*_VIDEO_SECONDS) * fps)

    def actor(names: Sequence[str], path_of: motion.PathOf) -> motion.Plan:
        return motion.Plan(fps, count, *motion.arrange(
            rng, _draw_lengths(rng, domain, count / fps), count / fps, names,
            path_of))

    acting = [actor(motion.ACTION_CLASSES, motion.action_path)
              for _ in range(rng.integers(1, 3))]
    distracting = [actor(domain.others, motion.other_path)
                   for _ in range(rng.integers(2))]
    actions = sorted((action for one in acting for action in one.actions),
                     key=lambda action: action[1])
    return Plan(fps, count, (*acting, *distracting), tuple(actions), domain,
                bool(rng.integers(2)), int(rng.integers(3)))


def plan_clip(rng: np.random.Generator) -> Plan:
    """Draws a trimmed clip of one of `motion.OTHER_CLASSES`: an object that
    rests lies behind the one that moves."""
    clip = motion.plan_other_trimmed(rng)
    resting = motion.resting(rng, clip.fps, clip.frame_count)
    return Plan(clip.fps, clip.frame_count, (resting, clip), clip.actions,
                CLIPS, is_hidden=True, num_cuts=0)


def render_frames(rng: np.random.Generator, plan: Plan, size: int
                  ) -> Iterator[np.ndarray]:
    """Yields the frames of a video, uint8 [size, size, 3], RGB."""
    domain = plan.domain
    scale = size / motion.STAGE
    seconds = np.arange(plan.frame_count) / plan.fps

    def sprite(**changes: tuple[float, float]) -> np.ndarray:
        return scene.draw_sprite(rng, size, domain.shapes, domain.textures,
                                 **changes)

    # Sprite, center [f, 2], radius [f] and opacity [f]; from back to front.
    objects = []
    for actor in plan.actors:
        poses, opacity = motion.follow(actor)
        objects.append((sprite(), poses[:, :2], np.exp(poses[:, 2]), opacity))
    if plan.is_hidden:
        objects.append((sprite(luma=scene.BACKGROUND_LUMA),
                        scene.wander(rng, seconds),
                        np.full(len(seconds), rng.uniform(7, 10)),
                        np.ones(len(seconds))))
    cuts = np.sort(rng.uniform(0.1, 0.9, plan.num_cuts)) * seconds[-1]
    shot_of = np.searchsorted(cuts, seconds, side="right")
    shots = [(_camera(rng, domain, seconds),
              scene.draw_background(rng, size, domain.textures)[
                  :2 * size, :2 * size])
             for _ in range(len(cuts) + 1)]
    noise = rng.normal(
        0, rng.uniform(1, 4), (size + 64, size + 64, 3)).astype(np.float32)
    corners = rng.integers(0, 64, (len(seconds), 2))

    for i, shot in enumerate(shot_of):
        cameras, background = shots[shot]
        camera = cameras[i]
        to_frame = camera * [1, 1, scale]
        frame: np.ndarray = cv2.warpAffine(
            background, to_frame, (size, size), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP)
        zoom = float(np.hypot(*camera[:, 0]))
        for image, centers, radii, opacity in objects:
            if opacity[i] > 0:
                center = camera @ [*centers[i], 1]
                frame = scene.paste(frame, image, center * scale,
                                    radii[i] * zoom * scale, opacity[i])
        top, left = corners[i]
        frame += noise[top:top + size, left:left + size]
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _draw_lengths(rng: np.random.Generator, domain: Domain, seconds: float
                  ) -> np.ndarray:
    while True:
        lengths = np.array([
            motion.log_uniform(rng, _one_of(rng, domain.action_seconds))
            for _ in range(rng.integers(2, 5))])
        if motion.spare_seconds(lengths, seconds) > 0:
            return lengths


def _camera(rng: np.random.Generator, domain: Domain, seconds: np.ndarray
            ) -> np.ndarray:
    """Returns affine maps [f, 2, 3] from the stage to the frame, both in
    pixels of the stage."""
    zoom = np.full(len(seconds), rng.uniform(*_one_of(rng, domain.zooms)))
    angle, shift = np.zeros(len(seconds)), np.zeros((len(seconds), 2))
    camera = rng.choice(domain.cameras)
    if camera == "pan":
        shift = np.stack([4 * scene.wave(rng, seconds, (0.03, 0.1))
                          for _ in range(2)], 1)
    elif camera == "turn":
        angle = np.radians(10) * scene.wave(rng, seconds, (0.05, 0.2))
    else:
        shift = np.stack([scene.wave(rng, seconds, (1.5, 3.0))
                          for _ in range(2)], 1)
        zoom = zoom * (1 + 0.05 * scene.wave(rng, seconds, (0.1, 0.4)))
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    turn = np.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)
    middle = np.full(2, _MIDDLE)
    return np.concatenate(
        [turn, (shift + middle - turn @ middle)[:, :, None]], 2)


def _one_of(rng: np.random.Generator, ranges: Sequence[tuple[float, float]]
            ) -> tuple[float, float]:
    return ranges[int(rng.integers(len(ranges)))]
