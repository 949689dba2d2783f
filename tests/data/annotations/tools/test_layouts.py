"""Small documents of each tool with one trap each, without shared data."""

import gzip
import json
import zipfile

import pytest

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.read import read_annotations
from losa_jax.errors import InputError


def _read(tmp_path, name, content, **options):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str)
                        else json.dumps(content), encoding="utf-8")
    return read_annotations([path], Options(**options))


def _rows(reading):
    return [(one.video, one.label, round(one.start_seconds, 4),
             round(one.end_seconds, 4)) for one in reading.actions]


def _eaf(slots, tiers, media='MEDIA_URL="file:///a/v.mp4"', units=""):
    times = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="{name}"' + (
            "/>" if value is None else f' TIME_VALUE="{value}"/>')
        for name, value in slots.items())
    return (f'<ANNOTATION_DOCUMENT><HEADER {units}><MEDIA_DESCRIPTOR {media} '
            'MIME_TYPE="video/mp4"/></HEADER><TIME_ORDER>'
            f"{times}</TIME_ORDER>{tiers}</ANNOTATION_DOCUMENT>")


def _tier(name, annotations, parent=""):
    rows = "".join(
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{key}" '
        f'TIME_SLOT_REF1="{refs[0]}" TIME_SLOT_REF2="{refs[1]}">'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>"
        "</ANNOTATION>" if isinstance(refs, tuple) else
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{key}" '
        f'ANNOTATION_REF="{refs}"><ANNOTATION_VALUE>{text}</ANNOTATION_VALUE>'
        "</REF_ANNOTATION></ANNOTATION>" for key, refs, text in annotations)
    of = f' PARENT_REF="{parent}"' if parent else ""
    return f'<TIER TIER_ID="{name}"{of}>{rows}</TIER>'


def test_elan_cuts_what_lies_before_a_shifted_video(tmp_path):
    text = _eaf({"a": 0, "b": 3000, "c": 500, "d": 900}, _tier("t", [
        ("1", ("a", "b"), "run"), ("2", ("c", "d"), "gone")]),
        'MEDIA_URL="file:///x/My%20Video.mp4" TIME_ORIGIN="-1000"')
    reading = _read(tmp_path, "a.eaf", text)
    assert _rows(reading) == [("My Video.mp4", "run", 0, 2)]
    assert "end before their video begins, left out: 1" in reading.summary()
    assert "begin before their video, cut: 1" in reading.summary()


def test_elan_spreads_slots_without_a_time_through_nested_tiers(tmp_path):
    text = _eaf(
        {"a": 1000, "m": None, "n": None, "b": 4000, "x": None},
        _tier("child", [("3", ("a", "m"), "one"), ("4", ("m", "n"), "two"),
                        ("5", ("n", "b"), "three")], "top")
        + _tier("top", [("1", ("a", "b"), "all")])
        + _tier("deep", [("6", ("m", "x"), "i"), ("7", ("x", "n"), "ii")],
                "child")
        + _tier("note", [("8", "7", "remark"), ("9", "8", "chain")], "deep"))
    assert _rows(_read(tmp_path, "a.eaf", text)) == [
        ("v.mp4", "all", 1, 4)]
    reading = _read(tmp_path, "a.eaf", text, tiers=("child,deep", "note"))
    assert _rows(reading) == [
        ("v.mp4", "one", 1, 2), ("v.mp4", "i", 2, 2.5),
        ("v.mp4", "two", 2, 3), ("v.mp4", "chain", 2.5, 3),
        ("v.mp4", "ii", 2.5, 3), ("v.mp4", "remark", 2.5, 3),
        ("v.mp4", "three", 3, 4)]


def test_elan_reads_frames_of_television_and_names_what_has_no_time(tmp_path):
    text = _eaf({"a": 25, "b": 50, "c": None}, _tier("t", [
        ("1", ("a", "b"), "run"), ("2", ("b", "c"), "lost")]),
        units='TIME_UNITS="PAL-frames"')
    reading = _read(tmp_path, "a.eaf", text)
    assert _rows(reading) == [("v.mp4", "run", 1, 2)]
    assert "annotations without times, left out: 1" in reading.summary()


@pytest.mark.parametrize("text, problem", [
    ('<!DOCTYPE a [<!ENTITY x "y">]><ANNOTATION_DOCUMENT>&x;'
     "</ANNOTATION_DOCUMENT>", "DOCTYPE or entities"),
    ('<?xml version="1.0"?><!DOCTYPE annotations SYSTEM "file:///etc/passwd">'
     "<annotations/>", "DOCTYPE or entities"),
    ("<ANNOTATION_DOCUMENT><TIER>", "not a complete XML document"),
    ("", "is empty"), ('{"database": {', "may still be written"),
    ("just words", "in no known layout"),
    ("file;class;begin\na;b;1\n", "--columns=video=File")])
def test_documents_that_cannot_be_read_are_refused(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem) as error:
        _read(tmp_path, "a.eaf", text)
    assert "a.eaf" in str(error.value)


def _project(events, **observation):
    return {"behaviors_conf": {
        "0": {"code": "run", "type": "State event with coding map"},
        "1": {"code": "beep", "type": "Point event"}},
        "observations": {"o": {
            "type": "MEDIA", "file": {"1": ["/x/a.mp4"], "2": []},
            "events": events, **observation}}}


def test_boris_reads_packed_projects_of_older_versions(tmp_path):
    content = _project([[5.0, "", "run", "", ""], [2.0, "", "run", "", ""],
                        [5.0, "", "run", "", ""], [6.0, "", "run", "", ""],
                        [4.0, "", "beep", "", ""]])
    reading = _read(tmp_path, "a.boris.gz", gzip.compress(
        json.dumps(content).encode()), points=1.0)
    assert _rows(reading) == [("a.mp4", "run", 2, 5),
                              ("a.mp4", "beep", 3.5, 4.5),
                              ("a.mp4", "run", 5, 6)]


def test_boris_ends_open_states_as_the_user_says(tmp_path):
    content = _project([[5.0, "A", "run", "", ""]],
                       media_info={"length": {"/x/a.mp4": 20.0}})
    with pytest.raises(InputError, match="only starts without an end"):
        _read(tmp_path, "a.boris", content)
    for option, end in (("end", 20), (2.5, 7.5)):
        reading = _read(tmp_path, "a.boris", content, open_events=option)
        assert _rows(reading) == [("a.mp4", "run", 5, end)]


def test_boris_cuts_actions_at_the_borders_of_three_files(tmp_path):
    content = _project(
        [[8.0, "", "run", "", ""], [27.0, "", "run", "", ""]],
        file={"1": ["a.mp4", "b.mp4", "c.mp4"]},
        media_info={"length": {"a.mp4": 10, "b.mp4": 10, "c.mp4": 10}})
    assert _rows(_read(tmp_path, "a.boris", content)) == [
        ("a.mp4", "run", 8, 10), ("b.mp4", "run", 0, 10),
        ("c.mp4", "run", 0, 7)]
    del content["observations"]["o"]["media_info"]
    with pytest.raises(InputError, match="does not state how long"):
        _read(tmp_path, "a.boris", content)


def test_boris_reads_older_aggregated_tables(tmp_path):
    text = ("Observation id\tMedia file\tTotal length\tSubject\tBehavior\t"
            "Modifiers\tBehavior type\tStart (s)\tStop (s)\n"
            "o\tC:\\v\\a.mp4\t60\tRex\trun\tfast\tSTATE\t1.5\t2.5\n"
            "o\tC:\\v\\a.mp4\t60\tRex\tbark\t\tPOINT\t3\t3\n")
    reading = _read(tmp_path, "a.tsv", text, label="{subject}: {behavior}")
    assert _rows(reading) == [("a.mp4", "Rex: run", 1.5, 2.5)]
    assert reading.points == [("a.mp4", "Rex: bark", 3)]


def test_label_studio_takes_the_rate_of_each_task(tmp_path):
    (tmp_path / "config.xml").write_text(
        '<View><Video name="v" value="$video" frameRate="$rate"/></View>')
    tasks = [{"id": number, "data": {"video": f"{number}.mp4", "rate": rate},
              "annotations": [{
                  "completed_by": {"id": 7, "email": "a@b.c"},
                  "was_cancelled": False, "result": [{
                      "type": "timelinelabels", "value": {
                          "ranges": [{"start": 11, "end": 20},
                                     {"start": 31, "end": 40}],
                          "timelinelabels": ["run"]}}]}]}
             for number, rate in ((1, "10"), (2, "20"))]
    assert _rows(_read(tmp_path, "a.json", tasks, annotator="a@b.c")) == [
        ("1.mp4", "run", 1, 2), ("1.mp4", "run", 3, 4),
        ("2.mp4", "run", 0.5, 1), ("2.mp4", "run", 1.5, 2)]
    (tmp_path / "config.xml").unlink()
    reading = _read(tmp_path, "a.json", tasks)
    assert _rows(reading)[0] == ("1.mp4", "run", round(10 / 24, 4),
                                 round(20 / 24, 4))
    assert "24 frames a second are assumed" in reading.summary()


def test_cvat_is_read_from_its_zip_file_with_key_frames(tmp_path):
    text = ("<annotations><meta><task><id>1</id><start_frame>0</start_frame>"
            "<frame_filter>step=2</frame_filter><source>a.mp4</source></task>"
            '</meta><track label="run"><box frame="0" outside="0"/>'
            '<box frame="20" outside="1"/><polygon frame="30" outside="0"/>'
            '<box frame="40" outside="0"/><box frame="40" outside="0"/>'
            "</track></annotations>")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
        archive.writestr("images/frame.png", b"x")
    with pytest.raises(InputError, match="--fps=RATE"):
        read_annotations([tmp_path / "a.zip"], Options())
    reading = read_annotations([tmp_path / "a.zip"], Options(
        video_fps=lambda parts: {("a.mp4",): 10.0}[parts]))
    assert _rows(reading) == [("a.mp4", "run", 0, 2), ("a.mp4", "run", 3, 4.2)]
    assert ("videos whose own rate counts their frames (--fps=RATE for "
            "another): 1, as 10 of a.mp4") in reading.summary()


def test_the_rates_of_missing_videos_are_one_list_of_problems(tmp_path):
    def rate(parts):
        raise InputError(f"no file {parts[-1]}; the nearest there: a b.mp4")

    text = ("video,label,start_frame,end_frame\na_b.mp4,run,0,1\n"
            "a_b.mp4,run,3,4\ngone.mp4,run,0,1\n")
    with pytest.raises(InputError, match=r"2 wrong entries:\n.*a_b.mp4: its "
                       r".*--fps=RATE.*the nearest there: a b.mp4\n.*gone"):
        _read(tmp_path, "a.csv", text, video_fps=rate)


def test_names_that_no_file_has_are_refused_with_those_to_choose(tmp_path):
    tiers = _tier("left", [("1", ("a", "b"), "run")]) + _tier("right", [])
    document = _eaf({"a": 0, "b": 1000}, tiers)
    praat = ('File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n'
             '<exists>\n1\n"IntervalTier"\n"left"\n0\n2\n1\n0\n2\n"x"\n')
    anvil = ('<annotation><body><track name="left"><el start="1" end="2">'
             '<attribute name="act">x</attribute></el></track></body>'
             "</annotation>")
    cvat = ('<annotations><track label="person"><box frame="0"><attribute '
            'name="act">run</attribute></box></track></annotations>')
    tasks = [{"id": 1, "data": {"video": "a.mp4"}, "annotations": [
        {"completed_by": {"id": 7, "email": "a@b.c"}, "result": []}]}]
    for name, content, options, message in (
            ("a.eaf", document, {"tiers": ("right,lft",)},
             r"--tiers: nothing is named 'lft'.*\n  'left'\n  'right'"),
            ("a.TextGrid", praat, {"tiers": ("right",)}, "'left'"),
            ("a.anvil", anvil, {"tiers": ("right",)}, "'left'"),
            ("a.anvil", anvil, {"attribute": "action"}, "'act'"),
            ("a.xml", cvat, {"attribute": "action", "fps": 5.0}, "'act'"),
            ("a.json", tasks, {"annotator": "8"}, r"'7'\n  'a@b.c'"),
            ("a.boris", _project([[1.0, "Ann", "run", "", ""],
                                  [2.0, "Ann", "run", "", ""]]),
             {"subject": "An"}, "--subject: nothing is named 'An'.*\n  'Ann'"),
            ("a.eaf", document, {"subject": "Ann"},
             "--subject=Ann: ELAN has nothing here for this flag"),
            ("a.boris", _project([[1.0, "", "run", "", ""]]),
             {"label": "{behaviour}"}, r"no {behaviour}: choose among beh")):
        with pytest.raises(InputError, match=message):
            _read(tmp_path, name, content, **options)
    assert len(_read(tmp_path, "a.eaf", document,
                     tiers=("left,right",)).actions) == 1


def test_annotations_beside_videos_of_one_name_are_of_different_videos(
        tmp_path):
    for folder in ("day 1", "day 2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cam.srt").write_text(
            "1\n00:01 --> 00:02\nrun\n")
    reading = read_annotations([tmp_path], Options())
    assert [*reading.videos] == ["day 1/cam", "day 2/cam"]
    assert "their folder is kept in the name: 2" in reading.summary()
    reading = read_annotations([tmp_path / "day 1"], Options())
    assert [*reading.videos] == ["cam"]


def test_a_video_whose_frames_nobody_labeled_is_left_out(tmp_path):
    (tmp_path / "a_labels.csv").write_text(",background,run\n0,-1,-1\n")
    (tmp_path / "b_labels.csv").write_text(
        ",background,run\n0,-1,-1\n1,0,1\n")
    reading = read_annotations([tmp_path], Options(fps=1.0))
    assert _rows(reading) == [("b", "run", 1, 2)]
    assert [*reading.videos] == ["b"]
    assert "without any labeled frame (-1), left out: 1" in reading.summary()
    with pytest.raises(InputError, match=r"holds no video, because of\n.*"
                                         r"without any labeled frame"):
        read_annotations([tmp_path / "a_labels.csv"], Options(fps=1.0))


def test_label_studio_reads_old_exports_and_leaves_out_parts_of_texts(
        tmp_path):
    segment = {"value": {"ranges": [{"start": 1, "end": 24}],
                         "timelinelabels": ["run"]}}
    text = {"type": "labels", "value": {"start": 0, "end": 5, "text": "hello",
                                        "labels": ["word"]}}
    reading = _read(tmp_path, "a.json", [{"id": 1, "data": {
        "video": "a.mp4"}, "completions": [{"result": [segment, text]}]}])
    assert _rows(reading) == [("a.mp4", "run", 0, 1)]
    assert "results that are no segments, left out: 1" in reading.summary()
    # The first task of JSON_MIN has no annotation.
    reading = _read(tmp_path, "a.json", [
        {"id": 1, "video": "b.mp4"},
        {"id": 2, "video": "a.mp4", "annotator": 1, "annotation_id": 4,
         "tl": [segment["value"]]}])
    assert _rows(reading) == [("a.mp4", "run", 0, 1)]


def test_spreadsheets_and_other_archives_are_refused(tmp_path):
    for name, member, message in (
            ("a.xlsx", "xl/workbook.xml", "save it as CSV in UTF-8"),
            ("a.zip", "notes.txt", "a zip file without annotations"),
            ("b.zip", "notes.json", "no file of an annotation tool")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "[1]")
        with pytest.raises(InputError, match=message):
            read_annotations([tmp_path / name], Options())


def test_cvat_joins_tags_in_steps_however_frames_are_numbered(tmp_path):
    def text(ids):
        return ("<annotations><meta><task><start_frame>100</start_frame>"
                "<frame_filter>step=5</frame_filter><source>a.mp4</source>"
                "</task></meta>" + "".join(
                    f'<image id="{one}">' + (
                        '<tag label="wave"/>' if number in (1, 2) else "")
                    + "</image>" for number, one in enumerate(ids))
                + "</annotations>")

    for ids in ((100, 105, 110, 115), (0, 1, 2, 3)):
        assert _rows(_read(tmp_path, "a.xml", text(ids), fps=10.0)) == [
            ("a.mp4", "wave", 10.5, 11.5)]


def test_tables_have_columns_with_units(tmp_path):
    for text, options in (
            ("Video ID,Action Label,Start [ms],End [ms]\na,run,500,1500\n",
             {}),
            ("videoName\tclassName\tstartTime\tendTime\na\trun\t0:00.5\t"
             "00:00:01,5\n", {}),
            ("sep=;\nvideo;label;start;end\na;run;0,5;1,5\n", {}),
            ("# by hand\n\nvideo,label,start,end\na,run,0.5,1.5\n", {}),
            ("file|category|onset (s)|duration (s)\na.mp4|run|0,5|1\n", {}),
            ("clip,label,first,last\na,run,6,15\n", {
                "fps": 10.0, "first_frame": 1, "columns": {
                    "start_frame": "first", "end_frame": "last"}}),
            ("clip,label,first,last\na,run,500,1500\n", {"columns": {
                "start_ms": "first", "end_ms": "last"}}),
            ("clip;label;start_frame;end_frame;fps\na;run;5;14;10\n", {}),
            ("File Path\tTier\tannotation\tBegin Time - hh:mm:ss.ms\t"
             "Begin Time - ss.msec\tEnd Time - ss.msec\n"
             "file:///x/a.mp4\tt\trun\t00:00:00.500\t0.5\t1.5\n", {})):
        (row,) = _rows(_read(tmp_path, "a.csv", text, **options))
        assert row[0].removesuffix(".mp4") == "a"
        assert row[1:] == ("run", 0.5, 1.5)
    for columns, problem in (({"begin": "a"}, "the columns are video"),
                             ({"label_ms": "a"}, "times also with a unit"),
                             ({"start": "from"}, "no column from; it has")):
        with pytest.raises(InputError, match=problem):
            _read(tmp_path, "a.csv", text, columns=columns)


def test_json_of_ones_own_is_read_by_rows_or_by_video(tmp_path):
    rows = [{"label": "run", "start": 1, "end": 2.5}]
    for content in ([{"video": "a", **rows[0]}], {"a": rows},
                    {"a": {"actions": rows}},
                    {"annotations": [{"video": "a", **rows[0]}]},
                    [{"video": "a", "label": "run", "segment": [1, 2.5]}],
                    [{**rows[0], "video": "a", "score": None}],
                    {"a": {"duration_second": 9, "annotations": [
                        {"label": "run", "segment": [1, 2.5]}]}}):
        assert _rows(_read(tmp_path, "a.json", content)) == [
            ("a", "run", 1, 2.5)]


def test_videos_without_names_and_of_the_same_name(tmp_path):
    text = "label,start,end\nrun,1,2\n"
    assert _rows(_read(tmp_path, "my cam.csv", text)) == [
        ("my cam", "run", 1, 2)]
    assert _rows(_read(tmp_path, "my cam.csv", text, video="b.mp4")) == [
        ("b.mp4", "run", 1, 2)]
    text = ("video,label,start,end\nx/1/cam.mp4,run,1,2\ny/1/cam.mp4,run,1,3\n"
            "z/other.mp4,run,1,2\nother.mp4,run,3,4\n")
    reading = _read(tmp_path, "a.csv", text)
    assert [*reading.videos] == ["other.mp4", "x/1/cam.mp4", "y/1/cam.mp4"]
    assert "their folder is kept in the name: 2" in reading.summary()


def test_subtitles_without_hours_or_blank_lines_are_read(tmp_path):
    text = ("1\n00:01 --> 00:02.5 X1:10\n<i>run</i>\n2\n00:00:03,000 --> "
            "00:00:04,000\n{\\an8}jump &lt;high&gt;\nand far\n")
    assert _rows(_read(tmp_path, "a.srt", text)) == [
        ("a", "run", 1, 2.5), ("a", "jump <high> and far", 3, 4)]


def test_a_label_for_every_frame_leaves_out_its_background(tmp_path):
    text = "SIL\nSIL\npour\npour\npour\nNone\nNone\n"
    assert _rows(_read(tmp_path, "groundTruth/v 1.txt", text, fps=2.0)) == [
        ("v 1", "pour", 1, 2.5)]
    reading = _read(tmp_path, "groundTruth/v 1.txt", text, fps=2.0,
                    background=("None",))
    assert [row[1] for row in _rows(reading)] == ["SIL", "pour"]


def test_a_folder_is_read_with_its_neighbors_named(tmp_path):
    for name in ("b/one.txt", "two.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("0.5\t1.5\trun\n0.5\t1.5\trun\n")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "notes.txt").write_text("words of a person\nand more")
    (tmp_path / "data.json").write_text("{}")
    reading = read_annotations([tmp_path], Options())
    assert _rows(reading) == [("one", "run", 0.5, 1.5),
                              ("two", "run", 0.5, 1.5)]
    for words in ("Audacity: 2 files, 2 videos, 2 actions of 1 class",
                  "not opened: 1, as README.md", "layout, left out: 1, as",
                  "several times, kept once: 2"):
        assert words in reading.summary()
    (tmp_path / "c.csv").write_text("video,label,start,end\na,run,1,2\n")
    with pytest.raises(InputError, match=r"audacity \(2 files, .* table "
                                         r"\(1 file, .*--format=NAME"):
        read_annotations([tmp_path], Options())
    assert _rows(read_annotations([tmp_path], Options(layout="table"))) == [
        ("a", "run", 1, 2)]
    with pytest.raises(InputError, match="choose one of elan"):
        read_annotations([tmp_path], Options(layout="excel"))
    (tmp_path / "d.srt").write_bytes(b"")
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(InputError, match="e.json.*may still be written"):
        read_annotations([tmp_path], Options())


@pytest.mark.parametrize("content", [
    {"observations": 5, "behaviors_conf": {}}, {"labels": {"a": [5]},
                                                "classes": None},
    {"annotation": {"actionAnnotationList": [{"start": "x"}]}},
    {"type": "video_classification", "segments": [{"label": "a"}]},
    {"database": {"a": {"annotations": [{"segment": [1]}]}}},
    {"database": {"a": {"annotations": [{"time_segment": [1, 10**400],
                                         "label": "x"}]}}},
    {"metadata": {"m": {}}, "view": {}, "attribute": {}, "file": {}},
    {"items": [{}], "categories": {}}])
def test_json_unlike_that_of_its_tool_is_refused_with_its_name(tmp_path,
                                                               content):
    with pytest.raises(InputError, match="a.json"):
        _read(tmp_path, "a.json", content, fps=25.0)


def test_a_table_with_the_words_of_boris_or_two_labels_is_a_table(tmp_path):
    for header in ("Video,Behavior,Start (s),Stop (s)",
                   "video,class_name,start,end"):
        assert _rows(_read(tmp_path, "a.csv", f"{header}\na,run,1,2\n")) == [
            ("a", "run", 1, 2)]
    assert _rows(_read(tmp_path, "a.csv", "video,class,class_name,start,end\n"
                       "a,0,run,1,2\n")) == [("a", "run", 1, 2)]
