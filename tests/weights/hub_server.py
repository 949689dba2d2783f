"""A server on loopback that speaks the protocol of the Hugging Face hub."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


class HubServer(ThreadingHTTPServer):
    """Serves repositories; tests change the attributes.

    Attributes:
      repositories: {OWNER/NAME: {file: content}}.
      commits: {OWNER/NAME: {revision: commit}}.
      cards: {OWNER/NAME: the model card's entries}.
      datasets, gated: names.
      drops: {file: number of connections to drop halfway}.
      status: if not 0, that of every answer.
      requests: (method, path, header `Range`) of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, dict[str, str]] = {}
        self.cards: dict[str, dict[str, str]] = {}
        self.datasets: set[str] = set()
        self.gated: set[str] = set()
        self.drops: dict[str, int] = {}
        self.status = 0
        self.page = b""
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes], **card: str) -> str:
        """Adds a repository or a new commit of its branch `main`."""
        digest = hashlib.sha1(name.encode())
        for file, content in files.items():
            digest.update(file.encode() + content)
        commit = digest.hexdigest()
        self.repositories[name] = files
        self.commits.setdefault(name, {}).update(
            {"main": commit, commit: commit})
        self.cards[name] = card
        return commit

    def fetched(self) -> set[str]:
        """Returns the names of the files whose content was sent."""
        return {path.rpartition("/")[2] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path}


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, quoted = self.server, urlsplit(self.path).path
        path = unquote(quoted)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.status:
            return self._send(hub.status, b"down")
        if hub.page:
            return self._send(200, hub.page)
        if match := re.fullmatch(r"/api/datasets/(\w[\w.-]*/[\w.-]+)", path):
            name = match[1]
            if name in hub.datasets:
                return self._send(200, json.dumps(
                    {"id": name, "sha": "0" * 40}).encode())
            return self._refuse(404, "RepoNotFound")
        # Quoted, because a revision may have slashes.
        match = re.fullmatch(
            r"/api/models/(?P<name>[\w.-]+/[\w.-]+)"
            r"(?:/revision/(?P<revision>[^/]+))?"
            r"|/(?P<file_of>[\w.-]+/[\w.-]+)/resolve/(?P<at>[^/]+)/(?P<file>.+)",
            quoted)
        if match is None:
            return self._refuse(404, "")
        name = match["name"] or match["file_of"]
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            return self._refuse(
                401, "", "Invalid credentials in Authorization header")
        if name not in hub.repositories:
            return self._refuse(404 if token else 401, "RepoNotFound")
        if name in hub.gated and match["file"] and not token:
            return self._refuse(401, "GatedRepo")
        revision = unquote(match["revision"] or match["at"] or "main")
        commit = hub.commits[name].get(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        files = hub.repositories[name]
        if match["file"] is None:
            return self._send(200, json.dumps({
                "id": name, "modelId": name, "sha": commit, "private": False,
                "cardData": hub.cards[name], "siblings": [
                    {"rfilename": file, "size": len(content)}
                    for file, content in files.items()]}).encode())
        if match["file"] not in files:
            return self._refuse(404, "EntryNotFound")
        self._send_file(match["file"], files[match["file"]], commit)

    def _send_file(self, file: str, content: bytes, commit: str) -> None:
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                   "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        status, start = 200, 0
        wanted = self.headers.get("Range", "")
        if match := re.fullmatch(r"bytes=(\d+)-", wanted):
            status, start = 206, int(match[1])
            headers["Content-Range"] = (
                f"bytes {start}-{len(content) - 1}/{len(content)}")
        end = len(content)
        if self.command == "GET" and self.server.drops.get(file, 0):
            self.server.drops[file] -= 1
            end = start + (end - start) // 2
            self.close_connection = True
        self._send(status, content[start:end], len(content) - start, headers)

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self._send(status, b"", headers={
            "X-Error-Code": code, "X-Error-Message": message or code})

    def _send(self, status: int, content: bytes, length: int | None = None,
              headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(
            len(content) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextlib.contextmanager
def serve() -> Iterator[HubServer]:
    """Runs a server until the end of the block."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever,
                                  kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
