"""Requests: who may ask, what is answered, and what a crash leaves."""

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import av
import numpy as np
import pytest

from losa_jax import review
from losa_jax.data.reviews import read_review
from losa_jax.jobs.review.media import FrameReader, byte_range
from tests.jobs.review.conftest import write_video

ROWS = [(0.5 * number, 0.5 * number + 0.4, "jump", 0.9)
        for number in range(10)]
JUMP = {"label": "jump", "start_seconds": 1.0, "end_seconds": 2.0,
        "verdict": "accepted"}


@pytest.fixture
def folder(tmp_path, video):
    write_video(tmp_path / "out", "a", ROWS, video)
    write_video(tmp_path / "out", "b", ROWS[:1])
    return tmp_path / "out"


@pytest.fixture
def client(serve, folder):
    return serve(folder)


def test_only_the_printed_address_answers(client):
    port = client.server.server_port
    for path in ("/", "/video/0", f"/{'x' * 22}/", "/../", "//"):
        status, headers, content = client.request("GET", path, token=False)
        assert status == 403, path
        assert b"jump" not in content
    assert client.request("GET", "")[0] == 200
    status, headers, _ = client.request("GET", f"/{client.server.token}",
                                        token=False)
    assert (status, headers["Location"]) == (302, f"/{client.server.token}/")
    assert client.server.address.startswith(f"http://127.0.0.1:{port}/")
    assert len(client.server.token) >= 20


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "127.0.0.1:1"}, {"Host": ""},
    {"Origin": "http://evil.example"}, {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
     "Sec-Fetch-Dest": "iframe"}])
def test_other_hosts_and_origins_are_refused(client, folder, headers):
    for method, path, body in (("GET", "", None), ("GET", "media/0", None),
                               ("POST", "video/0", {
                                   "revision": 0,
                                   "changes": {"h0123456789ab": JUMP}})):
        assert client.request(method, path, body, headers)[0] == 403
    assert not (folder / "reviews" / "a.json").exists()


def test_a_link_to_the_printed_address_opens_it(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document"}
    assert client.request("GET", "", headers=link)[0] == 200
    assert client.request("GET", "/", headers=link, token=False)[0] == 403
    assert client.request("POST", "video/0", {
        "revision": 0, "changes": {}}, link)[0] == 403


def test_a_form_of_another_page_changes_nothing(client):
    body = '{"revision": 0, "changes": {}}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        assert client.request("POST", "video/0", body, {
            "Content-Type": content_type})[0] == 400
    assert client.server.store.review(0).revision == 0


@pytest.mark.parametrize("path", [
    "media/../../../etc/passwd", "media/%2e%2e%2fetc%2fpasswd", "media/2",
    "media/-1", "media/", "media", "media/0/", "video/a.json", "a.json",
    "reviews/a.json", "media/0?/etc", "frame/1", "..", "media/٣", "next/9",
    f"media/{'1' * 5000}"])
def test_no_path_comes_from_a_request(client, path):
    status, _, content = client.request("GET", urllib.request.quote(
        path, safe="/%?"))
    assert status in ((200,) if path == "media/0?/etc" else (400, 404)), path
    assert b"root:" not in content


@pytest.mark.parametrize("header, part", [
    (None, (0, 99, False)), ("bytes=0-", (0, 99, True)),
    ("bytes=10-19", (10, 19, True)), ("bytes=90-500", (90, 99, True)),
    ("bytes=-7", (93, 99, True)), ("bytes=-700", (0, 99, True)),
    ("bytes=99-99", (99, 99, True)), ("bytes=100-", None),
    ("bytes=9-3", None), ("bytes=-0", None), ("bytes=0-1,5-6",
                                              (0, 99, False)),
    ("lines=1-2", (0, 99, False)), ("bytes=-", (0, 99, False)),
    (f"bytes={'9' * 5000}-", (0, 99, False)), ("bytes=1-٣", (0, 99, False))])
def test_ranges(header, part):
    assert byte_range(header, 100) == part


def test_parts_of_the_video_are_sent(client, video):
    content = video.read_bytes()
    status, headers, whole = client.request("GET", "media/0")
    assert (status, whole) == (200, content)
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Type"] == "video/webm"
    status, headers, part = client.request("GET", "media/0", headers={
        "Range": "bytes=100-299"})
    assert (status, part) == (206, content[100:300])
    assert headers["Content-Range"] == f"bytes 100-299/{len(content)}"
    status, headers, part = client.request("GET", "media/0", headers={
        "Range": f"bytes={len(content)}-"})
    assert (status, part) == (416, b"")
    status, headers, part = client.request("HEAD", "media/0")
    assert (status, part) == (200, b"")
    assert headers["Content-Length"] == str(len(content))


def test_a_video_is_sent_as_a_video_only(client, video, tmp_path):
    """A file that is also a page would run in our origin."""
    for name in ("a.html", "a.ts", "a"):
        path = tmp_path / name
        path.write_bytes(video.read_bytes())
        client.server.files[0] = path
        _, headers, _ = client.request("HEAD", "media/0")
        assert headers["Content-Type"].startswith("video/")


def _gray(content):
    with av.open(io.BytesIO(content)) as container:
        return next(container.decode(video=0)).to_ndarray(
            format="rgb24").mean()


def test_frames_are_those_of_the_video(client):
    for seconds in (3.05, 3.95, 0.0, 5.99, 99, 1.0, 1.1):
        status, headers, content = client.request(
            "GET", f"frame/0?t={seconds}")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert _gray(content) == pytest.approx(
            40 * min(int(seconds), 5), abs=4)
    for query in ("", "?t=x", "?t=nan", "?t=inf"):
        assert client.request("GET", f"frame/0{query}")[0] == 400
    assert client.request("GET", "frame/1?t=0")[0] == 404  # it is missing


def test_frames_in_a_row_are_decoded_without_a_seek(video):
    reader = FrameReader()
    reader.jpeg(video, 1.0)
    opened = reader._frames
    for seconds in (1.05, 1.1, 1.2, 1.2, 1.6):
        reader.jpeg(video, seconds)
        assert reader._frames is opened
    reader.jpeg(video, 0.0)
    assert reader._frames is not opened


def test_a_second_window_gets_the_newer_state(client):
    names = list(client.server.store.open_detections(0))
    status, first = client.change(0, 0, {names[0]: JUMP})
    assert (status, first["revision"]) == (200, 1)
    status, second = client.change(0, 0, {names[1]: JUMP})
    assert (status, second["revision"]) == (409, 1)
    assert "another window" in second["error"]
    assert [one["id"] for one in second["actions"]] == [names[0]]
    status, third = client.change(0, 1, {names[1]: JUMP})
    assert (status, len(third["actions"])) == (200, 2)


def test_a_window_does_not_take_a_later_change_for_its_own(
        client, monkeypatch):
    store = client.server.store
    change = store.change

    def interrupted(number, revision, *rest):
        review = change(number, revision, *rest)
        change(number, review.revision, {"h" + 12 * "0": JUMP})
        return review

    monkeypatch.setattr(store, "change", interrupted)
    status, answer = client.change(0, 0, {"h" + 12 * "1": JUMP})
    assert (status, answer["revision"], len(answer["actions"])) == (200, 1, 1)
    monkeypatch.undo()
    assert client.change(0, 1, {"h" + 12 * "1": None})[0] == 409


def test_of_concurrent_changes_none_is_lost(client):
    def post(name):
        revision = 0
        for _ in range(100):
            status, answer = client.change(0, revision, {name: JUMP})
            if status == 200:
                return
            revision = answer["revision"]

    threads = [threading.Thread(target=post, args=(f"h{number:012x}",))
               for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    review = client.server.store.review(0)
    assert review.revision == len(review.actions) == 6


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"1", b"null", b'{"revision": 0}',
    b'{"revision": 0, "changes": []}', b'{"revision": 0, "changes": 1}',
    b'{"revision": 0, "changes": {"h0123456789ab": []}}', b"[" * 100_000])
def test_what_is_no_change_is_answered(client, body):
    for path in ("video/0", "accept", "video/7", "x"):
        status, _, content = client.request("POST", path, body, {
            "Content-Type": "application/json"})
        assert status in (400, 404, 422)
        assert json.loads(content)["error"]
    assert client.server.store.review(0).actions == ()


@pytest.mark.parametrize("length", ["-1", "²", "1" * 5000, "99999999999", ""])
def test_a_body_without_a_sane_length_is_answered(client, length):
    with socket.create_connection(
            ("127.0.0.1", client.server.server_port), timeout=20) as stream:
        stream.sendall(
            f"POST /{client.server.token}/video/0 HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{client.server.server_port}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {length}\r\n\r\n".encode(
                "latin-1"))
        assert stream.recv(100).startswith(b"HTTP/1.1 400 ")


def test_what_cannot_be_written_is_answered(client, folder):
    (folder / "reviews").write_text("in the way")
    for path, body in (
            ("video/0", {"revision": 0, "changes": {"h0123456789ab": JUMP}}),
            ("accept", {"label": None, "score": 0, "only_counts": False})):
        status, _, content = client.request("POST", path, body)
        assert status == 422
        assert "cannot be written" in json.loads(content)["error"]


def test_a_video_that_vanishes_is_missing(client, video, tmp_path):
    path = tmp_path / "copy.webm"
    path.write_bytes(video.read_bytes())
    client.server.files[0] = path
    assert client.request("GET", "media/0")[0] == 200
    path.unlink()
    for address in ("media/0", "frame/0?t=1"):
        status, _, content = client.request("GET", address)
        assert status == 404 and b"the video is missing" in content
    assert client.request("GET", "video/0")[0] == 200


def test_a_refused_action_comes_with_what_is_saved(client):
    status, answer = client.change(0, 0, {"h0123456789ab": {
        **JUMP, "end_seconds": 99}})
    assert status == 422 and answer["revision"] == 0
    assert "within 0 to 6.0 s" in answer["error"]


def test_many_are_counted_and_accepted(client):
    for only_counts in (True, False):
        _, _, content = client.request("POST", "accept", {
            "label": None, "score": 0.5, "only_counts": only_counts})
        assert json.loads(content) == {"count": 11, "videos": 2}
    assert len(client.server.store.review(0).accepted) == 10
    for path, number in (("undo", 0), ("redo", 10)):
        _, _, content = client.request("POST", path, {})
        assert json.loads(content) == {"count": 11, "videos": 2}
        assert len(client.server.store.review(0).accepted) == number


def test_pages_hold_untrusted_text_as_text(serve, tmp_path):
    evil = "</script><script>alert(1)</script>"
    write_video(tmp_path / "out", "e", [(1, 2, evil, 0.9)],
                shown_from={evil: 0.5})
    client = serve(tmp_path / "out")
    for path in ("", "video/0"):
        status, headers, content = client.request("GET", path)
        assert status == 200 and evil.encode() not in content
        assert headers["X-Frame-Options"] == "DENY"
        assert b"default-src &#x27;none" in content or (
            b"default-src 'none'" in content)


@contextlib.contextmanager
def _running(folder):
    """Yields the process of the command line and its address."""
    with subprocess.Popen(
            [sys.executable, "-m", "losa_jax.review", str(folder),
             "--reviewer=ann"], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield process, re.search(r"http://\S+", line)[0]
        finally:
            process.kill()


def _post(address, number, revision, changes):
    request = urllib.request.Request(
        f"{address}video/{number}", json.dumps({
            "revision": revision, "changes": changes}).encode(),
        {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_sigkill_loses_at_most_the_last_action(folder):
    def post_late():
        with contextlib.suppress(OSError, http.client.HTTPException):
            _post(address, 0, 30, {"h" + 12 * "f": JUMP})

    with _running(folder) as (process, address):
        for number in range(30):
            _post(address, 0, number, {f"h{number:012x}": JUMP})
        # The next change is under way when the process is killed.
        late = threading.Thread(target=post_late)
        late.start()
        process.kill()
        late.join()
    saved = read_review(folder / "reviews" / "a.json")
    assert saved.revision in (30, 31) and len(saved.actions) == saved.revision
    # The lock is gone with the process, and the work goes on.
    with _running(folder) as (process, address):
        answer = _post(address, 0, saved.revision, {"h" + 12 * "e": JUMP})
        assert answer["revision"] == saved.revision + 1
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "all decisions are saved" in process.stdout.read()


def test_the_command_line_names_what_is_wrong(tmp_path, folder, capsys):
    assert review.main([str(tmp_path / "none")]) == 1
    assert "none: cannot be opened" in capsys.readouterr().err
    for flags, message in (
            ([str(folder / "a.json")], "a.json: cannot be opened (Not a dir"),
            ([str(folder), f"--videos={folder}/no"], "no: is no folder"),
            ([str(folder), "--port=99999"], "--port=99999: cannot be used")):
        assert review.main(flags) == 1
        assert message in capsys.readouterr().err
    with _running(folder):
        assert review.main([str(folder)]) == 1
        assert "by another process" in capsys.readouterr().err


def test_a_change_of_two_thousand_actions_takes_little_time(serve, tmp_path):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 3500, 2000)
    write_video(tmp_path / "out", "long", [
        (start, start + 2, "jump", 0.9) for start in starts], seconds=3600)
    client = serve(tmp_path / "out")
    client.request("POST", "accept", {"label": None, "score": 0,
                                      "only_counts": False})
    times = []
    for number in range(1, 6):
        started = time.perf_counter()
        status, _ = client.change(0, number, {"h0123456789ab": JUMP})
        times.append(time.perf_counter() - started)
        assert status == 200
    assert min(times) < 1.0


def test_only_videos_are_sent(serve, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_text("root:x:0:0\n" * 100)
    write_video(tmp_path / "out", "a", ROWS, secret)
    client = serve(tmp_path / "out")
    for path in ("media/0", "frame/0?t=0"):
        status, _, content = client.request("GET", path)
        assert status == 422 and b"not a readable video" in content
        assert secret.read_bytes() not in content
