"""A folder as `predict` writes it, and a server that reviews it."""

import http.client
import json
import threading

import pytest

from losa_jax.jobs.review.folder import find_file, only_reviewer
from losa_jax.jobs.review.server import ReviewServer
from losa_jax.jobs.review.store import Store
from tests.report.conftest import FPS, SECONDS, browser, video  # noqa: F401

THRESHOLDS = {"jump": 0.5, "wave": 0.3}


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


__all__ = ["browser", "only_reviewer", "video"]
