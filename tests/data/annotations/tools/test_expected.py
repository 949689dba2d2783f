"""Files of nineteen tools against what is in them."""

import json
import os
from pathlib import Path

import pytest

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.read import read_annotations
from losa_jax.errors import InputError

_TOOLS = Path(os.environ.get("LOSA_SHARED", "none")) / "data/annotation_tools"
# Options of the expected file under our names.
_NAMES = {"tiers": ("tiers", tuple), "annotator": ("annotator", str),
          "point_seconds": ("points", float),
          "background": ("background", lambda value: (value,)),
          "keep_values": ("background", lambda _: ()),
          "unreviewed": ("keep_unreviewed", lambda _: True),
          "use_predictions": ("keep_unreviewed", lambda _: True)}
# Words of our refusals for those that are expected.
_REFUSED = {"corrected_predictions.json": "--unreviewed=keep",
            "mouse 4.pred.csv": "--unreviewed=keep",
            "cp1252.csv": r"--encoding=cp1252 \(byte 0xfc in line 2\)",
            "wrong.csv": r"5 wrong entries:(.|\n)*line 2.*\n.*line 3.*\n.*"
                         r"line 4.*\n.*line 5.*\n.*line 6",
            "Labels-v2.json": "--points=2", "osl_v2.json": "--points=2"}


def _options(given, folder):
    chosen = {}
    for name, value in given.items():
        if name in ("config", "project"):
            chosen["companion"] = folder / value
        elif name != "class_names":
            key, convert = _NAMES.get(name, (name, lambda value: value))
            chosen[key] = convert(value)
    return chosen


def _cases():
    for expected in sorted(_TOOLS.glob("*/expected.json")):
        for name, entry in json.loads(expected.read_text()).items():
            path = expected.parent / name
            needs = _options(entry.get("needs", {}), expected.parent)
            yield pytest.param(path, needs, entry, id=name)
            for number, variant in enumerate(entry.get("variants", [])):
                yield pytest.param(path, needs | _options(
                    variant["options"], expected.parent), {
                    "actions": variant["actions"]}, id=f"{name}-{number}")


@pytest.mark.shared
@pytest.mark.parametrize("path, options, expected", [*_cases()])
def test_every_file_gives_the_expected_actions(path, options, expected):
    if "error" in expected:
        with pytest.raises(InputError, match=_REFUSED[path.name]):
            read_annotations([path], Options(**options))
        return
    reading = read_annotations([path], Options(**options))
    tolerance = expected.get("tolerance_seconds", 0.0005)
    got = sorted(reading.actions, key=lambda one: (
        one.video, round(one.start_seconds, 3), round(one.end_seconds, 3),
        one.label))
    want = sorted(expected["actions"], key=lambda one: (
        one["video"], round(one["start_seconds"], 3),
        round(one["end_seconds"], 3), one["label"]))
    assert [one[:2] for one in got] == [
        (one["video"], one["label"]) for one in want]
    for action, row in zip(got, want, strict=True):
        assert action.start_seconds == pytest.approx(
            row["start_seconds"], abs=tolerance)
        assert action.end_seconds == pytest.approx(
            row["end_seconds"], abs=tolerance)
        assert action.score == row.get("score", action.score)
        if "subset" in row:
            assert reading.videos[action.video].subset == row["subset"]
    if "videos" in expected:
        assert sorted(reading.videos) == sorted(expected["videos"])
        assert sorted(reading.points) == sorted(
            (one["video"], one["label"], one["seconds"])
            for one in expected.get("points", []))
        assert sorted(reading.open) == sorted(
            (one["video"], one["label"], one["start_seconds"])
            for one in expected.get("open", []))


@pytest.mark.shared
def test_all_files_of_the_set_are_tested(shared_dir):
    files = {path.relative_to(_TOOLS) for path in (
        shared_dir / "data/annotation_tools").rglob("*") if path.is_file()}
    tested = {case.values[0].relative_to(_TOOLS) for case in _cases()}
    assert {path.name for path in files - tested} == {
        "README.md", "expected.json", "config.xml", "data.json", "mapping.txt"}
