"""A TCP proxy that spoils what goes through it: refused, reset, cut off, closed on one side, late, drop by drop.

An *exchange* is a request and its reply, of which it knows no more than where a reply of HTTP/1.1 with a
Content-Length ends. Each exchange draws from a seeded generator whether the fault strikes it, and where.
"""

from __future__ import annotations

import random
import re
import select
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Literal, get_args

Kind = Literal[
    "pass",
    "refuse",  # nobody listens, and what is connected is reset
    "reset",  # the connection is reset somewhere in the reply
    "unsent",  # the connection is reset somewhere in the request
    "truncate",  # the connection ends somewhere in the reply
    "half_close",  # the proxy stops sending before the reply, and goes on reading
    "delay",  # the reply comes so many seconds later
    "trickle",  # the reply comes byte by byte within so many seconds
]
KINDS: tuple[str, ...] = get_args(Kind)

#: Seconds between two looks at whether the proxy has changed its mind.
LOOK = 0.02
#: Seconds that a client gets to read a reply: a reset takes away what it has not read.
UNREAD = 1.0
#: Seconds that a server gets to end a connection that was broken on the other side.
PATIENCE = 10.0


class FaultProxy:
    """Listens on ``port`` and passes on to ``target``, a port on loopback.

    ``broken`` has, for every exchange whose reply did not reach the client, when it began and when the server had done
    with it (monotonic seconds): what the server stored meanwhile the client may send again.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.broken: list[tuple[float, float]] = []
        self._target = target
        self._random = random.Random(seed)
        self._kind: Kind = "pass"
        self._share = 1.0
        self._seconds = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        # Bound and never listening: keeps the port ours while nobody listens.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None

    def __enter__(self) -> FaultProxy:
        self._listen()
        self._acceptor = threading.Thread(target=self._accept, name="fault proxy", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._acceptor.join(PATIENCE)
        while threads := list(self._threads):
            threads[0].join(PATIENCE)
            self._threads.discard(threads[0])
        self._reserved.close()

    def behave(self, kind: Kind, *, share: float = 1.0, seconds: float = 0.0) -> None:
        """From now on a share of the exchanges suffers this; ``seconds`` is for ``delay`` and ``trickle``."""
        with self._lock:
            self._kind, self._share, self._seconds = kind, share, seconds

    # -- listening -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closing.is_set():
            if self._kind == "refuse":
                self._stop_listening()
                self._closing.wait(LOOK)
                continue
            listener = self._listen()
            if select.select([listener], [], [], LOOK)[0]:
                client, _ = listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), name="fault proxy", daemon=True)
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()
        self._stop_listening()

    def _listen(self) -> socket.socket:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(64)
        return self._listener

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # -- one connection --------------------------------------------------------------------------------------------

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(("127.0.0.1", self._target), PATIENCE) as server:
                _Connection(self, client, server).run()
        except OSError:
            pass  # the client was killed, or the server is down: whoever is left has seen it

    def draw(self) -> tuple[Kind, float, float]:
        """What happens to an exchange that begins now, where (from 0 to 1), and how many seconds that takes."""
        with self._lock:
            struck = self._random.random() < self._share
            return (self._kind if struck else "pass"), self._random.random(), self._seconds

    @property
    def gone(self) -> bool:
        """Whether connections are to be given up now."""
        return self._kind == "refuse" or self._closing.is_set()

    def pause(self, seconds: float) -> None:
        """Lets time pass, but not beyond the proxy's own end."""
        self._closing.wait(seconds)


class _Connection:
    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        #: When the exchange began that waits for its reply; ``None``: none does.
        self._began: float | None = None
        self._reply = bytearray()
        #: When the last exchange that was answered had begun, and was over.
        self._answered = (0.0, 0.0)
        self._fault: tuple[Kind, float, float] = ("pass", 0.0, 0.0)

    def run(self) -> None:
        while True:
            readable, _, _ = select.select([self._client, self._server], [], [], LOOK)
            if self._proxy.gone:
                return self._break(reset=True)
            if self._client in readable and not self._from_client():
                return None
            if self._server in readable and not self._from_server():
                return None

    def _from_client(self) -> bool:
        try:
            data = self._client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._break(reset=False)
            return False
        if self._began is None:
            self._began = time.monotonic()
            self._reply.clear()
            self._fault = self._proxy.draw()
        kind, where, _ = self._fault
        if kind == "unsent":
            self._server.sendall(data[: int(where * len(data))])
            self._break(reset=True)
            return False
        self._server.sendall(data)
        return True

    def _from_server(self) -> bool:
        data = self._server.recv(65536)
        kind, where, seconds = self._fault
        if not data:
            self._break(reset=False)
            return False
        if kind in ("reset", "truncate"):
            self._client.sendall(data[: int(where * len(data))])
            self._break(reset=kind == "reset")
            return False
        if kind == "half_close":
            self._client.shutdown(socket.SHUT_WR)
            self._break(reset=False)
            return False
        if kind == "delay" and not self._reply:
            self._proxy.pause(seconds)
        try:
            for part in _drops(data) if kind == "trickle" else [data]:
                if kind == "trickle":
                    self._proxy.pause(seconds / len(data))
                self._client.sendall(part)
        except OSError:
            self._break(reset=False)
            raise
        self._reply += data
        if _complete(self._reply) and self._began is not None:
            self._answered = self._began, time.monotonic()
            self._began = None
        return True

    def _break(self, *, reset: bool) -> None:
        """Ends the connection towards the client, and waits until the server has done with the request it has."""
        now = time.monotonic()
        if reset:
            # Without lingering, closing sends a reset.
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.close()
        try:
            self._server.shutdown(socket.SHUT_WR)
            self._server.settimeout(PATIENCE)
            while self._server.recv(65536):
                pass
        except OSError:
            pass  # it has gone already
        if self._began is not None:
            self._proxy.broken.append((self._began, time.monotonic()))
        elif reset and now - self._answered[1] < UNREAD:
            self._proxy.broken.append((self._answered[0], now))


def _complete(reply: bytes | bytearray) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _drops(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def _bound(port: int) -> socket.socket:
    """A socket on loopback; several may share the port, and only those that listen take connections."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found
