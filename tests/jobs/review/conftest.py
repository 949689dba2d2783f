"""A folder as `predict` writes it, a server that reviews it, and its pages."""

import http.client
import json
import threading

import pytest

from losa_jax.data.reviews import read_review
from losa_jax.jobs.review.folder import find_file, only_reviewer
from losa_jax.jobs.review.server import ReviewServer
from losa_jax.jobs.review.store import Store
from tests.report.conftest import FPS, SECONDS, browser, video  # noqa: F401
from tests.report.test_browser import _ready, _until

THRESHOLDS = {"jump": 0.5, "wave": 0.3}
EVIL = "<script>alert(1)</script>"
# (start_seconds, end_seconds, label, score); the last is below its threshold.
ROWS = [(1.0, 2.0, "jump", 0.9), (3.0, 4.0, "jump", 0.55),
        (2.0, 2.5, "wave", 0.8), (4.5, 5.0, "wave", 0.1)]


def write_video(folder, name, rows, source="-", seconds=SECONDS, fps=FPS,
                model="a model", shown_from=THRESHOLDS):
    """Writes the JSON of one video; rows are (start, end, label, score)."""
    rows = [{"label": label, "score": score, "start_seconds": start,
             "end_seconds": end, "start_frame": round(start * fps),
             "end_frame": round(end * fps)}
            for start, end, label, score in rows]
    folder.mkdir(exist_ok=True)
    path = folder / "predictions.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    path.write_text(json.dumps({"results": {**results, name: [
        {"segment": [row["start_seconds"], row["end_seconds"]],
         "label": row["label"], "score": row["score"]} for row in rows]}}))
    (folder / f"{name}.json").write_text(json.dumps({
        "video": name, "source": str(source), "duration_seconds": seconds,
        "fps": fps, "frame_count": round(seconds * fps),
        "shown_from": shown_from,
        "detections": [row for row in rows
                       if row["score"] >= shown_from.get(row["label"], 0)],
        "below_threshold": [row for row in rows if row["score"]
                            < shown_from.get(row["label"], 0)],
        "made_by": {"model": model, "top_k": None, "file_bytes": 1,
                    "file_modified_ns": 1}}))


class Client:
    """Sends requests as a page does."""

    def __init__(self, server):
        self.server = server

    def request(self, method, path, body=None, headers=None, token=True):
        """Returns the status, the headers, and the content."""
        port = self.server.server_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        address = f"/{self.server.token}/{path}" if token else path
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, address, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def change(self, number, revision, changes, **more):
        """Returns the status and the answer to a change."""
        status, _, content = self.request("POST", f"video/{number}", {
            "revision": revision, "changes": changes, **more})
        return status, json.loads(content)


@pytest.fixture
def serve():
    """serve(folder) starts a server in a thread and returns its client."""
    servers = []

    def start(folder):
        store = Store(folder, "ann")
        files = [find_file(store.predicted(number), folder, None)
                 for number in range(len(store))]
        server = ReviewServer(store, files)
        thread = threading.Thread(target=server.serve_forever,
                                  kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return Client(server)

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def open_page(browser):
    """open_page(address) opens a page; what the console shows fails the
    test, except for the answers named in `expected`."""
    pages, messages, expected = [], [], []

    def start(address, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height},
                                color_scheme=scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    start.expected = expected
    yield start
    for page in pages:
        page.close()
    assert [one for one in messages
            if not any(part in one for part in expected)] == []


@pytest.fixture
def folder(tmp_path, video):
    """The predictions of one video, "a"."""
    write_video(tmp_path / "out", "a", ROWS, video)
    return tmp_path / "out"


@pytest.fixture
def client(serve, folder):
    """A server of `folder`."""
    return serve(folder)


@pytest.fixture
def view(client, open_page):
    """The editor of the video "a"."""
    view = open_page(f"{client.server.address}video/0")
    _ready(view)
    return view


def press(view, *keys):
    """Presses keys, one after the other."""
    for key in keys:
        view.keyboard.press(key)


def saved(view, folder, name="a"):
    """Returns what is on the disk, once the page says so."""
    _until(view, "review.isSaved")
    return read_review(folder / "reviews" / f"{name}.json")


def brief(actions):
    """Returns (label, start, end, verdict) of actions."""
    return [(one.label, round(one.start_seconds, 3),
             round(one.end_seconds, 3), one.verdict) for one in actions]


__all__ = ["browser", "only_reviewer", "video"]
