"""Video files of any length, made by copying encoded frames.

    python -m benchmarks.common.stream_copies ANNOTATIONS.json FOLDER

writes one MP4 file for each video of the annotations, with its id, length and
frame rate. Nothing is encoded but a few short clips, whose packets are
repeated: an hour of video takes about a second.
"""

import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

WIDTH, HEIGHT = 96, 72
NUM_CLIPS, CLIP_FRAMES, KEY_FRAME_EVERY = 4, 600, 30
# Of the rates that annotations round, as 29.97.
MAX_DENOMINATOR = 1001


def main() -> None:
    annotations, folder = map(Path, sys.argv[1:])
    database = json.loads(annotations.read_text(encoding="utf-8"))["database"]
    folder.mkdir(parents=True)
    clips = [render_clip(folder / f"clip{number}.mp4", number)
             for number in range(NUM_CLIPS)]
    for number, (name, video) in enumerate(tqdm(
            database.items(), desc="copying", unit="video", leave=False)):
        write_copies(folder / f"{name}.mp4", clips[number % len(clips)],
                     video["duration"], video["fps"])
    for clip in clips:
        clip.unlink()


def render_clip(path: Path, seed: int) -> Path:
    """Renders a square that moves over a texture. There are no B-frames, so a
    copy may end after any frame."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    turns = rng.integers(1, 20, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.options = {
            "preset": "ultrafast", "crf": "30", "bf": "0",
            "g": str(KEY_FRAME_EVERY)}
        for number in range(CLIP_FRAMES):
            angle = 2 * np.pi * number / CLIP_FRAMES
            top = round((HEIGHT - 16) / 2 * (1 + np.sin(turns[0] * angle)))
            left = round((WIDTH - 16) / 2 * (1 + np.cos(turns[1] * angle)))
            image = texture.copy()
            image[top:top + 16, left:left + 16] = 230
            container.mux(stream.encode(
                av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def write_copies(path: Path, clip: Path, seconds: float, fps: float) -> None:
    """Repeats the frames of a clip, without decoding them, at another rate."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        template = source.streams.video[0]
        packets = [(bytes(packet), packet.is_keyframe)
                   for packet in source.demux(template) if packet.size]
        stream = container.add_stream_from_template(template)
        time_base = 1 / Fraction(fps).limit_denominator(MAX_DENOMINATOR)
        for number in range(max(1, math.floor(seconds * fps + 0.5))):
            content, is_key = packets[number % len(packets)]
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, time_base
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, is_key
            container.mux(packet)


if __name__ == "__main__":
    main()
