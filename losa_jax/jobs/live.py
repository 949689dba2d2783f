"""`predict --live`: detections as lines of JSON, as they become final."""

import contextlib
import json
import math
import sys
from pathlib import Path

from tqdm import tqdm

from losa_jax.data.live import LiveVideo
from losa_jax.data.stream import read_ahead, sliding_windows
from losa_jax.detection.predictions import Detection
from losa_jax.detection.settle import Settling
from losa_jax.jobs.localizer import Localizer
from losa_jax.jobs.stop import StopSignal

LINES_FILE = "live.jsonl"


def live(source: str, localizer: Localizer, *, output: Path | None = None,
         threshold: float | None = None, idle_seconds: float = 10.0) -> int:
    """Reads a source to its end, or until SIGINT or SIGTERM.

    Args:
      source: see `LiveVideo`.
      localizer: the model, best with a batch of one window.
      output: folder for a file of the lines as well, added to live.jsonl.
      threshold: lowest score written; None takes each class's own.
      idle_seconds: after which a file that does not grow is at its end.

    Returns:
      detections written.

    Raises:
      InputError: the source cannot be read.
    """
    config, count = localizer.config, 0
    window = config.window
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        video = LiveVideo(source, config, idle_seconds=idle_seconds)
        stack.callback(video.close)
        lines = [sys.stdout]
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            lines.append(stack.enter_context(
                open(output / LINES_FILE, "a", encoding="utf-8")))
        bar = stack.enter_context(tqdm(
            desc=source, unit=" s", bar_format="{desc}: {n:.0f} s seen, "
            "{postfix}"))
        length_seconds = float(video.grid.seconds_from_samples(window.frames))
        settling = Settling(localizer.class_names, config.evaluate,
                            memory_seconds=length_seconds)

        def write(found: list[Detection]) -> int:
            shown = localizer.shown(found, threshold)
            for detection in shown:
                text = json.dumps({
                    "label": detection.label,
                    "score": round(detection.score, 6),
                    "start_seconds": round(detection.start_seconds, 3),
                    "end_seconds": round(detection.end_seconds, 3)})
                for file in lines:
                    print(text, file=file, flush=True)
            return len(shown)

        items = stack.enter_context(contextlib.closing(read_ahead(
            [sliding_windows(video.samples(), window)], num_threads=1,
            queue_size=2, stopped=lambda: bool(stop.came))))
        for place, frames in items:
            finds, = localizer.find([place], [frames], [video.grid])
            settling.add(finds)
            # Not a step further: the last window is shifted back to end with
            # the video, and nobody knows yet whether it comes next.
            count += write(settling.settle(float(
                video.grid.seconds_from_samples(place.first_sample))))
            bar.set_postfix_str(f"{count} found", refresh=False)
            bar.update(float(video.grid.seconds_from_samples(
                place.first_sample + place.valid_samples)) - bar.n)
        settling.cut(video.seconds)
        count += write(settling.settle(math.inf))
    return count
