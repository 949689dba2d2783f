"""What we write, against other readers of it and our own."""

import csv
import io
import json
import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pympi import Elan

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.layouts import (
    OPENED_WITH,
    WRITERS,
)
from losa_jax.data.annotations.tools.read import read_annotations
from losa_jax.data.annotations.tools.recording import Recording
from losa_jax.utils.names import name_problem

NASTY = '<script>alert("1")</script> & -->\n\x00 ü €'


def _row(label, start, end, score=0.5):
    return {"label": label, "score": score, "start_seconds": start,
            "end_seconds": end, "start_frame": round(start * 25),
            "end_frame": round(end * 25)}


ROWS = [_row("run", 3661.2344, 3662.0, 0.931), _row("jump", 0.5, 1.75, 0.2),
        _row("jump", 1.0, 3.0), _row("jump", 1.75, 1.75),
        _row(NASTY, 2.0, 4.0)]


def _recording(rows, video="a,b", media=None):
    return Recording(video, media, 4000.0, 25.0, rows)


def _text(name, rows=ROWS):
    (text,) = WRITERS[name]([_recording(rows)], Path()).values()
    return text


def test_csv_is_read_by_another_program():
    table = list(csv.DictReader(io.StringIO(_text("csv"))))
    assert [row["label"] for row in table] == [
        "jump", "jump", "jump", NASTY, "run"]
    assert table[0] == {
        "video": "a,b", "label": "jump", "score": "0.200000",
        "start_seconds": "0.500", "end_seconds": "1.750",
        "start_frame": "12", "end_frame": "44"}


def test_srt_by_hand():
    text = _text("srt", ROWS[:2])
    assert text == ("1\n00:00:00,500 --> 00:00:01,750\njump 0.20\n\n"
                    "2\n01:01:01,234 --> 01:01:02,000\nrun 0.93\n")
    assert _text("srt", []) == ""


def test_every_subtitle_has_one_line_and_a_length():
    for text in (_text("srt"), _text("vtt")):
        blocks = text.removeprefix("WEBVTT\n\n").rstrip("\n").split("\n\n")
        assert len(blocks) == len(ROWS)
        for number, block in enumerate(blocks, 1):
            first, times, caption = block.split("\n")
            assert first == str(number) and "-->" not in caption
            start, end = times.split(" --> ")
            assert start < end


def test_webvtt_shows_a_label_as_text():
    text = _text("vtt")
    assert text.startswith("WEBVTT\n\n1\n00:00:00.500 --> ")
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "&amp; --&gt;" in text
    assert _text("vtt", []) == "WEBVTT\n"


@pytest.fixture
def document(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "video.eaf"
    path.write_text(WRITERS["elan"]([_recording(
        ROWS, "video", tmp_path / "my video.mp4")], folder)["video.eaf"],
        encoding="utf-8")
    return path


def test_eaf_has_the_order_and_attributes_of_the_format(document):
    root = ElementTree.parse(document).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert re.fullmatch(r"[-\d]+T[:\d]+\+00:00", root.get("DATE"))
    assert {"AUTHOR", "VERSION", "FORMAT"} <= set(root.attrib)
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
    tags = [child.tag for child in root]
    assert sorted(tags, key=order.index) == tags
    moments = [int(slot.get("TIME_VALUE")) for slot in root[1]]
    assert moments == sorted(moments) and len(moments) == 2 * len(ROWS)
    ids = [node.get(key) for node in root.iter() for key in (
        "TIME_SLOT_ID", "ANNOTATION_ID") if node.get(key)]
    assert len(set(ids)) == len(ids)  # xsd:ID: one space for both
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in ids)
    types = {node.get("LINGUISTIC_TYPE_ID")
             for node in root.iter("LINGUISTIC_TYPE")}
    tiers = [tier.get("TIER_ID") for tier in root.iter("TIER")]
    assert len(set(tiers)) == len(tiers)
    assert {tier.get("LINGUISTIC_TYPE_REF")
            for tier in root.iter("TIER")} <= types
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert media.get("MEDIA_URL") == (
        document.parent.parent / "my video.mp4").as_uri()
    assert media.get("RELATIVE_MEDIA_URL") == "./../my%20video.mp4"
    assert media.get("MIME_TYPE") == "video/mp4"


def test_eaf_is_read_by_another_program(document):
    content = Elan.Eaf(str(document))
    tiers = {name: content.get_annotation_data_for_tier(name)
             for name in content.get_tier_names()}
    # Overlapping ones lie on tiers of their own; no value has a score.
    assert [row[:3] for row in sorted(tiers["actions 1"])] == [
        (500, 1750, "jump"), (1750, 1751, "jump"),
        (2000, 4000, '<script>alert("1")</script> & -->  ü €'),
        (3661234, 3662000, "run")]
    assert [row[:3] for row in tiers["actions 2"]] == [(1000, 3000, "jump")]
    assert [(*row[:2], row[2]) for row in tiers["actions 2 score"]] == [
        (1000, 3000, "0.5000")]


def test_eaf_without_a_file_or_detections():
    root = ElementTree.fromstring(_text("elan", []))
    assert root.find("HEADER/MEDIA_DESCRIPTOR") is None
    assert len(root.find("TIME_ORDER")) == 0


LABELS = ["jump", "jump 0.93", "jump (2)", "run, fast", 'say "stop"', "a/b\\c",
          "öffnen/schließen", "切る", "<b>bold</b> & more", "a --> b", "&amp;",
          "2", "it's", "default", "{\\an8} up", "a;b|c", "score", "x  y",
          "=1+1", "&lt", "#1", "actions 1", "No action", "🏃 run"]


def _random_rows(seed):
    """Actions that overlap, some of one class, some with equal ends."""
    random_ = random.Random(seed)
    rows = []
    for label in random_.sample(LABELS, 12):
        for _ in range(random_.randint(1, 4)):
            start = random_.randrange(2000) * 40
            first, last = start // 40, start // 40 + random_.randint(1, 100)
            rows.append({
                "label": label, "score": round(random_.random(), 2),
                "start_seconds": first / 25, "end_seconds": last / 25,
                "start_frame": first, "end_frame": last})
    unique = {(row["label"], row["start_frame"], row["end_frame"]): row
              for row in rows}
    return [*unique.values()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", WRITERS)
def test_an_unchanged_export_reads_back_as_the_same_actions(tmp_path, name,
                                                            seed):
    assert not any(map(name_problem, LABELS))
    videos = {"Küche 1 (a) #2": _random_rows(seed),
              "cam.2": _random_rows(seed + 100), "p% 3": _random_rows(7)}
    recordings = [Recording(video, tmp_path / f"{video}.mp4", 3000.0, 25.0,
                            rows) for video, rows in videos.items()]
    folder = tmp_path / "out"
    folder.mkdir()
    for file_name, text in WRITERS[name](recordings, folder).items():
        (folder / file_name).write_text(text, encoding="utf-8")
    reading = read_annotations([folder], Options(keep_unreviewed=True))
    got = [(one.video.removesuffix(".mp4"), one.label,
            pytest.approx(one.start_seconds, abs=1e-3),
            pytest.approx(one.end_seconds, abs=1e-3))
           for one in reading.actions]
    want = sorted((video, row["start_seconds"], row["end_seconds"],
                   row["label"]) for video, rows in videos.items()
                  for row in rows)
    assert [(video, label, start, end) for video, start, end, label in want
            ] == sorted(got, key=lambda one: (one[0], one[2].expected,
                                              one[3].expected, one[1]))
    # Scores come back from where tools have a place for them.
    if name in ("csv", "srt", "vtt", "elan", "via", "label_studio",
                "fiftyone"):
        scores = {(video, row["label"], row["start_frame"], row["end_frame"]):
                  row["score"] for video, rows in videos.items()
                  for row in rows}
        for one in reading.actions:
            key = (one.video.removesuffix(".mp4"), one.label,
                   round(25 * one.start_seconds), round(25 * one.end_seconds))
            assert one.score == pytest.approx(scores[key], abs=0.006)


def test_an_export_of_label_studio_keeps_the_rate_of_our_tasks(tmp_path):
    (task,) = json.loads(WRITERS["label_studio"]([_recording(
        [_row("run", 1.0, 2.0)])], tmp_path)["tasks.json"])
    task |= {"id": 1, "annotations": task.pop("predictions")}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    (action,) = read_annotations([tmp_path / "export.json"],
                                 Options()).actions
    assert action[2:4] == (1.0, 2.0)


def test_x_anylabeling_has_the_end_frame_of_its_own_files(tmp_path):
    content = json.loads(WRITERS["x_anylabeling"]([_recording(
        [_row("run", 1.0, 2.0)], "v")], tmp_path)["v.json"])
    (segment,) = content["segments"]
    assert segment["end_frame"] == segment["end_ms"] * 25 / 1000
    del segment["start_ms"], segment["end_ms"]
    (tmp_path / "v.json").write_text(json.dumps(content))
    (action,) = read_annotations([tmp_path / "v.json"], Options()).actions
    assert action[2:4] == (1.0, 2.0)


def test_a_video_without_detections_was_looked_at(tmp_path):
    for name, write in WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        for file_name, text in write([_recording([], "v")], folder).items():
            (folder / file_name).write_text(text)
        # A table has rows of actions alone, and Audacity's has no lines.
        if name not in ("csv", "audacity"):
            reading = read_annotations([folder], Options(keep_unreviewed=True))
            assert [*reading.videos] == ["v"] and not reading.actions


def test_every_format_of_a_folder_has_a_line_how_to_open_it():
    assert {*OPENED_WITH} < {*WRITERS}
    assert all("\n" not in line for line in OPENED_WITH.values())
