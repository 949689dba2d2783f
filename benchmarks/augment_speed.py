"""Cropping, resizing and coloring frames: libraries side by side.

    python -m benchmarks.augment_speed [--rounds=5]

256 frames of 320 x 240 to 160 x 160, one thread, interleaved; ours draws anew
for each of 32 windows of 8 frames. Alternatives that are not installed are left
out (torch, AlbumentationsX).

Then what training does with a decoded 4:2:0 frame against FFmpeg's way to
RGB and a resize of that: time, and the mean difference (of 255) from the same
crop of the frame before it lost half of its color.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable

import cv2
import numpy as np
from av.video.frame import VideoFrame

from benchmarks.common.figures import interleaved, rates_table
from configs import common, thumos
from losa_jax.data.video.frame import DecodedFrame, upright_rgb
from losa_jax.data.windows import augment

FRAMES, HEIGHT, WIDTH, SIZE = 256, 240, 320, 160
BOX = (20, 30, 200, 260)  # top, left, height, width
Contestants = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    # Blurred noise, stretched: edges and colors as sharp as in a video.
    frames = np.stack([cv2.GaussianBlur(
        noise.astype(np.float32), (0, 0), 2) for noise in
        rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)])
    frames = np.clip((frames - 127.5) * 5 + 127.5, 0, 255).astype(np.uint8)
    stored = [VideoFrame.from_ndarray(frame, "rgb24").reformat(
        format="yuv420p") for frame in frames]
    contestants = {**_ours(frames), **_pillow(frames), **_torch(frames),
                   **_albumentations(frames), **_decoded(stored)}
    seconds = interleaved(contestants, arguments.rounds)
    print(rates_table({name: [FRAMES / time for time in times]
                       for name, times in seconds.items()}, "frames/s",
                      against="ours: crop, resize, flip"))
    truth = np.stack([DecodedFrame(frame).crop(*BOX, SIZE)
                      for frame in frames])
    for name, run in _decoded(stored).items():
        difference = np.abs(np.stack(run()).astype(np.int16) - truth).mean()
        print(f"{name:44s} {difference:8.2f} of 255 from the source")


def _cut(frame: np.ndarray) -> np.ndarray:
    top, left, height, width = BOX
    return frame[top:top + height, left:left + width]


def _ours(frames: np.ndarray) -> Contestants:
    settings = common.get_config().augment
    settings.crop_area, settings.size = (0.5, 1.0), SIZE
    plain = settings.copy_and_resolve_references()
    plain.color_jitter = 0.0
    recipe = thumos.get_config("s").augment
    recipe.crop_area = settings.crop_area
    windows = np.split(frames, FRAMES // 8)

    def view(settings):
        return lambda: [augment.train_view(
            window, np.random.default_rng(seed), settings)
            for seed, window in enumerate(windows)]

    def resize(method):
        return lambda: [cv2.resize(_cut(frame), (SIZE, SIZE),
                                   interpolation=method) for frame in frames]

    return {"crop and resize, OpenCV, bilinear": resize(cv2.INTER_LINEAR),
            "crop and resize, OpenCV, mean of the area":
                resize(cv2.INTER_AREA),
            "ours: crop, resize, flip": view(plain),
            "ours: and color jitter": view(settings),
            "ours: and hue, two random operations": view(recipe)}


def _pillow(frames: np.ndarray) -> Contestants:
    from PIL import Image  # matplotlib brings it
    top, left, height, width = BOX
    box = (left, top, left + width, top + height)
    return {"crop and resize, Pillow, bilinear": lambda: [
        np.asarray(Image.fromarray(frame).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR, box))
        for frame in frames]}


def _torch(frames: np.ndarray) -> Contestants:
    if not importlib.util.find_spec("torch"):
        return {}
    import torch
    torch.set_num_threads(1)
    top, left, height, width = BOX

    def run():
        part = torch.from_numpy(
            frames[:, top:top + height, left:left + width])
        return torch.nn.functional.interpolate(
            part.permute(0, 3, 1, 2), (SIZE, SIZE), mode="bilinear")
    return {"crop and resize, torch, bilinear": run}


def _albumentations(frames: np.ndarray) -> Contestants:
    """The successor of albumentations; it draws once for all frames too."""
    if not importlib.util.find_spec("albumentations"):
        return {}
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations
    crop = [albumentations.RandomResizedCrop((SIZE, SIZE), scale=(0.5, 1.0)),
            albumentations.HorizontalFlip(p=0.5)]
    color = albumentations.ColorJitter(p=1.0)

    def runs(transforms):
        draw = albumentations.Compose(transforms, seed=1)
        return lambda: draw(images=frames)["images"]

    return {"AlbumentationsX: crop, resize, flip": runs(crop),
            "AlbumentationsX: and color jitter": runs([*crop, color])}


def _decoded(stored: list[VideoFrame]) -> Contestants:
    return {"4:2:0, FFmpeg to RGB, crop and resize": lambda: [
        DecodedFrame(upright_rgb(frame, HEIGHT, WIDTH)).crop(*BOX, SIZE)
        for frame in stored],
        "4:2:0, ours: crop and resize, then to RGB": lambda: [
            DecodedFrame(frame).crop(*BOX, SIZE) for frame in stored]}


if __name__ == "__main__":
    main()
