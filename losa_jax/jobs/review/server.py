"""Answers the requests of the review pages, on loopback only.

All addresses begin with a secret token. A request must name this machine as
its host, which refuses pages that use another name for it, and must not come
from another origin. Files are named by the number of their video: no path
comes from a request.
"""

import contextlib
import json
import mimetypes
import os
import re
import secrets
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from losa_jax.errors import InputError
from losa_jax.jobs.review import media, pages
from losa_jax.jobs.review.store import Conflict, Store

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**18
# {name: what a request about all videos does}; returns {video: changes}.
_BULK: dict[str, Callable[[Store, Any], dict[int, int]]] = {
    "accept": lambda store, body: store.accept_all(
        body["label"], float(body["score"]),
        only_counts=body["only_counts"] is not False),
    "undo": lambda store, _: store.undo_accept_all(),
    "redo": lambda store, _: store.redo_accept_all()}


class ReviewServer(ThreadingHTTPServer):
    """Serves one folder at `address`."""

    daemon_threads = True  # a video that is being sent does not keep it alive

    def __init__(self, store: Store, files: list[Path | None], port: int = 0):
        """Takes the file of each video, None where it is missing, and a port,
        0 for a free one. InputError where the port is taken."""
        self.store, self.files = store, files
        self.token = secrets.token_urlsafe(16)
        self.frames = media.FrameReader()
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--port={port}: cannot be used ({reason}): "
                             "choose another one, or 0") from error

    @property
    def address(self) -> str:
        """The address of the list of videos."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores browsers that close a connection while they are served."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "losa_jax", ""
    timeout = 60  # seconds of silence

    def do_GET(self) -> None:
        """Answers with a page, a part of a video, or a frame."""
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answers with the state after a change."""
        self._answer(self._post)

    def log_message(self, *_: object) -> None:
        """Prints nothing for each request."""

    def _answer(self, respond: Any) -> None:
        try:
            respond(self._checked_path())
        except _Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except InputError as error:
            self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY,
                            {"error": str(error)})

    def _checked_path(self) -> list[str]:
        """Returns the parts of the path after the token."""
        hosts = {f"{name}:{self.server.server_port}"
                 for name in (_HOST, "localhost")}
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        if host not in hosts:
            raise _Refused(
                HTTPStatus.FORBIDDEN, "another host: open the address with "
                f"{_HOST}:{self.server.server_port}, as it was printed")
        # A link to the printed address may be opened from anywhere, such as a
        # terminal in a browser: the page that has it sees no answer.
        is_link = self.command == "GET" and self.headers.get(
            "Sec-Fetch-Mode") == "navigate" and self.headers.get(
            "Sec-Fetch-Dest") == "document"
        if (origin is not None and origin != f"http://{host}") or not (
                is_link or self.headers.get("Sec-Fetch-Site", "none")
                in ("none", "same-origin")):
            raise _Refused(HTTPStatus.FORBIDDEN, "another origin")
        token, *parts = urllib.parse.urlsplit(self.path).path.split("/")[1:]
        if not secrets.compare_digest(token.encode(),
                                      self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "open the address that "
                           "python -m losa_jax.review printed last")
        return parts

    def _number(self, parts: list[str]) -> int:
        """Returns the number of the video that a path ends with."""
        text = parts[0] if len(parts) == 1 else ""
        number = _whole_number(text)
        if number is None or number >= len(self.server.store):
            raise _Refused(HTTPStatus.NOT_FOUND, "no such video")
        return number

    def _get(self, parts: list[str]) -> None:
        store = self.server.store
        if not parts:  # the slash at the end of the address is missing
            self._send_head(HTTPStatus.FOUND, "text/plain", 0, {
                "Location": f"/{self.server.token}/"})
            return
        if parts == [""]:
            self._send_page(pages.list_page(store, self.server.files))
            return
        name, *rest = parts
        if name not in ("video", "media", "frame", "next", "doubtful"):
            raise _Refused(HTTPStatus.NOT_FOUND, "no such page")
        number = self._number(rest)
        if name == "video":
            self._send_page(pages.video_page(
                store, number, self.server.files[number]))
            return
        if name == "next":
            self._send_json(HTTPStatus.OK, pages.next_video(store, number))
            return
        query = urllib.parse.parse_qs(
            urllib.parse.urlsplit(self.path).query)
        if name == "doubtful":
            self._send_json(HTTPStatus.OK, pages.doubtful(
                store, number, query.get("passed", [""])[0]))
            return
        path = self.server.files[number]
        if path is None or not path.is_file():
            raise _Refused(HTTPStatus.NOT_FOUND, "the video is missing")
        if name == "media":
            # The name came from a file that another person may have made.
            self.server.frames.check(path)
            self._send_file(path)
            return
        try:
            seconds = float(query["t"][0])
            content = self.server.frames.jpeg(path, seconds)
        except (KeyError, ValueError, OverflowError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "no time ?t=SECONDS"
                           ) from error
        self._send(HTTPStatus.OK, content, "image/jpeg")

    def _post(self, parts: list[str]) -> None:
        body = self._body()
        name, *rest = parts or [""]
        try:
            if name == "video":
                self._change(self._number(rest), body)
            elif name in _BULK and not rest:
                counts = _BULK[name](self.server.store, body)
                self._send_json(HTTPStatus.OK, {
                    "count": sum(counts.values()), "videos": len(counts)})
            else:
                raise _Refused(HTTPStatus.NOT_FOUND, "no such page")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST,
                           f"not a change ({error!r})") from error

    def _change(self, number: int, body: Any) -> None:
        store, status = self.server.store, HTTPStatus.OK
        answer: dict[str, Any] = {}
        try:
            review = store.change(number, body["revision"], body["changes"],
                                  body.get("is_complete"))
        except Conflict as error:
            status, answer = HTTPStatus.CONFLICT, {"error": str(error)}
        except InputError as error:
            status, answer = (HTTPStatus.UNPROCESSABLE_ENTITY,
                              {"error": str(error)})
        # A window whose change was refused goes on from what is saved. One
        # whose change was saved has not seen a later one of another window.
        if answer:
            review = store.review(number)
        self._send_json(status, {**answer, **pages.state(store, review)})

    def _body(self) -> Any:
        """Reads JSON; a form of another page cannot send this type."""
        length = _whole_number(self.headers.get("Content-Length", ""))
        if self.headers.get_content_type() != "application/json" or (
                length is None or length > _MAX_BODY_BYTES):
            self.close_connection = True
            raise _Refused(HTTPStatus.BAD_REQUEST, "no JSON")
        try:
            return json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "no JSON") from error

    def _send_page(self, text: str) -> None:
        self._send(HTTPStatus.OK, text.encode(errors="replace"),
                   "text/html; charset=utf-8")

    def _send_json(self, status: HTTPStatus, content: Any) -> None:
        if status >= HTTPStatus.BAD_REQUEST and self.command == "POST":
            # What was not read of the body must not be taken for a request.
            self.close_connection = True
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, content_type: str
              ) -> None:
        self._send_head(status, content_type, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError as error:
            raise InputError(f"{path.name}: cannot be read ({error.strerror})"
                             ) from error
        with file:
            self._send_part(file, path.name)

    def _send_part(self, file: BinaryIO, name: str) -> None:
        num_bytes = os.fstat(file.fileno()).st_size
        part = media.byte_range(self.headers.get("Range"), num_bytes)
        if part is None:
            self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                            "text/plain", 0,
                            {"Content-Range": f"bytes */{num_bytes}"})
            return
        content_type = mimetypes.guess_type(name)[0] or ""
        if not content_type.startswith("video/"):  # as for .ts, or .html
            content_type = "video/mp4"
        left = part.last - part.first + 1
        self._send_head(
            HTTPStatus.PARTIAL_CONTENT if part.is_part else HTTPStatus.OK,
            content_type, left, {
                "Accept-Ranges": "bytes", **({"Content-Range":
                    f"bytes {part.first}-{part.last}/{num_bytes}"}
                    if part.is_part else {})})
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            file.seek(part.first)
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                self.wfile.write(chunk)
                left -= len(chunk)
        if left:
            self.close_connection = True

    def _send_head(self, status: HTTPStatus, content_type: str, length: int,
                   more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
                "Content-Type": content_type, "Content-Length": str(length),
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Cross-Origin-Resource-Policy": "same-origin",
                **({"Connection": "close"} if self.close_connection else {}),
                **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()


def _whole_number(text: str) -> int | None:
    """Returns the number that ASCII digits are; Python reads no thousands of
    them."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None
