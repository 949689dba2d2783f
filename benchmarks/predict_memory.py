"""Peak memory of `predict` on a long video against a short one.

    python -m benchmarks.predict_memory [--checkpoint=WORKDIR]
        [--minutes=5,240] [--fps=5]

Renders videos (64 x 64 pixels, few frames a second), runs
`python -m losa_jax.predict` on each in a process of its own, and prints the
peak resident sizes and their ratio. Without --checkpoint the model is a
random one, whose candidates all reach NMS: the worst case.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from benchmarks.common.figures import table
from benchmarks.convert_memory import peak_gib

SIZE = 64


def render(path: Path, minutes: float, fps: int) -> Path:
    """A bright square that wanders over a texture."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast", "g": "50"}
        for number in range(round(60 * minutes * fps)):
            frame = texture.copy()
            left = round(24 + 24 * np.sin(number / 7))
            top = round(24 + 24 * np.cos(number / 11))
            frame[top:top + 14, left:left + 14] = 230
            container.mux(stream.encode(
                av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--minutes", default="5,240",
                        help="of the videos; the first is compared with")
    parser.add_argument("--fps", type=int, default=5)
    arguments = parser.parse_args()
    lengths = [float(text) for text in arguments.minutes.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            # Here, not above: this process is not measured, yet the others
            # must find the machine free.
            from benchmarks.common.random_run import write_random_run

            checkpoint = write_random_run(folder / "random")
        peaks: list[float] = []
        rows = []
        for number, minutes in enumerate(lengths):
            video = render(folder / f"{number}.mp4", minutes, arguments.fps)
            peak, seconds = peak_gib([
                sys.executable, "-m", "losa_jax.predict", str(video),
                f"--checkpoint={checkpoint}", f"--output={folder / 'out'}"])
            peaks.append(peak)
            rows.append((f"{minutes:g}", f"{1024 * peak:,.0f}",
                         f"{peak / peaks[0]:.2f}", f"{seconds:.0f}"))
        print("\n" + table(["minutes of video", "peak resident MiB",
                            "ratio to the first", "seconds"], rows))


if __name__ == "__main__":
    main()
