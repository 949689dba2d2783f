"""--mode=check_data names every fault of videos and annotations."""

import json
import shutil

import pytest

from losa_jax.data.annotations import load
from losa_jax.jobs.check_data import check_data
from losa_jax.jobs.setup import load_data


@pytest.fixture
def odd(config, tmp_path):
    """Returns the config of a tiny set with one fault of each category."""
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
    faults = {(one.video_id, one.category) for one in findings}
    assert faults == {
        (names[0], "missing or unreadable"),
        (names[1], "missing or unreadable"),
        (names[2], "another duration"), (names[2], "another frame rate"),
        (names[3], "actions outside"), (names[3], "actions given twice")}
    printed = capsys.readouterr().out
    assert "4 of 6 videos can be read" in printed
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
