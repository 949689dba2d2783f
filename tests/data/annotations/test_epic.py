"""Tables of EPIC-KITCHENS-100 and EPIC-SOUNDS: layout, counts, refusals."""

import pytest

from losa_jax.data.annotations import epic, lint
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.tables import read_class_list
from losa_jax.errors import InputError

COLUMNS = ("narration_id,participant_id,video_id,start_timestamp,"
           "stop_timestamp,verb,verb_class,noun,noun_class\n")
TABLES = {
    "EPIC_100_train.csv": COLUMNS
    + "P01_01_0,P01,P01_01,00:00:01.00,00:01:02.50,grab,0,dish,1\n",
    "EPIC_100_validation.csv": COLUMNS
    + "P02_01_0,P02,P02_01,01:00:00.25,01:00:03.00,put-down,1,cup,0\n",
    "EPIC_100_video_info.csv": "video_id,duration,fps,resolution\n"
    "P01_01,100.5,59.94,1920x1080\nP02_01,4000,50.0,1920x1080\n",
    "EPIC_100_verb_classes.csv": "id,key,instances,category\n"
    "0,take,\"['take', 'grab']\",a\n1,put,\"['put', 'put-down']\",a\n",
    "EPIC_100_noun_classes.csv": "id,key,instances,category\n"
    "0,cup,\"['cup']\",b\n1,plate,\"['plate', 'dish']\",b\n"}
VERBS, NOUNS = "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv"
SEGMENTS = ("EPIC_100_train.csv", "EPIC_100_validation.csv",
            "EPIC_100_video_info.csv")


@pytest.fixture
def folder(tmp_path):
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def _paths(folder, *names):
    return ",".join(str(folder / name) for name in names)


@pytest.mark.parametrize("classes, labels, numbers", [
    ((VERBS,), ("take", "put"), (0, 1)), ((NOUNS,), ("plate", "cup"), (1, 0)),
    ((VERBS, NOUNS), ("take plate", "put cup"), (1, 300))])
def test_the_list_of_classes_decides_what_is_detected(folder, classes, labels,
                                                      numbers):
    # The order of the files does not matter.
    assert read_database(_paths(folder, *SEGMENTS, *classes)) == read_database(
        _paths(folder, *reversed(classes), *SEGMENTS)) == {
        "P01_01": {"subset": "training", "duration": 100.5, "annotations": [
            {"label": labels[0], "label_id": numbers[0],
             "segment": [1.0, 62.5]}]},
        "P02_01": {"subset": "validation", "duration": 4000.0,
                   "annotations": [
                       {"label": labels[1], "label_id": numbers[1],
                        "segment": [3600.25, 3603.0]}]}}


def test_the_test_set_has_times_only(folder):
    (folder / "EPIC_100_test_timestamps.csv").write_text(
        "narration_id,video_id,start_timestamp,stop_timestamp\n"
        "x,P02_01,00:00:01.00,00:00:02.00\n")
    assert read_database(_paths(folder, "EPIC_100_test_timestamps.csv",
                                SEGMENTS[2], VERBS)) == {
        "P02_01": {"subset": "testing", "duration": 4000.0,
                   "annotations": []}}


@pytest.mark.parametrize("name, old, new, message", [
    ("EPIC_100_train.csv", "P01_01,00", "P09_01,00", "row 2: the video P09_01 "
     "is not in"),
    ("EPIC_100_train.csv", "grab,0", "grab,7", "verb_class='7' is no class of "
     "a list of 2: give the lists of classes of this version"),
    ("EPIC_100_train.csv", "grab,0", "grab,1", "1 of 1 segments have a word "
     "that .*verb_classes.csv has under another class"),
    ("EPIC_100_train.csv", "00:01:02.50", "62.5", "stop_timestamp='62.5' is "
     "not hh:mm:ss.ss"),
    *(("EPIC_100_train.csv", "00:01:02.50", wrong, f"'{wrong}' is not hh:mm")
      for wrong in ("00:00:-2.50", "00:61:02.50", "nan:00:01", "inf:00:01")),
    ("EPIC_100_train.csv", "verb_class", "verb_id", "train.csv: no column "
     "verb_class"),
    ("EPIC_100_train.csv", ",0,dish,1", "", "row 2: has fewer cells than"),
    ("EPIC_100_video_info.csv", "P02_01,4000", "P01_01,4000", "row 3: the "
     "video P01_01 is there twice, with two durations"),
    ("EPIC_100_verb_classes.csv", "1,put", "1,take", "has take as the name of "
     "two classes"),
    ("EPIC_100_validation.csv", "P02_01,01", "P01_01,01", "the video P01_01 "
     "is of the subset training too"),
    ("EPIC_100_verb_classes.csv", "id,key,instances",
     "verb_id,class_key,verbs", "verb_classes.csv: is no table of segments, "
     "of durations .* or of classes of version 100"),
    ("EPIC_100_verb_classes.csv", "1,put", "2,put", "ids do not count up"),
    ("EPIC_100_video_info.csv", "duration", "seconds", "is no table of")])
def test_other_files_are_named(folder, name, old, new, message):
    path = folder / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_database(_paths(folder, *SEGMENTS, VERBS))


def test_what_epic_sounds_lacks_is_named(folder):
    sounds = folder / "EPIC_Sounds_train.csv"
    sounds.write_text("video_id,start_timestamp,stop_timestamp,class_id\n"
                      "P01_01,0:0:1.5,00:00:02.993,0\n")
    with pytest.raises(InputError, match="Sounds_train.csv: no column class"):
        read_database(_paths(folder, sounds.name, SEGMENTS[2]))
    sounds.write_text("class,video_id,start_timestamp,stop_timestamp,class_id"
                      "\na / b,P01_01,0:0:1.5,00:00:02.993,0\n")
    assert read_database(_paths(folder, sounds.name, SEGMENTS[2])) == {
        "P01_01": {"subset": "training", "duration": 100.5, "annotations": [
            {"label": "a / b", "label_id": 0, "segment": [1.5, 2.993]}]}}
    with pytest.raises(InputError, match="has classes of sounds: leave out"):
        read_database(_paths(folder, sounds.name, SEGMENTS[2], VERBS))


def test_missing_tables_are_named(folder):
    with pytest.raises(InputError, match="give the list of classes to detect"):
        read_database(_paths(folder, *SEGMENTS))
    with pytest.raises(InputError, match="once, EPIC_100_video_info.csv"):
        read_database(_paths(folder, *SEGMENTS[:2], VERBS))
    (folder / "unseen.csv").write_text("participant_id\nP18\n")
    with pytest.raises(InputError, match="unseen.csv: is no table of segments"):
        read_database(_paths(folder, "unseen.csv", *SEGMENTS[1:], VERBS))
    (folder / "a.csv").write_text(TABLES["EPIC_100_train.csv"])
    with pytest.raises(InputError, match="a.csv: its name tells no subset"):
        read_database(_paths(folder, "a.csv", SEGMENTS[2], VERBS))


def test_the_longer_list_of_nouns_is_refused(folder):
    (folder / "EPIC_100_noun_classes_v2.csv").write_text(
        "id,key,instances,category\n" + "".join(
            f"{number},noun{number},\"['x']\",a\n" for number in range(305)))
    with pytest.raises(InputError, match="lists 305 classes of nouns, the "
                       "challenge has 300: give EPIC_100_noun_classes.csv"):
        read_database(_paths(folder, *SEGMENTS,
                             "EPIC_100_noun_classes_v2.csv"))


@pytest.mark.shared
def test_counts_of_the_public_tables(shared_dir):
    folder = shared_dir / "data/more_datasets/epic_kitchens_100"
    segments = ("EPIC_100_validation.csv", "EPIC_100_video_info.csv")
    late = {"P29_05": 1}
    for classes, number in (((VERBS,), 78), ((NOUNS,), 211),
                            ((VERBS, NOUNS), 1352)):
        annotations = load_annotations(_paths(folder, *segments, *classes))
        videos = annotations.subset("validation")
        assert len(annotations.class_names) == number
        assert len(videos) == len(annotations.videos) == 138
        assert sum(len(video.actions) for video in videos) == 9668
        assert {video.video_id: sum(
            action.end_seconds > video.duration_seconds
            for action in video.actions) for video in videos
            if video.video_id in late} == late
        lengths = sorted(action.end_seconds - action.start_seconds
                         for video in videos for action in video.actions)
        assert lengths[0] == pytest.approx(0.5, abs=0.01)
        assert lengths[len(lengths) // 2] == pytest.approx(1.96, abs=0.005)
        # No duplicates, and the late end is within rounding.
        assert {category for video in videos
                for category in lint.find_faults(video)} == {
            lint.NEARLY_TWICE}
    tables = epic.EpicTables.of([folder / name for name in
                                 (*segments, VERBS, NOUNS)])
    assert {word: len(names) for word, names in tables.names().items()
            } == epic.NUM_CLASSES
    assert tables.targets == ("verb", "noun", "action")


@pytest.mark.shared
def test_counts_of_epic_sounds(shared_dir):
    folder = shared_dir / "data/more_datasets"
    annotations = load_annotations(
        f"{folder / 'epic_sounds/EPIC_Sounds_validation.csv'},"
        f"{folder / 'epic_kitchens_100/EPIC_100_video_info.csv'}")
    assert annotations.class_names == read_class_list(
        folder / "epic_sounds/classes.txt")
    assert len(annotations.subset("validation")) == 137
    late = [action.end_seconds - video.duration_seconds
            for video in annotations.videos.values()
            for action in video.actions
            if action.end_seconds > video.duration_seconds]
    assert len(late) == 21 and max(late) == pytest.approx(0.28, abs=0.01)
    assert sum(len(video.actions)
               for video in annotations.videos.values()) == 8035
