"""Health, metrics and status over HTTP: read-only paths for probes, Prometheus and `shipper status`.

It listens on loopback unless told otherwise, and expects strangers all the same: a request is bounded in size and time,
connections in number, and no answer says more than names, counts and reasons. Status says more of them than a stranger
has to know: it answers only where the server listens on loopback.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec

from shipper.errors import ConfigurationError, Problem, ShipperError
from shipper.observe.metrics import CONTENT_TYPE
from shipper.observe.vitals import HeldComponent, Vitals

log = logging.getLogger("shipper.http")

#: A request's line and headers, in bytes and in seconds from accept to the empty line.
MAX_REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0
#: Requests answered at the same time; more are turned away at once.
MAX_CONNECTIONS = 32

_PORT = re.compile(r"[0-9]{1,5}")


class ListenError(ShipperError):
    """The server cannot listen where the configuration says."""


class Rendering(Protocol):
    """What ``/metrics`` asks: ``shipper.observe.metrics.Metrics``."""

    def render(self) -> bytes: ...


class HttpServer:
    """Listens from construction until ``close``. ``listen`` is ``HOST:PORT`` or ``[IPv6]:PORT``; port 0 is a free one.

    Raises ``ListenError`` where it cannot listen there, ``ConfigurationError`` where ``listen`` is no address.
    """

    def __init__(self, listen: str, metrics: Rendering, vitals: Vitals) -> None:
        host, port = parse_listen(listen)
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
                0
            ]
            self._server = _Server(family, address, metrics, vitals)
        except OSError as error:
            raise ListenError(
                f"server: cannot listen on {listen}: {error.strerror or error}; nothing was started; "
                "stop what listens there, or set server.listen to another address (empty: no server)"
            ) from error
        bound = self._server.socket.getsockname()
        #: Host and port as they are, also where port 0 was asked for.
        self.address: tuple[str, int] = (str(bound[0]), int(bound[1]))
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        #: Where it can be reached from this machine.
        self.url = f"http://{shown}:{bound[1]}"
        # Closing waits for the next look at whether it was asked to, every 0.1 s.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="shipper-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening; what is being answered is not waited for."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9686``, ``localhost:0`` or ``[::1]:9686``. Raises ``ConfigurationError``."""
    host, _, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = int(port) if _PORT.fullmatch(port) else -1
    if not bare or not 0 <= number <= 65535 or (":" in bare and bare == host):
        raise ConfigurationError(
            Problem(
                f"{listen!r} is not an address to listen on",
                key="server.listen",
                mend='write for example "127.0.0.1:9686", "0.0.0.0:9686" or "[::1]:9686"',
            )
        )
    return bare, number


def is_loopback(host: str) -> bool:
    """Whether a host, given as an address or as `localhost`, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * MAX_CONNECTIONS

    def __init__(self, family: int, address: Any, metrics: Rendering, vitals: Vitals) -> None:
        self.address_family = family
        self.metrics = metrics
        self.vitals = vitals
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks the name service for this machine's name and waits for its answer.
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away while it is answered is no news; what fails in an answer is logged there.
        log.debug("a request ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    # Head and body are two writes: the second would wait for the acknowledgement of the first.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answers one request. Its line and headers are read first: within a time and a size, however they trickle."""
        self.close_connection = True
        self.rfile.close()
        head = self._head()
        if head:
            self.rfile = io.BufferedReader(io.BytesIO(head))
            self.handle_one_request()

    def _head(self) -> bytes:
        deadline = time.monotonic() + REQUEST_SECONDS
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) >= MAX_REQUEST_BYTES:
                return b""
            self.connection.settimeout(left)
            try:
                part = self.connection.recv(MAX_REQUEST_BYTES - len(head))
            except TimeoutError:
                return b""
            if not part:
                return b""
            head += part
        self.connection.settimeout(REQUEST_SECONDS)
        return head

    def do_GET(self) -> None:
        """Answers a path."""
        try:
            url = urlsplit(self.path)
            query = parse_qs(url.query, max_num_fields=10)
        except ValueError:
            return self.send_error(HTTPStatus.BAD_REQUEST)
        try:
            match url.path:
                case "/health":
                    ok, said = self.server.vitals.healthy()
                    self._say(ok, {"healthy": ok, **said})
                case "/ready":
                    self._ready(strict=query.get("strict", ["0"])[-1] not in ("0", "false"))
                case "/metrics":
                    self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.metrics.render())
                case "/status" if self._local():
                    self._say(True, self.server.vitals.status())
                case "/status":
                    self.send_error(HTTPStatus.FORBIDDEN)
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND)
        except OSError:
            raise  # the client has gone
        except Exception:
            log.exception("http: answering %s failed; 500 was answered; this is a bug, please report it", url.path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)

    do_HEAD = do_GET

    def _local(self) -> bool:
        """Whether the server listens on loopback alone, and was asked under a name of loopback: a page in a browser of
        this machine, whose own name was made to lead here, asks under that."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            return False
        return is_loopback(str(self.server.server_address[0])) and is_loopback(host)

    def _ready(self, *, strict: bool) -> None:
        ok, said = self.server.vitals.ready()
        held = _reasons(self.server.vitals.held())
        self._say(ok and not (strict and held), {"ready": ok, **said, "held": held})

    def _say(self, ok: bool, body: Mapping[str, Any]) -> None:
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", msgspec.json.encode(body, enc_hook=str) + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """One short line, without the request's own words."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._answer(status, "text/plain; charset=utf-8", f"{status.value} {status.phrase}\n".encode())

    def version_string(self) -> str:
        """The ``Server`` header: no versions."""
        return "shipper"

    def log_message(self, format: str, *args: object) -> None:
        """Probes and scrapes are no events."""


def _reasons(held: Iterable[HeldComponent]) -> list[dict[str, str]]:
    # Without the destination's words: they stand in the log, for those who may read it.
    return [{"component": each.component, "reason": each.reason} for each in held]
