"""What is odd about a set of videos is found and named."""

import json
import shutil

import pytest

from losa_jax.data.annotations import load
from losa_jax.data.records import Action, AnnotatedVideo, VideoInfo
from losa_jax.jobs.check_data import check_data, propose
from losa_jax.jobs.setup import load_data


@pytest.fixture
def odd(config, tmp_path):
    """The tiny set, with one fault of each kind."""
    config = config.copy_and_resolve_references()
    folder = tmp_path / "videos"
    shutil.copytree(config.data.videos, folder)
    with open(config.data.annotations) as file:
        content = json.load(file)
    database = content["database"]
    names = [name for name in database
             if database[name]["subset"] == "training"]
    (folder / f"{names[0]}.mp4").unlink()
    (folder / f"{names[1]}.mp4").write_bytes(b"no video")
    database[names[2]]["duration"] *= 2
    database[names[2]]["fps"] = 12.0
    entry = database[names[3]]
    entry["annotations"][0]["segment"][1] = entry["duration"] + 5
    entry["annotations"].append(entry["annotations"][1])
    del entry["annotations"][0]["label_id"]
    config.data.annotations = str(tmp_path / "odd.json")
    (tmp_path / "odd.json").write_text(json.dumps(content))
    config.data.videos = str(folder)
    return config, names


@pytest.mark.slow
def test_every_fault_is_named(odd, tmp_path, capsys, monkeypatch):
    config, names = odd
    parsed = []
    real = load.read_database
    monkeypatch.setattr(load, "read_database", lambda path: (
        parsed.append(str(path)) or real(path)))
    findings = check_data(config, tmp_path / "work")
    assert parsed == [config.data.annotations]
    kinds = {(one.video_id, one.kind) for one in findings}
    assert kinds == {
        (names[0], "missing or unreadable"),
        (names[1], "missing or unreadable"),
        (names[2], "another duration"), (names[2], "another frame rate"),
        (names[3], "actions outside"), (names[3], "actions given twice")}
    said = capsys.readouterr().out
    assert "4 of 6 videos can be read" in said
    assert "--config.window.frame_stride=" in said
    report = json.loads((tmp_path / "work/check_data.json").read_text())
    assert len(report["findings"]) == len(findings)

    # The block list lets training start.
    block = tmp_path / "work/block_list.txt"
    assert block.read_text().split() == sorted(names[:2])
    config.data.block_list = str(block)
    config.data.on_outside = "clip"
    (tmp_path / "run").mkdir()
    data = load_data(config, tmp_path / "run")
    assert {video.video_id for video in data.train} == set(names[2:])


def test_a_proposal_by_hand():
    actions = tuple(Action(float(i), i + 2.0, "run") for i in range(20))
    video = AnnotatedVideo("v", "training", 100.0, 30.0, actions)
    info = VideoInfo("v.mp4", 30.0, 3000, 100.0, 64, 64)
    found = propose([video], {"v": info}, clip_frames=16)
    # 2 s are 60 frames: every 15th makes four tokens of it.
    assert found.flags == {
        "window.sampling": "stride", "window.frame_stride": 15,
        "window.samples": 16, "window.tokens": 16, "head.num_levels": 2,
        "head.regression_edges": (4.0,)}
    assert propose([video], {}, clip_frames=16) is None
