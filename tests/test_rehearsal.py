"""The rehearsal at true size, with four short videos."""

import json
import subprocess
import sys

import av
import pytest

from benchmarks.common.child_process import run_measured
from benchmarks.common.stream_copies import render_clip, write_copies
from benchmarks.rehearsal import evenly_chosen
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video

# As few and as small programs as can be.
FLAGS = [f"--config.{flag}" for flag in (
    "window.samples=64", "window.tokens=64", "head.width=16",
    "head.num_levels=2", "head.num_stem_blocks=1", "head.head_layers=1",
    "augment.size=32", "adapter.tap_grid=(2,2)", "adapter.num_taps=1")]


def _database():
    return {f"{subset}_{number}": {
        "subset": subset, "duration": 9.0 + 3 * number, "fps": fps,
        "annotations": [{"label": "Jump", "label_id": 0,
                         "segment": [1.0, 4.5]}]}
        for subset in ("Validation", "Test")
        for number, fps in enumerate((30.0, 29.97))}


@pytest.mark.slow
def test_every_stage_is_measured(one_device, tmp_path):
    annotations = tmp_path / "thumos.json"
    annotations.write_text(json.dumps({"database": _database()}))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rehearsal",
         f"--annotations={annotations}", f"--json={tmp_path / 'out.json'}",
         *FLAGS], env=one_device, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "out.json").read_text())
    # 9 s at 30 and 12 s at 29.97 frames a second, every fourth frame.
    assert (result["videos"], result["windows"]) == (4, 2 + 2)
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert [*stages] == [
        "make the files", "check_data", "train an epoch, evaluate",
        "evaluate", "cache", "train from the cache, evaluate", "score"]
    for stage in stages.values():
        assert stage["usage"]["peak_bytes"] > 2**24
        assert stage["usage"]["cpu_seconds"] > 0
    assert stages["make the files"]["left_bytes"] == result["file_bytes"]
    assert stages["cache"]["left_bytes"] > 4 * 96 * 2
    assert "4 of 4 videos can be read" in (
        stages["check_data"]["usage"]["output"])
    assert "| train an epoch, evaluate |" in done.stdout


@pytest.mark.parametrize("seconds, fps", [(1.0, 30.0), (45.03, 29.97),
                                          (3.5, 25.0)])
def test_copies_have_the_asked_length_and_rate(tmp_path, seconds, fps):
    clip = render_clip(tmp_path / "clip.mp4", 0)
    write_copies(tmp_path / "copies.mp4", clip, seconds, fps)
    info = probe_video(tmp_path / "copies.mp4", check="full")
    assert info.fps == pytest.approx(fps, abs=1e-3)
    assert info.frame_count == round(seconds * fps)
    last = info.frame_count - 1
    (frame,) = iterate_frames(tmp_path / "copies.mp4", [last], info)
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24")
                  for frame in container.decode(video=0)]
    assert (frame.rgb() == frames[last % len(frames)]).all()


def test_chosen_videos_are_of_both_subsets_and_all_lengths():
    database = {f"v{number}": {"subset": "Test" if number % 3 else "Train",
                               "duration": float(number)}
                for number in range(30)}
    chosen = evenly_chosen(database, 9)
    assert [one["subset"] for one in chosen.values()].count("Train") == 3
    assert len(chosen) == 9
    assert min(one["duration"] for one in chosen.values()) < 5
    assert max(one["duration"] for one in chosen.values()) > 24
    assert evenly_chosen(database, 0) == database


def test_usage_is_of_the_process_alone(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(bytes(3 * 2**20))
    usage = run_measured([
        "-c", f"print(len(open({str(path)!r}, 'rb').read()))"])
    assert usage.output == f"{3 * 2**20}\n"
    assert usage.read_bytes is None or usage.read_bytes > 3 * 2**20
    with pytest.raises(RuntimeError, match="status 3:\nprinted\nreason"):
        run_measured(["-c", "import sys; print('printed'); "
                      "print('reason', file=sys.stderr); sys.exit(3)"])
