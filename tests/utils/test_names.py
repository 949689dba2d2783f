"""Names of videos and classes: what is no name, and which are near."""

import pytest

from losa_jax.utils import names


@pytest.mark.parametrize("name", ["jump", "long jump", "#1", "跳躍", "étude_1",
                                  "kitchen 03 (missing)", "می‌پرد"])
def test_names_of_all_languages_are_names(name):
    assert names.name_problem(name) == ""


@pytest.mark.parametrize("name, problem", [
    ("", "is empty"), (" \u3000", "is empty"), ("a\nb", "not printable"),
    ("a\ud800", "not printable"), ("a\x1b[2J", "not printable"),
    ("jump ", "at its ends"), ("\u00a0jump", "at its ends"),
    ("\ufeffjump", "at its ends"), ("jump\u200b", "at its ends")])
def test_what_is_no_name_is_told(name, problem):
    assert problem in names.name_problem(name)


@pytest.mark.parametrize("name, near", [
    ("highjump", "HighJump"), ("HighJump ", "HighJump"),
    ("high_jump", "HighJump"), ("HihgJump", "HighJump"),
    ("bird_1.mp4", "bird_1"), ("xyz", None)])
def test_the_nearest_name_ignores_case_and_blanks(name, near):
    assert names.did_you_mean(name, ["HighJump", "bird_1"]) == (
        f"; did you mean {near!r}?" if near else "")


def test_names_that_are_alike_are_grouped():
    assert names.alike(["jump", "Jump", "run", "long jump", "LongJump"]) == [
        ["jump", "Jump"], ["long jump", "LongJump"]]
    assert names.alike(["jump", "ju\u200bmp", "j\u00adump"]) == [
        ["jump", "ju\u200bmp", "j\u00adump"]]
    assert names.alike(["v.1", "v.2", "v.mp4"]) == []
    assert names.without_ending("v.1.MP4") == "v.1"
