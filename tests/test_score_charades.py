"""The file of Charades' official kit, `id frame scores`, against a loop."""

import json

import numpy as np
import pytest

from losa_jax import score


def _charades(folder, lines, *flags):
    """A test table of two videos, with three classes, and a submission."""
    (folder / "Charades_v1_test.csv").write_text(
        "id,actions,length\nA,c000 1 3;c002 0 9,10\nB,c001 2 4,20\n")
    (folder / "classes.txt").write_text("c000 x\nc001 y\nc002 z\n")
    (folder / "moments.txt").write_text("".join(
        " ".join(map(str, line)) + "\n" for line in lines))
    return score.main([
        str(folder / "moments.txt"), "--subset=testing", "--per_frame=charades",
        f"--annotations={folder}/Charades_v1_test.csv,{folder}/classes.txt",
        f"--json={folder / 'out.json'}", *flags])


def test_the_official_submission_of_charades_is_scored_as_by_its_kit(tmp_path):
    rng = np.random.default_rng(0)
    # Of few different scores; A lacks its last frames.
    scores = {(video, frame): rng.integers(0, 4, 3) / 2 for video, frames in (
        ("A", 20), ("B", 25), ("C", 25)) for frame in range(1, frames + 1)}
    assert _charades(tmp_path, [(*key, *row) for key, row in scores.items()]
                     ) == 0
    report = json.loads((tmp_path / "out.json").read_text())["per_frame"]
    actions = {"A": (10, [(0, 1, 3), (2, 0, 9)]), "B": (20, [(1, 2, 4)])}
    for k in range(3):
        rows = [(scores.get((video, j + 1), np.full(3, -np.inf))[k], any(
            label == k and start <= j / 25 * length <= end
            for label, start, end in own))
            for video, (length, own) in actions.items() for j in range(25)]
        ranked = [is_action for _, is_action in sorted(
            rows, key=lambda row: -row[0])]
        hits = [sum(ranked[:place + 1]) / (place + 1)
                for place, is_action in enumerate(ranked) if is_action]
        assert report["positives_per_class"][k] == len(hits)
        assert report["average_precision"][k] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("lines, message", [
    ([("A", 0, 1, 1, 1)], "line 1: frame 0 is not a number from 1 to 25"),
    ([("A", 1, 1, 1)], "has scores of 2 classes"), ([], "is empty"),
    ([("A", 1, 1, 1, 1), ("A", 1, 1, 1, 1)], "line 2: frame 1 of A is there"),
    ([("A", 1, 1, 1, 1), ("A", 2, 1, 1)], "line 2: has 2 scores, line 1 has 3"),
    ([("A", 1, 1, 1, "nan")], "all must be finite"),
    ([("C", 1, 1, 1, 1)], "none of its 1 videos, the first C, is of subset"),
    ([("A", 1)], "'A 1' is not `id frame scores")])
def test_damaged_submissions_of_charades_are_named(tmp_path, capsys, lines,
                                                   message):
    assert _charades(tmp_path, lines) == 1
    assert message in capsys.readouterr().err


def test_segments_are_needed_for_a_diagnosis(tmp_path, capsys):
    assert _charades(tmp_path, [("A", 1, 1, 1, 1)], "--diagnose=x") == 1
    assert "no segments: leave out --diagnose" in capsys.readouterr().err


def test_all_videos_left_out_are_an_error(tmp_path, capsys):
    block_list = tmp_path / "block.txt"
    block_list.write_text("A\nB\n")
    assert _charades(tmp_path, [("A", 1, 1, 1, 1)],
                     f"--videos={block_list}") == 1
    assert "leaves out all videos of subset 'testing'" in (
        capsys.readouterr().err)
