"""A Splunk HTTP Event Collector on loopback: both endpoints, gzip, TLS, tokens, indexes, acknowledgements, faults.

::

    with FakeSplunkHec(token="11111111-2222-3333-4444-555555555555", indexes=("main", "audit")) as splunk:
        ...  # ship to splunk.url
        assert splunk.events[0].index == "audit"

What it does with an event is in ``shipper.testing.splunk_hec_rules``. Events live in memory, and outlive ``stop``.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from shipper.testing.splunk_hec_rules import STATUS, TEXTS, HecEvent, Refused, events_of, lines_of, unpack

__all__ = ["FakeSplunkHec", "HecEvent"]

#: ``max_content_length`` of limits.conf, and the same for what comes over the network, compressed or not (bytes).
MAX_CONTENT_LENGTH = 838_860_800

_BASE = "/services/collector"
_EVENT = (_BASE, f"{_BASE}/event", f"{_BASE}/event/1.0")
_RAW = (f"{_BASE}/raw", f"{_BASE}/raw/1.0")
_ACK = f"{_BASE}/ack"
_HEALTH = (f"{_BASE}/health", f"{_BASE}/health/1.0")


@dataclass(slots=True)
class _Fault:
    """``stored``: the events are taken all the same. Without a status the connection is cut."""

    status: int | None
    body: bytes
    headers: dict[str, str]
    stored: bool


@dataclass(slots=True)
class _Batch:
    """What one request brought; indexed at ``due`` (monotonic seconds)."""

    events: list[HecEvent]
    due: float


@dataclass(slots=True)
class _Channel:
    """Acknowledgements of one channel: ids count from 0, and one that was told as true is forgotten."""

    next_id: int = 0
    waiting: dict[int, _Batch] = field(default_factory=dict)


class FakeSplunkHec:
    """HEC with one token, on a port that the system picks and that is kept while it is stopped.

    ``ack``: the token's indexer acknowledgement; then every request needs a channel, and ``index_delay`` seconds pass
    before what was taken is indexed. ``cut_at`` is where Splunk Cloud cuts a body off (bytes before compression).
    """

    def __init__(
        self,
        token: str = "00000000-0000-0000-0000-000000000000",  # noqa: S107 - opens nothing but this
        *,
        indexes: Sequence[str] = ("main",),
        ack: bool = False,
        index_delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
        max_content_length: int = MAX_CONTENT_LENGTH,
        cut_at: int | None = None,
    ) -> None:
        self.token = token
        self.indexes = list(indexes)
        self.ack = ack
        self.index_delay = index_delay
        self.max_content_length = max_content_length
        self.cut_at = cut_at
        self.enabled = True
        #: Seconds that every answer to a post takes.
        self.delay = 0.0
        #: As many next questions for acknowledgements are answered with a 503; as many are carried out, and then the
        #: connection is cut; or all of them get this body.
        self.fail_acknowledgements = 0
        self.lose_acknowledgements = 0
        self.acknowledgement_body: bytes | None = None
        #: What a load balancer in front adds to each answer, name → value with attributes; and what came back.
        self.cookies: dict[str, str] = {}
        self.seen_cookies: list[str] = []
        #: Code that the health endpoint answers with; or the status of a page that something in front of it answers,
        #: 0 where the connection is cut.
        self.health = 17
        self.health_page: int | None = None
        #: Requests by path, and the channel of each request for events.
        self.requests: list[str] = []
        self.channels: list[str] = []
        self._tls = tls
        self._batches: list[_Batch] = []
        self._acks: dict[str, _Channel] = {}
        self._faults: list[_Fault] = []
        self._refusals: list[tuple[str, int]] = []
        self._changed = threading.Condition(threading.RLock())
        # Bound and never listening: keeps the port while the server is down, and connections are refused.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or ``https``."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def events(self) -> list[HecEvent]:
        """Everything that was taken, in order, as often as it was taken."""
        with self._changed:
            return [event for batch in self._batches for event in batch.events]

    # -- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._reserved.close()

    def start(self) -> None:
        """Listens; on the same port as before."""
        if self._server is None:
            self._server = _Server(self, self._tls)

    def stop(self) -> None:
        """Cuts every connection and refuses new ones. What was taken is kept."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def kill(self) -> int:
        """Stops as a killed indexer does: with acknowledgements, what is not indexed yet is lost with its ids. Returns
        how many events that were."""
        self.stop()
        with self._changed:
            now, before = time.monotonic(), len(self.events)
            self._batches = [batch for batch in self._batches if batch.due <= now]
            self._acks.clear()
            return before - len(self.events)

    # -- faults ------------------------------------------------------------------------------------------------------

    def answer(
        self,
        code: int | None = None,
        *,
        status: int | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        number: int | None = None,
        stored: bool = False,
        times: int = 1,
    ) -> None:
        """The next requests for events are answered so, with a code of HEC's or with any status and body."""
        if code is not None:
            told: dict[str, Any] = {"text": TEXTS[code], "code": code}
            body = json.dumps(told | ({} if number is None else {"invalid-event-number": number})).encode()
            status = status or STATUS.get(code, 400)
            headers = {"Content-Type": "application/json", **(headers or {})}
        with self._changed:
            self._faults += [_Fault(status or 500, body or b"", headers or {}, stored)] * times

    def hang_up(self, *, stored: bool = False, times: int = 1) -> None:
        """The next requests for events get no answer: the connection is cut."""
        with self._changed:
            self._faults += [_Fault(None, b"", {}, stored)] * times

    def refuse(self, part: str, code: int) -> None:
        """The next object of a request with this text in it is refused with code 6, 7, 12, 13 or 15."""
        with self._changed:
            self._refusals.append((part, code))

    def index_everything(self) -> None:
        """What was taken is indexed now, whatever ``index_delay`` was."""
        with self._changed:
            for batch in self._batches:
                batch.due = 0.0

    def wait(self, events: int, seconds: float = 30.0) -> None:
        """Until so many events were taken."""
        with self._changed:
            enough = self._changed.wait_for(lambda: sum(len(one.events) for one in self._batches) >= events, seconds)
        if not enough:
            raise TimeoutError(f"{len(self.events)} of {events} events came within {seconds:g} s")

    # -- one request -------------------------------------------------------------------------------------------------

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        if self.health_page is not None:
            return self.health_page, {}
        return _told(self.health) if path in _HEALTH else (404, {"text": "Not found", "code": 404})

    def _post(self, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        """Status, headers and body of the answer; ``None``: hang up."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        channel = headers.get("X-Splunk-Request-Channel") or query.get("channel", "")
        with self._changed:
            self.requests.append(parts.path)
            self.seen_cookies.append(headers.get("Cookie", ""))
            fault = self._faults.pop(0) if self._faults and body and parts.path in (*_EVENT, *_RAW) else None
        if fault is not None and not fault.stored:
            return None if fault.status is None else (fault.status, fault.headers, fault.body)
        asks = parts.path == _ACK
        try:
            self._authorize(headers, query, channel, asks=asks)
            if asks and (disturbed := self._disturbance()):
                return disturbed
            if asks:
                status, told = 200, self._acknowledged(channel, body)
                if self.lose_acknowledgements and any(told["acks"].values()):
                    self.lose_acknowledgements -= 1
                    return None
            else:
                status, told = self._take(parts.path, query, channel, headers, body)
        except Refused as refused:
            status, told = refused.status, {"text": str(refused), "code": refused.code}
            if refused.number is not None:
                told["invalid-event-number"] = refused.number
            if refused.taken:
                told |= self._keep(refused.taken, channel)
        if fault is not None:
            return None if fault.status is None else (fault.status, fault.headers, fault.body)
        return status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(told).encode()

    def _authorize(self, headers: Any, query: dict[str, str], channel: str, *, asks: bool) -> None:
        given = headers.get("Authorization")
        if given is None:
            raise Refused(16 if "token" in query else 2)
        scheme, _, token = given.partition(" ")
        if scheme != "Splunk" or not token:
            raise Refused(3)
        if token != self.token:
            raise Refused(4)
        if not self.enabled:
            raise Refused(1)
        if asks and not self.ack:
            raise Refused(14)
        if self.ack and not channel:
            raise Refused(10)
        if channel:
            try:
                UUID(channel)
            except ValueError:
                raise Refused(11) from None

    def _take(
        self, path: str, query: dict[str, str], channel: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, Any]]:
        if path not in (*_EVENT, *_RAW):
            return 404, {"text": "The requested URL was not found on this server.", "code": 404}
        if len(body) > self.max_content_length:
            raise Refused(6, status=413)
        whole = unpack(body, headers.get("Content-Encoding", ""), self.max_content_length)
        if self.cut_at is not None and len(whole) > self.cut_at:
            raise Refused(6, number=0)
        self.channels.append(channel)
        if path in _RAW:
            events = lines_of(whole, query, self.indexes[0], self.indexes)
        else:
            events = events_of(whole, self.indexes[0], self.indexes, self._refusal)
        status, told = _told(0)
        return status, told | self._keep(events, channel)

    def _keep(self, events: list[HecEvent], channel: str) -> dict[str, Any]:
        with self._changed:
            batch = _Batch(events, time.monotonic() + self.index_delay if self.ack else 0.0)
            self._batches.append(batch)
            self._changed.notify_all()
            if not self.ack:
                return {}
            acks = self._acks.setdefault(channel, _Channel())
            acks.waiting[acks.next_id] = batch
            acks.next_id += 1
            return {"ackId": acks.next_id - 1}

    def _acknowledged(self, channel: str, body: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(body)["acks"]
        except (ValueError, KeyError, TypeError):
            raise Refused(6) from None
        with self._changed:
            waiting = self._acks.get(channel, _Channel()).waiting
            now = time.monotonic()
            true = [one for one in asked if one in waiting and waiting[one].due <= now]
            for one in true:
                del waiting[one]
        return {"acks": {str(one): one in true for one in asked}}

    def _disturbance(self) -> tuple[int, dict[str, str], bytes] | None:
        if self.fail_acknowledgements:
            self.fail_acknowledgements -= 1
            return 503, {}, b""
        return None if self.acknowledgement_body is None else (200, {}, self.acknowledgement_body)

    def _refusal(self, text: str) -> int | None:
        with self._changed:
            for number, (part, code) in enumerate(self._refusals):
                if part in text:
                    del self._refusals[number]
                    return code
        return None


def _told(code: int) -> tuple[int, dict[str, Any]]:
    return STATUS.get(code, 400), {"text": TEXTS[code], "code": code}


class _Server(ThreadingHTTPServer):
    """Listens and answers until it is ended; then every connection is cut."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, splunk: FakeSplunkHec, tls: ssl.SSLContext | None) -> None:
        self.splunk = splunk
        self._tls = tls
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", splunk.port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:  # the handshake is left to the connection's own thread
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of what this is for."""

    def end(self) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # it has gone already
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        status, told = self.server.splunk._get(urlsplit(self.path).path)
        if not status:
            self.close_connection = True
            return
        self._answer(status, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        answer = self.server.splunk._post(self.path, self.headers, body)
        self.server.stopping.wait(self.server.splunk.delay)
        if answer is None:
            self.close_connection = True
        else:
            self._answer(*answer)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        for name, value in self.server.splunk.cookies.items():
            self.send_header("Set-Cookie", f"{name}={value}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""
