"""Stands before a real server and can spoil the next request or its answer, as the world does."""

from __future__ import annotations

import gzip
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Request(NamedTuple):
    """What came in; the body is unpacked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What goes back. ``status`` 0: the connection is cut without one."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


#: Answers a request; the second argument passes one on to the server.
Spoil = Callable[[Request, Callable[[Request], Answer]], Answer]


class Front:
    """Passes requests on, but for the next one whose path has ``spoiled_path`` in it when there is a ``spoil``."""

    spoiled_path = "_bulk"

    def __init__(self, url: str) -> None:
        self._server_address = urlsplit(url).netloc
        self._port = 0
        self._server: _Server | None = None
        self.spoil: Spoil | None = None
        self.seen: list[Request] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        spoil = self.spoil
        if spoil is not None and self.spoiled_path in request.path:
            self.spoil = None
            return spoil(request, self.forward)
        return self.forward(request)

    def forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._server_address, timeout=60)
        try:
            connection.request(request.method, request.path, request.body or None, request.headers)
            reply = connection.getresponse()
            return Answer(reply.status, reply.read(), reply.headers.get("content-type", ""))
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], front: Front) -> None:
        self.front = front
        self.open: set[Any] = set()
        super().__init__(address, _Handler)

    def cut(self) -> None:
        """Ends the connections that clients keep open."""
        for connection in list(self.open):
            connection.close_connection = True
            try:
                connection.connection.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self)  # type: ignore[attr-defined]  # it is a _Server

    def finish(self) -> None:
        self.server.open.discard(self)  # type: ignore[attr-defined]  # it is a _Server
        super().finish()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        for name in ("host", "content-length", "connection", "accept-encoding"):
            headers.pop(name, None)
        if headers.pop("content-encoding", "") == "gzip":
            body = gzip.decompress(body)
        answer = self.server.front.answer(Request(self.command, self.path, headers, body))  # type: ignore[attr-defined]
        if not answer.status:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output quiet."""
