"""`python -m losa_jax.init` makes a recipe of a folder and asks nothing."""

import json
import re
import runpy
import shlex
import shutil

import pytest

from losa_jax import annotations, init
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.reviews import JudgedAction, Review, write_annotations
from losa_jax.training.fitted_sizes import KEYS, automatic_keys
from tests.data.tiny_set import write_video

ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT>
 <HEADER TIME_UNITS="milliseconds">
  <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/{name}.mp4"
   MIME_TYPE="video/mp4"/></HEADER>
 <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="200"/>
  <TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="900"/></TIME_ORDER>
 <TIER TIER_ID="what" LINGUISTIC_TYPE_REF="t"><ANNOTATION>
  <ALIGNABLE_ANNOTATION ANNOTATION_ID="x" TIME_SLOT_REF1="a"
   TIME_SLOT_REF2="b"><ANNOTATION_VALUE>wave</ANNOTATION_VALUE>
  </ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
 <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""


def _add(folder, name, videos="videos"):
    (folder / videos).mkdir(parents=True, exist_ok=True)
    write_video(folder / videos / f"{name}.mp4", 1, frames=30)
    (folder / f"{name}.eaf").write_text(ELAN.format(name=name))


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of five videos and their ELAN files."""
    folder = tmp_path / "my set"
    for number in range(5):
        _add(folder, f"film{number}")
    return folder


def _config(folder):
    return runpy.run_path(str(folder / "recipe.py"))["get_config"]()


def _database(folder):
    return json.loads((folder / "annotations.json").read_text())["database"]


def test_a_folder_of_videos_and_elan_files_becomes_a_recipe(folder, capsys):
    assert init.main([str(folder)]) == 0
    config = _config(folder)
    assert config.name == "my set"
    assert config.data.annotations == str(folder / "annotations.json")
    assert config.data.videos == str(folder / "videos")
    assert config.data.reviews == str(folder / "predictions")
    assert automatic_keys(config) == list(KEYS)
    database = _database(folder)
    assert {entry["subset"] for entry in database.values()} == {
        "training", "testing"}
    assert database["film0"]["annotations"][0]["segment"] == [0.2, 0.9]
    printed = capsys.readouterr().out
    text = (folder / "recipe.py").read_text()
    for command in (
            f"python -m losa_jax.main --config='{folder}/recipe.py' "
            f"--workdir='{folder}/run'",
            f"python -m losa_jax.predict '{folder}/videos' "
            f"--checkpoint='{folder}/run' --output='{folder}/predictions' "
            "--report",
            f"python -m losa_jax.review '{folder}/predictions'"):
        assert command in printed and command in text


def test_a_folder_that_was_moved_keeps_its_recipe(folder, tmp_path):
    init.main([str(folder)])
    moved = folder.rename(tmp_path / "moved")
    assert _config(moved).data.videos == str(moved / "videos")


def test_new_annotations_are_read_and_known_videos_keep_their_side(folder,
                                                                   capsys):
    init.main([str(folder)])
    before = _database(folder)
    (folder / "recipe.py").write_text("changed by hand")
    # What the commands of the loop wrote is no input.
    for name in ("run", "predictions", "features"):
        (folder / name).mkdir()
        (folder / name / "map.json").write_text('{"database": {}}')
    _add(folder, "film5")
    assert init.main([str(folder)]) == 0
    after = _database(folder)
    assert set(after) == {*before, "film5"}
    assert all(after[name]["subset"] == entry["subset"]
               for name, entry in before.items())
    assert (folder / "recipe.py").read_text() == "changed by hand"
    assert "recipe.py is there already and is kept" in capsys.readouterr().out


def test_annotations_that_a_person_wrote_are_not_replaced(folder, capsys):
    own = {"database": {"film0": {"subset": "training", "annotations": []}}}
    (folder / "annotations.json").write_text(json.dumps(own))
    assert init.main([str(folder)]) == 0
    assert json.loads((folder / "annotations.json").read_text()) == own
    assert "is taken as it is" in capsys.readouterr().out


def test_videos_may_lie_in_the_folder_itself(tmp_path):
    _add(tmp_path, "film", videos=".")
    _add(tmp_path, "more", videos="sub")
    assert init.main([str(tmp_path)]) == 0
    assert _config(tmp_path).data.videos == str(tmp_path)


def test_actions_that_were_marked_in_the_page_are_split(folder):
    for path in folder.glob("*.eaf"):
        path.unlink()
    action = JudgedAction("h0123456789ab", "wave", 0.2, 0.9, "accepted", "ann",
                          "2026-11-30T14:00:00+00:00")
    write_annotations(folder / "reviewed.json", [Review(
        f"film{number}", 1.2, 25.0, 1, number != 4, (action,))
        for number in range(5)])
    assert init.main([str(folder)]) == 0
    sides = {name: entry["subset"] for name, entry
             in _database(folder).items()}
    assert set(sides) == {f"film{number}" for number in range(4)}
    assert sorted(sides.values()).count("testing") == 1


def test_a_backbone_is_a_name_a_converted_folder_or_a_file(folder, config,
                                                           tmp_path):
    converted = config.backbone.checkpoint
    checkpoint = f"{converted}.safetensors"
    for backbone, expected in (
            ("owner/name", "owner/name"), (converted, converted),
            (checkpoint, str(folder / "backbone"))):
        (folder / "recipe.py").unlink(missing_ok=True)
        assert init.main([str(folder), f"--backbone={backbone}"]) == 0
        assert _config(folder).backbone.checkpoint == expected
    assert (folder / "backbone/backbone.json").is_file()


@pytest.mark.parametrize("spoil, message", [
    (shutil.rmtree, "is no folder: name the one that holds the videos"),
    (lambda folder: shutil.rmtree(folder / "videos"), "holds no videos: copy"),
    (lambda folder: [path.unlink() for path in folder.glob("*.eaf")],
     "holds videos but no annotations: copy the files of your annotation tool "
     "into it, or mark actions in a browser with `python -m losa_jax.review "),
    (lambda folder: (folder / "film1.eaf").write_text(""),
     "film1.eaf: is empty: it may still be written")])
def test_what_is_missing_is_named(folder, capsys, spoil, message):
    spoil(folder)
    assert init.main([str(folder)]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "recipe.py").exists()


@pytest.mark.parametrize("name", [
    'three """ quotes"', "back\\x \\N", "two\nlines", "{braces} %s", "a, b"])
def test_a_recipe_of_a_folder_of_any_name_can_be_read(tmp_path, name):
    _add(tmp_path / name, "film")
    assert init.main([str(tmp_path / name)]) == 0
    config = _config(tmp_path / name)
    assert config.data.videos == str(tmp_path / name / "videos")
    assert set(load_annotations(config.data.annotations).videos) == {"film"}
    # The commands in the docstring are those that were printed.
    text = runpy.run_path(str(tmp_path / name / "recipe.py"))["__doc__"]
    assert str(tmp_path / name / "recipe.py") in text


def test_a_path_that_no_command_can_name_is_refused(tmp_path, capsys):
    _add(tmp_path / "a:b", "film")
    assert init.main([str(tmp_path / "a:b")]) == 1
    assert "has a colon in its path" in capsys.readouterr().err


@pytest.mark.parametrize("content, message", [
    ([1], "Mapping|database"), ({"database": {"film0": {"annotations": [
        {"label": "wave", "segment": [0.1, 0.9]}]}}}, 'has no "subset"')])
def test_annotations_that_no_training_takes_are_named_with_the_remedy(
        folder, capsys, content, message):
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    assert init.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "give this file another name: this command then reads it" in error
    assert json.loads(path.read_text()) == content
    # As the message says.
    for eaf in folder.glob("*.eaf"):
        eaf.unlink()
    path.rename(folder / "marks.json")
    assert init.main([str(folder)]) == ("database" not in content)


def test_what_a_tool_leaves_open_is_decided_by_the_command_that_is_named(
        folder, capsys):
    (folder / "more.csv").write_text(
        "video,label,start,end\nfilm0.mp4,jump,0.1,0.5\n")
    assert init.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert "choose one with --format=NAME" in error
    command = re.search("`python -m losa_jax.annotations (.*)`", error)[1]
    assert annotations.main([*shlex.split(command), "--format=elan"]) == 0
    before = (folder / "annotations.json").read_text()
    assert init.main([str(folder)]) == 0
    assert (folder / "annotations.json").read_text() == before


def test_a_kept_recipe_is_compared_with_the_command(folder, config, capsys):
    assert init.main([str(folder)]) == 0
    assert init.main([str(folder)]) == 0
    assert "lacks these lines" not in capsys.readouterr().out
    _add(folder, "late", videos="later")
    backbone = config.backbone.checkpoint
    assert init.main([str(folder), f"--backbone={backbone}"]) == 0
    printed = capsys.readouterr().out
    assert (f"    config.data.videos = str(FOLDER)\n"
            f"    config.backbone.checkpoint = '{backbone}'\n") in printed


def test_annotations_without_their_files_stay(folder, capsys):
    _add(folder, "unmarked")
    (folder / "unmarked.eaf").unlink()
    assert init.main([str(folder)]) == 0
    assert "6 videos, 5 of them in the annotations" in capsys.readouterr().out
    for path in folder.glob("*.eaf"):
        path.unlink()
    assert init.main([str(folder)]) == 0
    assert "annotations.json stays as it is" in capsys.readouterr().out


def test_a_table_of_unknown_columns_is_named_with_the_option(folder, capsys):
    for path in folder.glob("*.eaf"):
        path.unlink()
    (folder / "m.csv").write_text("film,what,from,to\nfilm0.mp4,jump,0.1,0.5\n")
    assert init.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert "m.csv: a table whose columns are not known" in error
    assert "give the option to `python -m losa_jax.annotations " in error


def test_a_converted_backbone_is_not_taken_for_another(folder, config, capsys):
    checkpoint = f"{config.backbone.checkpoint}.safetensors"
    for expected in (False, True):
        assert init.main([str(folder), f"--backbone={checkpoint}"]) == 0
        assert ("backbone is there already and is kept: to convert"
                in capsys.readouterr().out) == expected


def test_videos_in_a_folder_for_results_are_named(tmp_path, capsys):
    _add(tmp_path, "film", videos="run")
    assert init.main([str(tmp_path)]) == 1
    assert "1 video below run, predictions, " in capsys.readouterr().out
