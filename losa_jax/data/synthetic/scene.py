"""What a synthetic video looks like, and its H.264 encoding.

The look comes from a random stream of its own and knows nothing of classes.
Lengths are for a frame of `STAGE` pixels and are scaled to the actual size.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from losa_jax.data.synthetic.motion import STAGE
from losa_jax.utils.atomic_write import write_bytes

# Backgrounds are darker than objects (luma of 255), so that an object is
# visible over every background; hue and texture vary freely.
BACKGROUND_LUMA = (20.0, 100.0)
_OBJECT_LUMA = (140.0, 240.0)
_LUMA = np.array([0.299, 0.587, 0.114])
# A sprite is a square of 3.5 radii: a triangle of a disc's area reaches
# 1.41 radii, and the blurred edge must fade inside.
_SPRITE_RADII = 3.5
SHAPES = (("polygon", 3), ("polygon", 4), ("polygon", 5), ("polygon", 40),
          ("star", 4), ("star", 5), ("star", 6))
TEXTURES = ("noise", "grating", "checker")


def render_frames(rng: np.random.Generator, poses: np.ndarray,
                  visible: np.ndarray, fps: int, size: int
                  ) -> Iterator[np.ndarray]:
    """Yields the frames of a scene, uint8 [size, size, 3], RGB.

    Args:
      rng: draws everything but the main object's motion.
      poses: [f, 3] x, y (stage pixels, y down) and log radius of the main
        object.
      visible: [f] opacity of the main object, 0 to 1.
      size: width and height in pixels.
    """
    scale = size / STAGE
    seconds = np.arange(len(poses)) / fps
    background = draw_background(rng, size)
    angle = rng.uniform(0, 2 * np.pi)
    speed = rng.uniform(0, 4) * scale
    start = rng.uniform(0, 2 * STAGE, 2) * scale
    drift = speed * seconds[:, None] * [np.cos(angle), np.sin(angle)]
    offsets = (start + drift) % (2 * size)
    gain = 1 + rng.uniform(0, 0.12) * wave(rng, seconds, (0.02, 0.15))
    distractors = [
        (draw_sprite(rng, size), rng.uniform(2.4, 3.6) * scale,
         wander(rng, seconds) * scale)
        for _ in range(rng.integers(1, 3))
    ]
    sprite = draw_sprite(rng, size)
    # The object is never quite still: it sways by about half a pixel.
    sway = np.stack(
        [0.6 * wave(rng, seconds, (0.05, 0.3)) for _ in range(2)], axis=1)
    centers = (poses[:, :2] + sway) * scale
    radii = np.exp(poses[:, 2]) * scale
    noise = rng.normal(
        0, rng.uniform(1, 4), (size + 64, size + 64, 3)).astype(np.float32)
    corners = rng.integers(0, 64, (len(poses), 2))

    for index in range(len(poses)):
        shift = np.array([[1, 0, offsets[index, 0]],
                          [0, 1, offsets[index, 1]]])
        frame: np.ndarray = cv2.warpAffine(
            background, shift, (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        for small, radius, path in distractors:
            frame = paste(frame, small, path[index], radius, 1.0)
        if visible[index] > 0:
            frame = paste(frame, sprite, centers[index], radii[index],
                           visible[index])
        frame *= np.float32(gain[index])
        # A random crop of one noise image: much cheaper than fresh noise.
        top, left = corners[index]
        frame += noise[top:top + size, left:left + size]
        yield np.clip(frame, 0, 255).astype(np.uint8)


def encode_video(path: Path, frames: Iterable[np.ndarray], fps: int, size: int
                 ) -> None:
    """Writes frames, uint8 [size, size, 3], RGB, of an even size, as
    constant-rate H.264 in MP4, atomically."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # The same frames must give the same file. One thread: else it
        # depends on the machine's cores. No macroblock tree: x264's vector
        # code for it reads uninitialized memory (six results in 200 tries).
        stream = container.add_stream("libx264", fps, {
            "crf": "22", "preset": "veryfast", "g": "30", "threads": "1",
            "x264-params": "mbtree=0"}, width=size, height=size)
        for pixels in frames:
            container.mux(stream.encode(
                av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    write_bytes(path, buffer.getvalue())


def wave(rng: np.random.Generator, seconds: np.ndarray,
          hertz: tuple[float, float]) -> np.ndarray:
    """A slow random signal in -1..1: two sine waves. Returns [f]."""
    frequency = rng.uniform(*hertz, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    angle = 2 * np.pi * frequency * seconds[:, None] + phase
    return np.sin(angle).mean(axis=1)


def wander(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A distractor's path over the whole stage. Returns [f, 2]."""
    return np.stack([
        rng.uniform(0.2, 0.8) * STAGE
        + rng.uniform(4, 24) * wave(rng, seconds, (0.03, 0.5))
        for _ in range(2)], axis=1)


def _draw_color(rng: np.random.Generator, luma: tuple[float, float]
                ) -> np.ndarray:
    """A random RGB color whose luma lies in a range. Returns [3]."""
    while True:
        color = rng.uniform(0, 255, 3)
        if luma[0] <= color @ _LUMA <= luma[1]:
            return color


def _draw_pattern(rng: np.random.Generator, side: int, waves: tuple[int, int],
                  textures: Sequence[str]) -> np.ndarray:
    """Returns a random texture, float [side, side], 0 to 1, with waves[0] to
    waves[1] periods a side: one of `TEXTURES`, "dots" or "waves".
    """
    texture = rng.choice(textures)
    if texture == "noise":
        frequency = np.fft.fftfreq(side) * side
        distance = np.hypot(frequency[:, None], frequency)
        spectrum = np.fft.fft2(rng.normal(size=(side, side)))
        spectrum *= np.exp(-(distance / rng.uniform(*waves)) ** 2)
        spectrum[0, 0] = 0
        value = np.fft.ifft2(spectrum).real
        return np.clip(0.5 + 0.25 * value / value.std(), 0, 1)
    # Whole numbers of periods along both sides, or the tile shows a seam.
    along, across = rng.integers(waves[0], waves[1] + 1, 2)
    across *= rng.choice([-1, 1])
    turn = 2 * np.pi * np.arange(side) / side
    if texture == "dots":
        return np.exp(2 * (np.cos(along * turn[:, None])
                           + np.cos(across * turn) - 2))
    if texture == "waves":
        return 0.5 + 0.5 * np.sin(
            along * turn[:, None] + 2 * np.sin(across * turn))
    first = np.sin(along * turn[:, None] + across * turn)
    if texture == "grating":
        return 0.5 + 0.5 * first
    second = np.sin(across * turn[:, None] - along * turn)
    return 0.5 + 0.5 * np.tanh(4 * first * second)


def draw_background(rng: np.random.Generator, size: int,
                    textures: Sequence[str] = TEXTURES) -> np.ndarray:
    """A tile of twice the frame's size, padded by a frame on two sides:
    float32 [3 size + 2, 3 size + 2, 3]."""
    side = 2 * size
    value = 0.7 * _draw_pattern(rng, side, (2, 7), textures)
    value += 0.3 * _draw_pattern(rng, side, (4, 16), textures)
    dark, light = (_draw_color(rng, BACKGROUND_LUMA) for _ in range(2))
    tile = dark + (light - dark) * value[..., None]
    return np.pad(
        tile.astype(np.float32), ((0, size + 2), (0, size + 2), (0, 0)),
        mode="wrap")


def draw_sprite(rng: np.random.Generator, size: int,
                shapes: Sequence[tuple[str, int]] = SHAPES,
                textures: Sequence[str] = TEXTURES,
                luma: tuple[float, float] = _OBJECT_LUMA) -> np.ndarray:
    """A soft-edged textured shape of radius size / 4 in a square: float32
    [h, w, 4], RGB times opacity, and opacity.

    Shapes are a "polygon", "star" or "stretched" polygon and their points.
    """
    radius = size / 4
    side = round(_SPRITE_RADII * radius)
    shape, points = shapes[int(rng.integers(len(shapes)))]
    reach = np.ones(points)
    if shape == "star":
        reach = np.tile([1.0, rng.uniform(0.45, 0.6)], points)
    turn = rng.uniform(0, 2 * np.pi)
    angle = turn + 2 * np.pi * np.arange(len(reach)) / len(reach)
    corners = reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "stretched":
        along = np.array([np.cos(turn), np.sin(turn)])
        corners += 0.8 * np.outer(corners @ along, along)
    following = np.roll(corners, -1, axis=0)
    area = 0.5 * np.sum(corners[:, 0] * following[:, 1]
                        - corners[:, 1] * following[:, 0])
    # Shapes of one radius have one area, or a triangle would look smaller
    # than a disc. 2.6 lies between a square's and a disc's.
    corners *= np.sqrt(2.6 / area) * radius
    fine = 4  # drawn four times as large, then averaged: smooth edges
    mask = np.zeros((side * fine, side * fine), np.float32)
    cv2.fillPoly(
        mask, [np.round((corners + side / 2) * fine).astype(np.int32)], 1.0)
    opacity = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    opacity = cv2.GaussianBlur(opacity, (0, 0), 0.06 * radius)[..., None]
    value = _draw_pattern(rng, side, (2, 4), textures)[..., None]
    first, second = (_draw_color(rng, luma) for _ in range(2))
    color = first + (second - first) * value
    return np.concatenate([color * opacity, opacity], 2).astype(np.float32)


def paste(frame: np.ndarray, sprite: np.ndarray, center: np.ndarray,
           radius: float, opacity: float) -> np.ndarray:
    """Draws a sprite over a frame [h, w, 3], its middle at `center` [2]."""
    height, width = frame.shape[:2]
    side = sprite.shape[0]
    zoom = radius * _SPRITE_RADII / side
    middle = (side - 1) / 2
    transform = np.array([[zoom, 0, center[0] - zoom * middle],
                          [0, zoom, center[1] - zoom * middle]])
    layer = cv2.warpAffine(sprite, transform, (width, height)) * np.float32(
        opacity)
    return frame * (1 - layer[..., 3:]) + layer[..., :3]
