"""A folder of small videos and their annotations, made in no time."""

import json
from fractions import Fraction

import av
import numpy as np

SUBSETS = {"training": 4, "testing": 2}


def write_video(path, seed, frames=40):
    """32 x 32 pixels, 25 frames a second."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_tiny_set(folder):
    """Makes folder/videos and folder/annotations.json; 6 videos."""
    (folder / "videos").mkdir()
    database = {}
    for subset, count in SUBSETS.items():
        for number in range(count):
            name = f"{subset}.{number}"
            frames = 40 + number
            write_video(folder / f"videos/{name}.mp4", len(database), frames)
            database[name] = {
                "subset": subset, "duration": frames / 25, "fps": 25,
                "annotations": [
                    # The second reaches 0.3 s past the end.
                    {"label": "hop", "segment": [0.1, 1 / 3]},
                    {"label": "run", "segment": [1.0, frames / 25 + 0.3]}]}
    (folder / "annotations.json").write_text(
        json.dumps({"database": database}))
    return folder
