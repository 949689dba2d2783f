"""Videos whose frames carry their number, for tests.

Block k of 8, each 16 x 16 pixels, at the top left is white if bit k of the
number is 1.
"""

from fractions import Fraction

import av
import numpy as np

FRAMES = 240


def number_of(frame, block=16):
    middle = slice(block // 4, 3 * block // 4)
    return sum(
        int(frame[middle, block * k:block * (k + 1)][:, middle].mean() > 128)
        << k for k in range(8))


def numbers(frames):
    return [number_of(frame) for frame in frames]


def frame_of(number):
    frame = np.full((64, 160, 3), 90, np.uint8)
    frame[32:, number % 100:number % 100 + 40] = (220, 60, 20)
    for k in range(8):
        frame[:16, 16 * k:16 * k + 16] = 255 * (number >> k & 1)
    return frame


def render(path, *, x264="keyint=30", codec="libx264", fps=25,
            frames=FRAMES, paint=frame_of, seconds=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = 64, 160
        stream.pix_fmt = "yuv420p"
        if seconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            stream.codec_context.options = {
                "preset": "veryfast", "crf": "18", "x264-params": x264}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(paint(number), "rgb24")
            if seconds is not None:
                frame.time_base = Fraction(1, 1000)
                frame.pts = round(1000 * seconds[number])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
