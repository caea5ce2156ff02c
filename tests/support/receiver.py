"""The receiver that the rig output posts to: keeps every event that it stored, and answers by a script.

It lives in the test's process, which nobody kills. ``behave`` changes what it does while shippers run; so does its
control endpoint, for scripts outside this process.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import msgspec

from support import behaviours
from support.behaviours import Answer, Request, Step

RIG = Path(__file__).parent / "rig"

#: Gets the output's name and the events of a request, and says what to answer: ``{"failed": {index: outcome}}``,
#: ``{"held": why}`` or ``{}``. It may block: that is a slow destination.
Script = Callable[[str, list[dict[str, Any]]], dict[str, Any]]


class _Identified(msgspec.Struct):
    id: str


_identified = msgspec.json.Decoder(_Identified)


class Receiver:
    """Counts, per output, how often each event id was stored.

    ``record``: a file that gets a line ``OUTPUT<tab>ID`` for every event, before the answer goes out; what it holds at
    the start counts as stored. ``seed`` decides every draw of ``behave``: the n-th request of an output gets the same
    answer whatever else goes on.
    """

    def __init__(self, script: Script | None = None, *, record: Path | None = None, seed: int = 0) -> None:
        self.script = script
        self.seed = seed
        self.ids: dict[str, Counter[str]] = {}
        self.order: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._behaviour: dict[str, list[Step]] = {}
        self._since: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._record = None if record is None else os.open(record, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if record is not None:
            for line in record.read_text().splitlines():
                self._keep(*line.split("\t"))
        # Bound and never listening: keeps the port ours while the server is down, and connections are refused.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: _Server | None = None
        self._over = False
        self._control = _Server(_bound(0), _control(self))
        self.control_url = f"http://127.0.0.1:{self._control.server_port}"

    def __enter__(self) -> Self:
        self._control.begin()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.behave("deliver")  # whatever still waits is let go
        self._over = True  # and what would come back by itself stays down
        self.stop()
        self._control.end()
        self._reserved.close()
        if self._record is not None:
            os.close(self._record)
            self._record = None

    # -- what it does ----------------------------------------------------------------------------------------------

    def behave(self, script: behaviours.Script, *, output: str | None = None, **parameters: Any) -> None:
        """From now on, by a kind or a list of steps (``behaviours.Step``); after the last step it delivers.

        For one ``output``, or for all of them. Replaces what was said before, ``Receiver.script`` too, and lets go
        what a ``slow`` step without ``seconds`` makes wait. ``behave("down")`` refuses connections until ``start``.
        """
        found = behaviours.steps(script, parameters)
        with self._changed:
            self.script = None
            if output is None:
                self._behaviour.clear()
                self._since.clear()
            self._behaviour[output or ""] = found
            self._since[output or ""] = 0
            self._changed.notify_all()
        if found and found[0].kind == "down" and found[0].seconds is None:
            self.stop()

    def stop(self) -> None:
        """Goes down: open connections are cut and new ones refused. Harmless where it is down."""
        with self._changed:
            server, self._server = self._server, None
        if server is not None:
            server.end()

    def start(self) -> None:
        """Comes back on the same port. Harmless where it is up."""
        with self._changed:
            if self._server is not None or self._over:
                return
            self._server = _Server(_bound(self.port), _posts(self))
            self._server.begin()

    # -- what it has -----------------------------------------------------------------------------------------------

    def stored(self, output: str | None = None) -> list[str]:
        """The id of every event stored, in order, as often as it was stored: of one output, or of all."""
        with self._changed:
            if output is not None:
                return list(self.order.get(output, ()))
            return [event for ids in self.order.values() for event in ids]

    def count(self) -> dict[str, int]:
        return {output: len(ids) for output, ids in self.ids.items()}

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Until ``condition`` holds; it is asked after every request."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=seconds), f"after {seconds} s: {self.count()}"

    def wait_for_request(self, output: str | None = None) -> None:
        """Until a request has come, answered or not."""
        self.wait(lambda: (self._begun.total() if output is None else self._begun[output]) > 0)

    # -- one request -----------------------------------------------------------------------------------------------

    def take(self, output: str, body: bytes) -> bytes | None:
        """Decides, stores, and returns the reply; ``None``: hang up."""
        lines = body.split(b"\n")
        if self.script is not None:
            return self._by_script(self.script, output, lines)
        request = Request(output, lines, [_identified.decode(line).id for line in lines])
        with self._changed:
            number = self._begin(output)
            name = output if output in self._behaviour else ""
            step = _current(self._behaviour.get(name, []), self._since[name])
            self._since[name] += 1
            randomness = random.Random(f"{self.seed}/{output}/{number}")
            answer = behaviours.answer(step, request, randomness, self.ids.get(output, ()))
        self._hold_up(answer, step, output)
        with self._changed:
            self.requests[output] += 1
            self._store(output, [request.ids[index] for index in answer.stored])
        return answer.reply

    def _hold_up(self, answer: Answer, step: Step, output: str) -> None:
        if answer.down is not None:
            self.stop()
            again = threading.Timer(answer.down, self.start)
            again.daemon = True
            again.start()
        elif answer.seconds is None:
            with self._changed:
                self._changed.wait_for(lambda: step not in self._behaviour.get(output, self._behaviour.get("", [])))
        elif answer.seconds:
            # A time, and not a condition: being slow is what this destination does.
            threading.Event().wait(answer.seconds)

    def _by_script(self, script: Script, output: str, lines: list[bytes]) -> bytes:
        events = [msgspec.json.decode(line) for line in lines]
        with self._changed:
            self._begin(output)
        answer = script(output, events)
        refused = set(answer.get("failed", {}))
        with self._changed:
            self.requests[output] += 1
            whole = "held" in answer or "raise" in answer
            kept = [] if whole else [event["id"] for index, event in enumerate(events) if str(index) not in refused]
            self._store(output, kept)
        return msgspec.json.encode(answer)

    def _begin(self, output: str) -> int:
        self._begun[output] += 1
        self._changed.notify_all()
        return self._begun[output]

    def _store(self, output: str, ids: list[str]) -> None:
        if self._record is not None and ids:
            os.write(self._record, "".join(f"{output}\t{one}\n" for one in ids).encode())
        self._keep(output, *ids)
        self._changed.notify_all()

    def _keep(self, output: str, *ids: str) -> None:
        if ids:
            self.ids.setdefault(output, Counter()).update(ids)
            self.order.setdefault(output, []).extend(ids)


def _current(steps: list[Step], number: int) -> Step:
    """The step that the request with this number, from 0, falls into."""
    for step in steps:
        lasts = 1 if step.kind == "down" and step.requests is None else step.requests
        if lasts is None or number < lasts:
            return step
        number -= lasts
    return Step(remember=bool(steps) and steps[-1].remember)


# -- the servers ---------------------------------------------------------------------------------------------------


def _bound(port: int) -> socket.socket:
    """A socket on loopback; several may share the port, and only those that listen take connections."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


class _Server(ThreadingHTTPServer):
    """One life of the receiver: from ``begin`` to ``end``, which cuts what is connected."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_address = bound.getsockname()
        self.server_port = self.server_address[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        _cut(self.socket)  # first of all: nothing new is taken
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                _cut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A shipper that was killed hangs up."""


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has gone already


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two writes: the second would wait 40 ms for the acknowledgement of the first.
    disable_nagle_algorithm = True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output quiet."""


def _posts(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Posts(_Handler):
        def do_POST(self) -> None:
            reply = receiver.take(self.path[1:], self.body())
            if reply is None:
                self.close_connection = True
                _cut(self.connection)
            else:
                self.reply(reply)

    return Posts


def _control(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    """``POST /behave`` with ``{"script": …, parameters}``, ``POST /stop``, ``POST /start``, ``GET /stored?output=``."""

    class Control(_Handler):
        def do_POST(self) -> None:
            said = msgspec.json.decode(self.body() or b"{}")
            match self.path:
                case "/behave":
                    receiver.behave(**said)
                case "/stop":
                    receiver.stop()
                case "/start":
                    receiver.start()
            self.reply(b"{}")

        def do_GET(self) -> None:
            output = parse_qs(urlsplit(self.path).query).get("output", [None])[0]
            self.reply(msgspec.json.encode(receiver.stored(output)))

    return Control


@contextmanager
def down(receiver: Receiver) -> Iterator[None]:
    """The receiver refuses connections inside the block."""
    receiver.stop()
    try:
        yield
    finally:
        receiver.start()
