"""What a page of a video holds, without a browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.report.document import clock, script_json, write_page
from losa_jax.report.page import (
    link,
    read_video_page,
    write_folder_page,
    write_video_page,
)
from losa_jax.report.thumbnails import read_thumbnails
from tests.report.conftest import FPS, SECONDS

EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>"


class _Scripts(HTMLParser):
    """Elements of a page, and what its scripts hold, as HTML's rules say."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def _gray(uri):
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    with av.open(io.BytesIO(content)) as image:
        pixels = next(image.decode(video=0)).to_ndarray(format="gray")
    return pixels.mean(), pixels.shape


def test_labels_cannot_inject_html(tmp_path):
    path = tmp_path / "page.html"
    write_video_page(path, None, title=EVIL, duration_seconds=5, fps=25,
                     predictions=[(1, 2, EVIL, 0.5)],
                     ground_truth=[(1, 2, EVIL)])
    page = _Scripts(path.read_text())
    assert len(page.scripts) == 2
    assert json.loads(page.scripts[0])["labels"] == [EVIL]
    assert not [tag for tag, attrs in page.tags if "onerror" in attrs]
    assert sum(tag == "img" for tag, _ in page.tags) == 1  # our own
    # No other script may run, and nothing may be fetched.
    policy = next(attrs["content"] for tag, attrs in page.tags
                  if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "http" not in policy


def test_the_page_of_a_video_leads_back_to_the_page_of_all(tmp_path):
    path = tmp_path / "videos" / "a.html"
    write_video_page(path, None, title="a", duration_seconds=5, fps=25,
                     predictions=[], list_page=tmp_path / "index.html")
    links = [dict(attributes)["href"] for tag, attributes in _Scripts(
        path.read_text()).tags if tag == "a" and "href" in attributes]
    assert "../index.html" in links
    write_video_page(path, None, title="a", duration_seconds=5, fps=25,
                     predictions=[])
    assert "index.html" not in path.read_text()


def test_json_in_a_script_cannot_end_it():
    text = script_json({"a": EVIL, "b": "\u2028&amp;"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": EVIL, "b": "\u2028&amp;"}
    with pytest.raises(ValueError):
        script_json(float("nan"))


def test_every_page_is_one_file(tmp_path):
    write_folder_page(tmp_path / "index.html", [], title="none")
    text = (tmp_path / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    write_page(tmp_path / "plain.html", "folder.html", title="t", facts=(),
               styles=(), scripts=(), content={"parts": ""})
    assert "$" not in (tmp_path / "plain.html").read_text()


def test_a_written_page_is_read_again(video, tmp_path):
    path = tmp_path / "page.html"
    write_video_page(
        path, video, title="one", duration_seconds=SECONDS, fps=FPS,
        predictions=[(4.0, 5.0, "b", 0.9), (1.0, 2.0, "a", 0.3)],
        ground_truth=[])
    page = read_video_page(path)
    assert page.title == "one" and page.duration_seconds == SECONDS
    assert page.labels == ("a", "b") and page.num_actions == 0
    assert page.segments == ((1.0, 2.0, 0, 0.3), (4.0, 5.0, 1, 0.9))
    # The poster is the frame of the best detection's middle.
    gray, shape = _gray(page.poster)
    assert gray == pytest.approx(40 * 4, abs=4) and shape == (48, 64)
    (tmp_path / "other.html").write_text("<p>")
    with pytest.raises(InputError, match="other.html.*write it again"):
        read_video_page(tmp_path / "other.html")


def test_detections_below_their_threshold_are_not_counted(tmp_path):
    path = tmp_path / "page.html"
    write_video_page(
        path, None, title="one", duration_seconds=SECONDS, fps=FPS,
        predictions=[(4.0, 5.0, "b", 0.9), (1.0, 2.0, "a", 0.3),
                     (1.0, 2.0, "b", 0.3)],
        thresholds={"a": 0.3, "b": 0.5})
    assert "<li>2 detections and 1 weaker</li>" in path.read_text()
    page = read_video_page(path)
    assert page.segments == ((1.0, 2.0, 0, 0.3), (4.0, 5.0, 1, 0.9))
    write_folder_page(tmp_path / "index.html", [page], title="all",
                      broken={"x/cut.mp4": "x/cut.mp4: is cut"})
    text = (tmp_path / "index.html").read_text()
    assert "<li>2 detections</li>" in text
    assert "<strong>x/cut.mp4</strong> is cut</li>" in text


def test_thumbnails_show_their_moments(video, tmp_path):
    moments = [5.5, 0.0, 2.5, 2.6, 99.0]
    grays = [_gray(uri)[0] for uri in read_thumbnails(video, moments)]
    np.testing.assert_allclose(grays, [200, 0, 80, 80, 200], atol=4)
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(b"nothing")
    assert read_thumbnails(odd, [0.0, 1.0]) == ["", ""]
    assert read_thumbnails(tmp_path / "missing.mp4", [0.0]) == [""]


def test_the_best_detections_get_the_thumbnails(video, tmp_path):
    path = tmp_path / "page.html"
    write_video_page(
        path, video, title="one", duration_seconds=SECONDS, fps=FPS,
        predictions=[(start, start + 1, "a", 0.1 + 0.1 * start)
                     for start in range(5)],
        max_thumbnails=2)
    data = json.loads(_Scripts(path.read_text()).scripts[0])
    assert len(data["images"]) == 2
    assert [row[4] for row in data["predictions"]] == [-1, -1, -1, 0, 1]


def test_addresses_are_relative_and_escaped(tmp_path):
    assert link(tmp_path / "a b#?%.mp4", tmp_path) == "./a%20b%23%3F%25.mp4"
    assert link(tmp_path / "12:30.mp4", tmp_path / "x") == "../12%3A30.mp4"
    assert link(tmp_path / "é.mp4", tmp_path) == "./%C3%A9.mp4"


def test_a_clock():
    assert [clock(t) for t in (0, 59.96, 61.25, 3725.04, -1)] == [
        "0:00.0", "1:00.0", "1:01.2", "1:02:05.0", "0:00.0"]
