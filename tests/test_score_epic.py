"""The protocol of EPIC-KITCHENS-100 against a loop after its official kit."""

import csv
import json

import numpy as np
import pytest

from losa_jax import score

TABLES = ("EPIC_100_validation.csv", "EPIC_100_video_info.csv",
          "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def _seconds(text):
    hours, minutes, seconds = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _truth(path):
    """{video: [(start, end, verb number, noun number)]}, read anew."""
    truth = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            truth.setdefault(row["video_id"], []).append((
                _seconds(row["start_timestamp"]),
                _seconds(row["stop_timestamp"]), int(row["verb_class"]),
                int(row["noun_class"])))
    return truth


def _label(verb, noun, target):
    return {"verb": verb, "noun": noun, "action": f"{verb},{noun}"}[target]


def _loop(truth, results, target):
    """mAP at each threshold: one prediction after another."""
    actions = [(video, *row[:2], _label(*row[2:], target))
               for video, rows in truth.items() for row in rows]
    labels = sorted({row[3] for row in actions}, key=str)
    rows = [(video, *row["segment"], row[target], row["score"])
            for video, own in results.items() for row in own
            if row[target] in labels]
    precisions = []
    for label in labels:
        own = [row for row in actions if row[3] == label]
        ranked = sorted((row for row in rows if row[3] == label),
                        key=lambda row: -row[4])
        per_threshold = []
        for threshold in THRESHOLDS:
            taken, hits = set(), []
            for video, start, end, *_ in ranked:
                overlaps = []
                for place, one in enumerate(own):
                    if one[0] == video:
                        shared = max(0, min(end, one[2]) - max(start, one[1]))
                        union = end - start + one[2] - one[1] - shared
                        overlaps.append((shared / union, place))
                for overlap, place in sorted(overlaps, reverse=True):
                    if overlap < threshold:
                        hits.append(0)
                        break
                    if place not in taken:
                        taken.add(place)
                        hits.append(1)
                        break
                else:
                    hits.append(0)
            true = np.cumsum(hits)
            precision = true / np.arange(1, len(hits) + 1)
            area, best = 0.0, 0.0
            for place in range(len(hits) - 1, -1, -1):
                best = max(best, precision[place])
                area += best * hits[place]
            per_threshold.append(area / len(own))
        precisions.append(per_threshold)
    return np.mean(precisions, axis=0)


def _submission(truth, rng, per_action=2, num_verbs=97, num_nouns=300):
    results = {}
    for video, rows in truth.items():
        own = results.setdefault(video, [])
        for start, end, verb, noun in rows:
            for _ in range(per_action):
                shift = rng.normal(0, 0.3, 2) * (end - start)
                if rng.random() < 0.3:
                    verb = int(rng.integers(num_verbs))
                if rng.random() < 0.3:
                    noun = int(rng.integers(num_nouns))
                first, last = sorted((start + shift[0], end + shift[1]))
                own.append({"segment": [first, last + 0.01],
                            "score": float(rng.random()), "verb": verb,
                            "noun": noun, "action": f"{verb},{noun}"})
    return {"version": "0.2", "challenge": "action_detection", "sls_pt": 2,
            "sls_tl": 3, "sls_td": 4, "results": results}


@pytest.mark.shared
def test_verbs_nouns_and_actions_of_the_validation_set(shared_dir, tmp_path,
                                                       capsys):
    folder = shared_dir / "data/more_datasets/epic_kitchens_100"
    truth = _truth(folder / TABLES[0])
    few = dict(list(truth.items())[:25])
    submission = _submission(few, np.random.default_rng(0))
    (tmp_path / "submission.json").write_text(json.dumps(submission))
    assert score.main([
        str(tmp_path / "submission.json"), "--protocol=epic",
        "--annotations=" + ",".join(str(folder / name) for name in TABLES),
        "--subset=validation", f"--json={tmp_path / 'out.json'}"]) == 0
    scores = json.loads((tmp_path / "out.json").read_text())
    assert [*scores] == ["verb", "noun", "action"]
    for target, classes in (("verb", 78), ("noun", 211), ("action", 1352)):
        report = scores[target]
        assert report["num_videos"] == 138
        assert report["num_actions"] == 9668
        assert len(report["class_names"]) == classes
        assert report["tiou_thresholds"] == [*THRESHOLDS]
        np.testing.assert_allclose(
            report["map_per_threshold"],
            _loop(truth, submission["results"], target), atol=1e-9)
    output = capsys.readouterr().out
    assert "average mAP in percent: verb " in output


@pytest.fixture
def files(tmp_path):
    (tmp_path / TABLES[0]).write_text(
        "video_id,start_timestamp,stop_timestamp,verb,verb_class,noun,"
        "noun_class\nv,00:00:01.0,00:00:02.0,take,0,cup,1\n")
    (tmp_path / TABLES[1]).write_text(
        "video_id,duration,fps\nv,10.0,50.0\n")
    for name, words in zip(TABLES[2:], (("take", "put"), ("lid", "cup")),
                           strict=True):
        (tmp_path / name).write_text("id,key,instances\n" + "".join(
            f"{number},{word},\"['{word}']\"\n"
            for number, word in enumerate(words)))
    (tmp_path / "submission.json").write_text(json.dumps({"results": {"v": [
        {"segment": [1.0, 2.0], "score": 0.5, "verb": 0, "noun": 0,
         "action": "0,0"},
        {"segment": [1.0, 2.0], "score": 0.4, "verb": 1, "noun": 1,
         "action": "1,1"}]}}))
    return tmp_path


def _run(folder, *flags, tables=TABLES):
    return score.main([
        str(folder / "submission.json"), "--protocol=epic",
        "--annotations=" + ",".join(str(folder / name) for name in tables),
        "--subset=validation", f"--json={folder / 'out.json'}", *flags])


def test_each_target_has_its_own_matches(files):
    assert _run(files) == 0
    scores = json.loads((files / "out.json").read_text())
    # Nouns that are no class of an action are left out.
    assert {target: report["average_map"] for target, report in scores.items()
            } == {"verb": 1.0, "noun": 1.0, "action": 0.0}


def test_actions_that_are_given_twice_count_twice_as_in_the_kit(files):
    path = files / TABLES[0]
    path.write_text(path.read_text() + 2 * (
        "v,00:00:05.0,00:00:06.0,put,1,cup,1\n"))
    assert _run(files) == 0
    report = json.loads((files / "out.json").read_text())["verb"]
    assert (report["num_actions"], report["average_map"]) == (3, 0.5)


def test_entries_without_numbers_are_named(files, capsys):
    path = files / "submission.json"
    content = path.read_text()
    for wrong, shown in ((9, 9), (0.5, 0.5), ("Infinity", "inf")):
        path.write_text(content.replace('"verb": 1', f'"verb": {wrong}'))
        assert _run(files) == 1
        assert (f"video 'v', entry 1: verb {shown} is not a number from 0 "
                "to 1" in capsys.readouterr().err)
    path.write_text(content.replace('"action":', '"other":'))
    assert _run(files) == 1
    assert "action None is not \"verb,noun\"" in capsys.readouterr().err
    path.write_text(content)
    assert _run(files, tables=TABLES[:3]) == 1
    assert "give EPIC_100_verb_classes.csv and" in capsys.readouterr().err
