"""`predict --live`: writes detections as JSON lines once they are final."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from losa_jax.data.windows import batch, sampling, stream
from losa_jax.data.windows.live import ENDLESS, LiveVideo
from losa_jax.detection.online_nms import OnlineNms
from losa_jax.detection.segments import Detection
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.errors import InputError
from losa_jax.inference import run_windows
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.prediction_files import as_row
from losa_jax.utils.atomic_write import make_folder, writing

LINES_FILE = "live.jsonl"
# Waits for the source after a signal (`data.windows.stream`), then it ends.
MAX_WAITS_AFTER_SIGNAL = 30


def live(source: str, localizer: Localizer, *, output: Path | None = None,
         threshold: float | None = None, idle_seconds: float = 10.0) -> int:
    """Reads a source to its end, or until SIGINT or SIGTERM.

    Args:
      source: see `LiveVideo`.
      localizer: the model, loaded with batch_windows=1.
      output: folder of live.jsonl, to which the lines are added as well.
      threshold: lowest score written; None takes each class's own.
      idle_seconds: a file that has not grown for so long has ended.

    Returns:
      the number of detections written.

    Raises:
      InputError: the source cannot be read, or localizer.batch_windows is
        not 1.
    """
    if localizer.batch_windows != 1:
        raise InputError(f"batch_windows={localizer.batch_windows}: a live "
                         "video needs batch_windows=1, so that no window "
                         "waits for the next one")
    window, count = localizer.config.window, 0
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        video = LiveVideo(source, localizer.config, idle_seconds=idle_seconds)
        files = {"standard output": sys.stdout}
        if output is not None:
            make_folder(output)
            with writing(output / LINES_FILE):
                files[str(output / LINES_FILE)] = stack.enter_context(
                    open(output / LINES_FILE, "a", encoding="utf-8"))
        bar = stack.enter_context(tqdm(
            desc=source, unit=" s", bar_format="{desc}: {n:.0f} s seen"
            "{postfix}"))

        def seconds(num_samples: int) -> float:
            return float(video.grid.seconds_from_samples(num_samples))

        online = OnlineNms(
            localizer.class_names,
            run_windows.nms_settings(localizer.config.evaluate),
            memory_seconds=seconds(window.samples))
        segments = run_windows.VideoSegments([video.grid], window)

        def write(rows: list[Detection]) -> int:
            shown = localizer.shown(rows, threshold)
            for detection in shown:
                text = json.dumps(as_row(detection, video.fps, ENDLESS) | {
                    "score": round(detection.score, 6),
                    "start_seconds": round(detection.start_seconds, 3),
                    "end_seconds": round(detection.end_seconds, 3)})
                for name, file in files.items():
                    with writing(Path(name)):
                        print(text, file=file, flush=True)
            return len(shown)

        def windows_of(number: int, decoder_threads: int
                       ) -> Iterator[tuple[stream.WindowRow, batch.Inputs]]:
            align = sampling.clip_alignment(window)
            for place, frames in stream.sliding_windows(
                    _until_stopped(video, stop), window.samples,
                    sampling.window_step(window.samples, window.overlap, align),
                    align):
                yield stream.WindowRow(number, place), {"frames": frames}

        windows = stream.WindowStream([0], windows_of, batch_windows=1,
                                      num_threads=1, stopped=_gives_up(stop))
        batches = stack.enter_context(contextlib.closing(iter(windows)))
        for item in run_windows.run_windows(localizer.predict_windows, batches,
                                            is_ahead=False):
            if isinstance(item, stream.VideoEnd):
                if item.error is not None:
                    raise item.error
                continue
            place = item[0].window
            online.add(segments.in_seconds(*item))
            # Only up to the start of this window: the next one may be the
            # last, which is shifted back to end with the video.
            count += write(online.final_before(seconds(place.first_sample)))
            bar.set_postfix_str(f"{count} detections", refresh=False)
            bar.update(seconds(place.first_sample + place.valid_samples)
                       - bar.n)
        online.cut(video.seconds)
        count += write(online.final_before(math.inf))
        bar.set_postfix_str(f"{count} detections")
    return count


def _until_stopped(video: LiveVideo, stop: StopSignal
                   ) -> Iterator[np.ndarray]:
    """Yields samples until a signal comes, then closes the video."""
    with contextlib.closing(video):
        for sample in video.samples():
            if stop.came:
                return
            yield sample


def _gives_up(stop: StopSignal) -> Callable[[], bool]:
    """Returns a function to call after every wait for the source.

    After a signal the last window is waited for, but a camera that hangs is
    not.
    """
    waits_left = MAX_WAITS_AFTER_SIGNAL

    def is_over() -> bool:
        nonlocal waits_left
        waits_left -= bool(stop.came)
        return waits_left <= 0

    return is_over
