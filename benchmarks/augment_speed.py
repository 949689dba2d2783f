"""Cutting, resizing and colouring frames: libraries side by side.

    python -m benchmarks.augment_speed [--rounds=5]

256 frames of 320 x 240 to 160 x 160, one thread, interleaved. Alternatives
that are not installed are left out.
"""

import argparse
import importlib.util
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.figures import interleaved, rates_table
from configs import common
from losa_jax.data import augment

FRAMES, HEIGHT, WIDTH, SIZE = 256, 240, 320, 160
BOX = (20, 30, 200, 260)  # top, left, height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    frames = np.random.default_rng(0).integers(
        0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    contestants = {**_ours(frames), **_pillow(frames), **_torch(frames)}
    seconds = interleaved(contestants, arguments.rounds)
    print(rates_table({name: [FRAMES / time for time in found]
                       for name, found in seconds.items()}, "frames/s",
                      against="ours: crop, resize, flip"))


def _cut(frame: np.ndarray) -> np.ndarray:
    top, left, height, width = BOX
    return frame[top:top + height, left:left + width]


def _ours(frames: np.ndarray) -> dict[str, Callable[[], object]]:
    settings = common.get_config().augment
    settings.crop_area, settings.size = (0.5, 1.0), SIZE
    plain = settings.copy_and_resolve_references()
    plain.colour_jitter = 0.0
    recipe = settings.copy_and_resolve_references()
    recipe.random_operations, recipe.hue_jitter = 2, 0.1

    def view(settings):
        return lambda: augment.train_view(
            frames, np.random.default_rng(1), settings)

    def resize(method):
        return lambda: [cv2.resize(_cut(frame), (SIZE, SIZE),
                                   interpolation=method) for frame in frames]

    return {"crop and resize, OpenCV, bilinear": resize(cv2.INTER_LINEAR),
            "crop and resize, OpenCV, mean of the area":
                resize(cv2.INTER_AREA),
            "ours: crop, resize, flip": view(plain),
            "ours: and colour jitter": view(settings),
            "ours: and hue, two random operations": view(recipe)}


def _pillow(frames: np.ndarray) -> dict[str, Callable[[], object]]:
    from PIL import Image  # matplotlib brings it
    top, left, height, width = BOX
    box = (left, top, left + width, top + height)
    return {"crop and resize, Pillow, bilinear": lambda: [
        np.asarray(Image.fromarray(frame).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR, box))
        for frame in frames]}


def _torch(frames: np.ndarray) -> dict[str, Callable[[], object]]:
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


if __name__ == "__main__":
    main()
