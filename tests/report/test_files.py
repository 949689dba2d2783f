"""Subtitles, tables and ELAN documents, against other readers of them."""

import csv
import datetime
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pympi import Elan

from losa_jax.report import files

NASTY = '<script>alert("1")</script> & -->\n\x00 ü €'


def _row(label, start, end, score=0.5):
    return {"label": label, "score": score, "start_seconds": start,
            "end_seconds": end, "start_frame": round(start * 25),
            "end_frame": round(end * 25)}


ROWS = [_row("run", 3661.2344, 3662.0, 0.931), _row("jump", 0.5, 1.75, 0.2),
        _row("jump", 1.0, 3.0), _row("jump", 1.75, 1.75),
        _row(NASTY, 2.0, 4.0)]


def test_csv_is_read_back():
    table = list(csv.DictReader(io.StringIO(files.csv_text("a,b", ROWS))))
    assert [row["label"] for row in table] == [
        "jump", "jump", "jump", NASTY, "run"]
    assert table[0] == {
        "video": "a,b", "label": "jump", "score": "0.200000",
        "start_seconds": "0.500", "end_seconds": "1.750",
        "start_frame": "12", "end_frame": "44"}


def test_srt_by_hand():
    text = files.srt_text(ROWS[:2])
    assert text == ("1\n00:00:00,500 --> 00:00:01,750\njump 0.20\n\n"
                    "2\n01:01:01,234 --> 01:01:02,000\nrun 0.93\n\n")
    assert files.srt_text([]) == ""


def test_every_subtitle_has_one_line_and_a_length():
    for text in (files.srt_text(ROWS), files.webvtt_text(ROWS)):
        blocks = text.removeprefix("WEBVTT\n\n").rstrip("\n").split("\n\n")
        assert len(blocks) == len(ROWS)
        for number, block in enumerate(blocks, 1):
            first, times, caption = block.split("\n")
            assert first == str(number) and "-->" not in caption
            start, end = times.split(" --> ")
            assert start < end


def test_webvtt_shows_a_label_as_text():
    text = files.webvtt_text(ROWS)
    assert text.startswith("WEBVTT\n\n1\n00:00:00.500 --> ")
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "&amp; -&gt;" in text
    assert files.webvtt_text([]) == "WEBVTT\n"


@pytest.fixture
def document(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "video.eaf"
    path.write_text(files.eaf_text(
        ROWS, media=tmp_path / "my video.mp4", folder=folder,
        created=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)),
        encoding="utf-8")
    return path


def test_eaf_has_the_order_and_attributes_of_the_format(document):
    root = ElementTree.parse(document).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert root.get("DATE") == "2026-01-02T00:00:00+00:00"  # xsd:dateTime
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
    # Overlapping ones of a class lie on tiers of their own.
    assert [row[:3] for row in sorted(tiers["jump"])] == [
        (500, 1750, "jump 0.20"), (1750, 1751, "jump 0.50")]
    assert [row[:3] for row in tiers["jump (2)"]] == [
        (1000, 3000, "jump 0.50")]
    assert [row[:3] for row in tiers["run"]] == [
        (3661234, 3662000, "run 0.93")]
    other, = set(tiers) - {"jump", "jump (2)", "run"}
    assert "<script>" in other and "<script>" in tiers[other][0][2]


def test_eaf_without_a_file_or_detections():
    text = files.eaf_text([], media=None, folder=Path("."),
                          created=datetime.datetime.now(datetime.UTC))
    root = ElementTree.fromstring(text)
    assert root.find("HEADER/MEDIA_DESCRIPTOR") is None
    assert len(root.find("TIME_ORDER")) == 0
