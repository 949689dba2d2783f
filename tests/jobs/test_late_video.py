"""All output files of a video that starts late speak the player's clock."""

import csv
import json
import re

import numpy as np
import pytest

from configs import quick
from losa_jax import timeline
from losa_jax.data.predictions import read_predictions
from losa_jax.data.records import Window
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows.sampling import video_grid
from losa_jax.detection.segments import Segments
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.predict import predict
from losa_jax.jobs.prediction_files import Settings
from losa_jax.jobs.video_sources import find_videos
from tests.data.reading import read_frames
from tests.data.video.test_player_clock import render

LEAD_SECONDS = 2.0


def _config():
    config = quick.get_config()
    config.window.samples, config.window.sample_fps = 256, 25.0
    config.window.tokens, config.augment.size = 256, 32
    config.data.num_threads = config.evaluate.batch_windows = 1
    return config


def _first_motion(inputs):
    """Segments of 8 tokens from the first frame that differs from the one
    before."""
    frames = inputs["frames"].reshape(256, -1).astype(float)
    # Off the borders of frames, where rounding decides.
    start = 0.3 + np.argmax(np.abs(np.diff(frames, axis=0)).mean(1) > 0.3)
    return Segments(np.array([[[start, start + 8.0]]], np.float32),
                    np.array([[0.9]], np.float32), np.array([[0]]),
                    np.array([[True]]))


def _times(output, name):
    """Returns {file: [start, end in seconds]} of the only detection."""
    def text(suffix):
        return (output / f"{name}.{suffix}").read_text()

    def clock(suffix):
        return [sum(float(part.replace(",", ".")) * 60 ** place for place, part
                    in enumerate(reversed(one.split(":")))) for one in
                re.search(r"(\S+) --> (\S+)", text(suffix)).groups()]

    row, = csv.DictReader(text("csv").splitlines())
    detection, = json.loads(text("json"))["detections"]
    predicted, = read_predictions(output / "predictions.json")[name]
    page, = json.loads(re.search(
        r'id="data">(.*?)</script>', text("html"), re.DOTALL)[1])[
            "predictions"]
    return {
        "json": [detection["start_seconds"], detection["end_seconds"]],
        "frames": [detection["start_frame"] / 25,
                   detection["end_frame"] / 25],
        "csv": [float(row["start_seconds"]), float(row["end_seconds"])],
        "srt": clock("srt"), "vtt": clock("vtt"),
        "eaf": [int(value) / 1000 for value in re.findall(
            r'TIME_VALUE="(\d+)"', text("eaf"))],
        "predictions": predicted[:2], "page": page[:2]}


def _require_player_clock(late, source, output):
    """Detections, and frames at annotated times, are the same ones in both
    files, later by the lead."""
    config = _config()
    localizer = Localizer(config, ("jump",), {}, "id", 1, _first_motion)
    assert predict(find_videos([str(late), str(source)]), localizer,
                   Settings(output, report=True)) == {}
    got, want = (_times(output, path.stem) for path in (late, source))
    assert 0 < want["json"][0] < 1
    # Sound has frames of its own length.
    lead_seconds = probe_video(late).lead_frames / 25
    assert lead_seconds == pytest.approx(LEAD_SECONDS, abs=0.041)
    for name in want:
        np.testing.assert_allclose(
            got[name], np.array(want[name]) + lead_seconds, atol=0.0015,
            err_msg=name)

    def frames_of_action(path, start_seconds):
        info = probe_video(path)
        grid = video_grid(info, config.window)
        first = round(float(timeline.tokens_from_seconds(
            np.array(start_seconds), grid, 0, 1.0)))
        return read_frames(path, Window(first, 16, 16).frame_indices(grid),
                           info).astype(int)

    difference = np.abs(frames_of_action(late, lead_seconds + 1.5)
                        - frames_of_action(source, 1.5))
    assert difference.mean() < 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("start", [0, 3600])
def test_every_file_is_later_by_the_lead(suffix, start, tmp_path):
    _require_player_clock(
        render(tmp_path / f"late.{suffix}", video_start=start + LEAD_SECONDS,
               sound_start=start),
        render(tmp_path / f"source.{suffix}"), tmp_path / "out")


@pytest.mark.shared
def test_every_file_of_a_public_case_is_later_by_the_lead(shared_dir, tmp_path):
    folder = shared_dir / "data/public_cases/video"
    _require_player_clock(folder / "late2.mp4", folder / "late_source.mp4",
                          tmp_path / "out")
