"""The command line: what it prints, writes, keeps and refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest

from losa_jax import annotations
from losa_jax.data.annotations.load import load_annotations

TABLE = ("Datei;Klasse;Beginn;Ende;Gruppe\n"
         "a.mp4;hüpfen;0,5;1,25;1\nb.mp4;hüpfen;0:00:01;0:00:02;1\n"
         "c.mp4;laufen;1;2;2\nd.mp4;laufen;1;1;2\nd.mp4;laufen;1;3;2\n")
COLUMNS = "--columns=video=Datei,label=Klasse,start=Beginn,end=Ende"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_a_table_becomes_annotations_with_a_split_that_stays(table, capsys):
    output = table.parent / "new" / "annotations.json"
    command = [str(table), COLUMNS, f"--output={output}"]
    assert annotations.main(command) == 0
    printed = capsys.readouterr().out
    assert "a table: 1 file, 4 videos, 4 actions of 2 classes" in printed
    assert "left out (--points=SECONDS makes actions of them): 1" in printed
    assert "testing (2 videos, 2 actions), training (2 videos, 2" in printed
    before = load_annotations(output)
    assert before.class_names == ("hüpfen", "laufen")
    assert before.videos["a"].actions[0][:3] == (0.5, 1.25, "hüpfen")
    assert json.loads(output.read_text())["database"]["a"]["file"] == "a.mp4"
    # More videos, another seed: the known videos stay where they were. The
    # output in the folder of the input is no input.
    command = [str(table.parent), *command[1:]]
    table.write_text(TABLE + "".join(
        f"new_{number}.mp4;laufen;1;2;1\n" for number in range(6)))
    assert annotations.main([*command, "--seed=5"]) == 0
    assert "; 4 videos as before" in capsys.readouterr().out
    after = load_annotations(output)
    assert len(after.videos) == 10
    assert all(after.videos[name].subset == video.subset
               for name, video in before.videos.items())
    assert {one.subset for name, one in after.videos.items()
            if name.startswith("new")} == {"training"}  # 2 of 10 test


def test_the_command_of_the_docs_converts_a_table(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/videos.md").read_text()
    command = re.search(r"losa_jax\.annotations (.*)", page)[1]
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text(
        "video,label,start,end\nvideo_7,jump,1,2\nvideo_7,run,3,4.5\n"
        "video_8,jump,0,1\n", encoding="utf-8-sig")
    assert annotations.main(command.split()) == 0
    video = load_annotations("annotations.json").videos["video_7"]
    assert [(one.label, one.start_seconds, one.end_seconds)
            for one in video.actions] == [("jump", 1, 2), ("run", 3, 4.5)]


def test_subsets_of_the_input_are_kept_or_replaced(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("video,label,start,end,split\na,run,1,2,Train\n"
                    "b,run,1,2,Train\n")
    assert annotations.main([str(path)]) == 0
    assert "train (2 videos, 2 actions): the only one; --resplit makes a " \
        "split" in capsys.readouterr().out
    assert annotations.main([str(path), "--resplit"]) == 0
    assert "testing (1 video," in capsys.readouterr().out
    # A new split replaces that of the output, too.
    output = tmp_path / "split.json"
    output.write_text(json.dumps({"database": {
        "a": {"subset": "training"}, "b": {"subset": "training"}}}))
    assert annotations.main([str(path), "--resplit", "--group=([ab])",
                             f"--output={output}"]) == 0
    assert "testing (1 video, 1 action), training (1 video, 1 action), " \
        "split with --seed=0 by --group=([ab]) (2 groups)" in (
            capsys.readouterr().out)
    path.write_text("video,label,start,end,split\na,run,1,2,Train\n"
                    "b,run,1,2,\n")
    assert annotations.main([str(path)]) == 1
    assert "1 of 2 videos have no subset" in capsys.readouterr().err


@pytest.mark.shared
def test_videos_below_a_folder_are_matched_by_name(shared_dir, tmp_path,
                                                   capsys):
    videos = tmp_path / "videos" / "day 1"
    videos.mkdir(parents=True)
    shutil.copy(shared_dir / "data/gestures/videos/gestures_testing_0001.mp4",
                videos / "cam 1.mp4")
    (tmp_path / "a.csv").write_text(
        "video,label,start_frame,end_frame\ncam 1,run,0,24\n"
        "cam 1,run,1000000,2000000\ncam_1,run,0,1\n")
    command = [str(tmp_path / "a.csv"), f"--videos={tmp_path / 'videos'}"]
    assert annotations.main(command) == 1
    assert "the nearest there: day 1/cam 1.mp4" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text(
        "video,label,start_frame,end_frame\ncam 1,run,0,24\n"
        "cam 1,run,1000000,2000000\n")
    output = tmp_path / "a.json"
    assert annotations.main([*command, f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    assert "whose own rate counts their frames" in printed
    assert "actions that end after their video" in printed
    video = load_annotations(output).videos["cam 1"]
    assert video.fps and video.duration_seconds
    assert video.actions[0].end_seconds == pytest.approx(25 / video.fps)
    (tmp_path / "a.csv").write_text("video,label,start,end\nCam-1,run,0,1\n")
    assert annotations.main(command) == 0
    assert "the nearest there: day 1/cam 1.mp4" in capsys.readouterr().out
    # Frames of a video that needs its folder.
    shutil.copytree(videos, tmp_path / "videos" / "day 2")
    (tmp_path / "a.csv").write_text("video,label,start_frame,end_frame\n"
                                    "/x/day 2/cam 1.mp4,run,0,1\n")
    assert annotations.main([*command]) == 0


@pytest.mark.parametrize("arguments, message", [
    (["nowhere.csv"], "no such file or folder"),
    (["{table}"], "name them, as --columns"),
    (["{table}", COLUMNS, "--format=excel"], "choose one of elan"),
    (["{table}", COLUMNS, "--group=("], "no regular expression"),
    (["{table}", COLUMNS, "--output={table}"], "not JSON")])
def test_wrong_input_is_one_message(table, capsys, arguments, message):
    before = table.read_text()
    assert annotations.main([one.format(table=table)
                             for one in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert table.read_text() == before


@pytest.mark.parametrize("argument", [
    "--fps=0", "--points=-1", "--open_events=soon", "--columns=video",
    "--label_from=color", "--test_share=2"])
def test_wrong_options_are_usage_errors(table, argument):
    with pytest.raises(SystemExit) as end:
        annotations.main([str(table), argument])
    assert end.value.code == 2
