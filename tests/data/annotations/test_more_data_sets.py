"""MultiTHUMOS and Charades: layouts, counts of the public files, faults."""

import json
from collections import Counter

import pytest

from losa_jax.data.annotations import lint, thumos_facts
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.annotations.tables import read_class_list
from losa_jax.detection.metrics import evaluate_map
from losa_jax.errors import InputError


def _counts(annotations):
    """{subset: (videos, actions, videos without one)}."""
    return {subset: (len(videos), sum(len(one.actions) for one in videos),
                     sum(not one.actions for one in videos))
            for subset in {one.subset for one in annotations.videos.values()}
            for videos in [annotations.subset(subset)]}


def _faults(annotations):
    """{category: {video: detail}}."""
    categories = {}
    for name, video in annotations.videos.items():
        for category, detail in lint.find_faults(video).items():
            categories.setdefault(category, {})[name] = detail
    return categories


def _past_the_end(annotations):
    return Counter(
        name for name, video in annotations.videos.items()
        for action in video.actions
        if action.end_seconds > video.duration_seconds)


def _write(folder, **files):
    for name, content in files.items():
        name = name.replace("_", ".")
        (folder / name).write_text(content if isinstance(content, str)
                                   else json.dumps(content))


def test_classes_are_counted_from_0_or_1_as_the_file_shows(tmp_path):
    names = ["run", "jump", "fall"]
    _write(tmp_path, classes_txt="\n".join(names))
    for first in (0, 1):
        _write(tmp_path, a_json={"v": {
            "subset": "testing", "duration": 9.0, "actions": [
                [first, 0.5, 1.5], [first + 2, 2, 4.0]]}})
        assert read_database(f"{tmp_path}/a.json,{tmp_path}/classes.txt") == {
            "v": {"subset": "testing", "duration": 9.0, "annotations": [
                {"label": "run", "label_id": 0, "segment": [0.5, 1.5]},
                {"label": "fall", "label_id": 2, "segment": [2, 4.0]}]}}


@pytest.mark.parametrize("actions, names, message", [
    ([[2, 0, 1]], "a\nb\nc\n", "numbers 2 to 2, but .* has 3 classes: give "
                               "the class list of this version"),
    ([[0, 0, 1], [3, 0, 1]], "a\nb\nc\n", "0 to 3, but .* has 3 classes"),
    ([["run", 0, 1]], "a\nb\n", "v: the action .* is not .number of the"),
    ({}, "a\n", "v has no list \"actions\"")])
def test_class_lists_of_another_version_are_refused(tmp_path, actions, names,
                                                    message):
    _write(tmp_path, classes_txt=names, a_json={
        "v": {"subset": "x", "actions": actions}})
    with pytest.raises(InputError, match=message):
        read_database(f"{tmp_path}/a.json,{tmp_path}/classes.txt")
    if actions:
        with pytest.raises(InputError, match="give the list of its classes"):
            read_database(tmp_path / "a.json")


@pytest.mark.parametrize("text", [
    "run\njump\n", "1 run\n2 jump\n", "c000 run\nc001 jump\n",
    '000\t"run"\n001\t"jump"\n'])
def test_class_lists_may_have_numbers(tmp_path, text):
    _write(tmp_path, a_txt=text)
    assert read_class_list(tmp_path / "a.txt") == ("run", "jump")


def test_class_lists_with_gaps_or_twins_are_refused(tmp_path):
    _write(tmp_path, a_txt="1 run\n3 jump\n", b_txt="run\nrun\n")
    with pytest.raises(InputError, match="do not count up from 0 or 1"):
        read_class_list(tmp_path / "a.txt")
    with pytest.raises(InputError, match="name each class once"):
        read_class_list(tmp_path / "b.txt")


def test_the_official_tables_of_charades_are_read(tmp_path):
    header = "id,subject,actions,length\n"
    for name, row in (
            ("train", 'AAAA,S1,"c001 11.90 21.20;c000 0.00 12.60",24.83\n'
                      "BBBB,S2,,30.10\n"),
            ("test", 'CCCC,S3,c001 38.0 13.0,29.00\n')):
        (tmp_path / f"Charades_v1_{name}.csv").write_text(header + row)
    (tmp_path / "Charades_v1_classes.txt").write_text(
        "c000 Feeding a cat\nc001 Opening a tin\n")
    source = ",".join(f"{tmp_path}/Charades_v1_{name}" for name in (
        "train.csv", "test.csv", "classes.txt"))
    annotations = load_annotations(source)
    assert annotations.class_names == ("Feeding a cat", "Opening a tin")
    assert _counts(annotations) == {"training": (2, 2, 1),
                                    "testing": (1, 1, 0)}
    assert annotations.videos["AAAA"].duration_seconds == 24.83
    assert annotations.videos["AAAA"].actions[0][:3] == (
        11.9, 21.2, "Opening a tin")
    assert set(_faults(annotations)[lint.REVERSED]) == {"CCCC"}
    with pytest.raises(InputError, match="give Charades_v1_classes.txt too"):
        read_database(tmp_path / "Charades_v1_train.csv")
    path = tmp_path / "Charades_v1_test.csv"
    for wrong, message in (
            ("c002 1 2", "class c002, but .* has 2 classes"),
            ("c001-1-2", "the action 'c001-1-2' is not `c092")):
        path.write_text(f"{header}CCCC,S3,{wrong},29.00\n")
        with pytest.raises(InputError, match=message):
            read_database(source)
    path.write_text(f"{header}AAAA,S3,,29.00\n")
    with pytest.raises(InputError, match="row 2: the video AAAA is there"):
        read_database(source)
    path.write_text(f"{header}CCCC,S3\n")
    with pytest.raises(InputError, match="row 2: has fewer cells than the 4"):
        read_database(source)
    path.write_text("id,length\nCCCC,29.00\n")
    with pytest.raises(InputError, match="test.csv: no column actions"):
        read_database(source)


def test_tables_of_charades_are_read_in_any_order_and_spacing(tmp_path):
    _write(tmp_path, classes_txt="c000 a\nc001 b\n")
    table = tmp_path / "constrained_test.csv"
    # Lines may end in quotes, as in descriptions.
    table.write_bytes(b'\xef\xbb\xbfid,script,actions,length,extra\r\n'
                      b'AAAA,"one\r\n""two"", three","c001 1 2; c000  0 4;",'
                      b'9.0,\r\n')
    (video,) = read_database(f"{tmp_path}/classes.txt,{table}").values()
    assert video == {"subset": "testing", "duration": 9.0, "annotations": [
        {"label": "b", "label_id": 1, "segment": ["1", "2"]},
        {"label": "a", "label_id": 0, "segment": ["0", "4"]}]}
    table.write_text("id,script,actions,length\nA,x\u2028y,,3\nB,,,4\n",
                     encoding="utf-8")
    assert [*read_database(f"{table},{tmp_path}/classes.txt")] == ["A", "B"]
    table = table.rename(tmp_path / "charades.csv")
    with pytest.raises(InputError, match="charades.csv: its name tells no"):
        read_database(f"{table},{tmp_path}/classes.txt")
    with pytest.raises(InputError, match="charades.csv: is given twice"):
        read_database(f"{table},{table},{tmp_path}/classes.txt")
    table.write_text("")
    with pytest.raises(InputError, match="charades.csv: is empty"):
        read_database(f"{table},{tmp_path}/classes.txt")


def test_class_lists_of_another_data_set_are_named(tmp_path):
    """By the number from which they count."""
    _write(tmp_path, from0_txt="c000 a\nc001 b\n", from1_txt="1 a\n2 b\n",
           a_json={"v": {"subset": "x", "actions": [[1, 0, 1], [2, 0, 1]]}},
           named_json={"v": {"subset": "x", "annotations": []}})
    assert read_database(f"{tmp_path}/a.json,{tmp_path}/from1.txt")
    with pytest.raises(InputError, match="counts its classes from 0, the "
                                         "annotations from 1"):
        read_database(f"{tmp_path}/a.json,{tmp_path}/from0.txt")
    (tmp_path / "test.csv").write_text("id,actions,length\nA,c001 1 2,9\n")
    with pytest.raises(InputError, match="counts its classes from 1"):
        read_database(f"{tmp_path}/test.csv,{tmp_path}/from1.txt")
    with pytest.raises(InputError, match="from1.txt beside it has no use"):
        read_database(f"{tmp_path}/named.json,{tmp_path}/from1.txt")


@pytest.mark.shared
def test_counts_and_faults_of_multithumos(shared_dir):
    folder = shared_dir / "data/more_datasets/multithumos"
    source = f"{folder / 'multithumos.json'},{folder / 'classes.txt'}"
    annotations = load_annotations(source)
    assert annotations.class_names == read_class_list(folder / "classes.txt")
    # THUMOS-14's classes are the first twenty, in its order.
    assert annotations.class_names[:20] == thumos_facts.CLASS_NAMES
    assert _counts(annotations) == {"training": (200, 18482, 0),
                                    "testing": (213, 20208, 0)}
    for video, (fps, seconds) in thumos_facts.SLOW_VIDEOS.items():
        assert annotations.videos[video].fps == fps
        assert annotations.videos[video].duration_seconds == seconds
    past = _past_the_end(annotations)
    assert past.total() == 65
    assert past["video_test_0000270"] == 22
    assert past["video_test_0000814"] == 3
    assert {name for name in past if past[name] == 2} == {
        f"video_validation_0000{number}" for number in (413, 411, 364, 856)}
    faults = _faults(annotations)
    assert set(faults[lint.OUTSIDE]) == set(past)
    assert set(faults[lint.EMPTY]) == {
        "video_test_0000737", *(f"video_validation_0000{number}"
                                for number in (155, 159, 160))}
    assert lint.REVERSED not in faults
    clipped = _counts(clipped_to(annotations, {}, "clip"))
    # 3 and 4 are empty, 8 and 52 begin behind the end.
    assert clipped["training"][1] == 18482 - 3 - 8
    assert clipped["testing"][1] == 20208 - 4 - 52


@pytest.mark.shared
def test_tridets_file_of_multithumos_has_known_faults(shared_dir):
    folder = shared_dir / "data/more_datasets/multithumos"
    four = load_annotations(folder / "tridetplus_4_videos.json")
    whole = load_annotations(f"{folder / 'multithumos.json'},"
                             f"{folder / 'classes.txt'}")
    for name, video in four.videos.items():
        assert ({action[:3] for action in video.actions}
                <= {action[:3] for action in whole.videos[name].actions})
    assert {name: len(video.actions) for name, video in four.videos.items()
            } == {"video_validation_0000266": 111, "video_test_0000737": 49,
                  "video_test_0001255": 393, "video_validation_0000160": 95}
    # 30 frames a second for all videos; this one has 25.
    faults = _faults(four)
    assert "has 25, which is used" in faults[lint.WRONG_DURATION][
        "video_test_0001255"]
    assert four.videos["video_test_0001255"].fps == 25.0


@pytest.mark.shared
def test_counts_and_faults_of_charades(shared_dir, caplog):
    folder = shared_dir / "data/more_datasets/charades"
    annotations = load_annotations(
        f"{folder / 'charades.json'},{folder / 'classes.txt'}")
    assert len(annotations.class_names) == 157
    assert _counts(annotations) == {"training": (7985, 49809, 174),
                                    "testing": (1863, 16691, 49)}
    past = Counter(
        video.subset for video in annotations.videos.values()
        for action in video.actions
        if action.end_seconds > video.duration_seconds)
    assert past == {"training": 14596, "testing": 5027}
    faults = _faults(annotations)
    turned = [action for name in faults[lint.REVERSED]
              for action in annotations.videos[name].actions
              if action.end_seconds < action.start_seconds]
    assert len(turned) == 7 and (38.0, 13.0) in [one[:2] for one in turned]
    clipped = _counts(clipped_to(annotations, {}, "clip"))
    assert clipped["training"][1] == 49809 - 7
    assert clipped["testing"][1] == 16691
    # Not one warning for each.
    assert len(caplog.records) == 101
    assert "19413 more actions were cut and 7 dropped" in caplog.messages[-1]


# After our rules: 1 ms long or longer, none twice.
@pytest.mark.shared
@pytest.mark.parametrize("name, subset, left", [
    ("multithumos", "training", 18479), ("multithumos", "testing", 20204),
    ("charades", "training", 49802), ("charades", "testing", 16691)])
def test_actions_that_are_scored(shared_dir, name, subset, left):
    folder = shared_dir / "data/more_datasets" / name
    annotations = load_annotations(
        f"{folder / name}.json,{folder / 'classes.txt'}")
    truth = {video.video_id: [action[:3] for action in video.actions]
             for video in annotations.subset(subset)}
    report = evaluate_map(truth, {}, class_names=annotations.class_names,
                          tiou_thresholds=(0.5,))
    assert report.num_actions == left
    assert report.num_removed_actions == sum(map(len, truth.values())) - left
    assert (report.actions_per_class > 0).all()
