"""What the fake AWS services share: an HTTP server that boto3 talks to, programmable faults, counters of calls."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import msgspec

from shipper.clock import Clock, SystemClock

log = logging.getLogger(__name__)

#: A PutRecords call carries 10 MiB, a third more as base64; nothing that AWS takes is larger.
MAX_REQUEST_BYTES = 16 * 1024 * 1024
#: How long ``close`` waits for a connection's thread, and a paused call for its release, in seconds.
PATIENCE = 30.0

Operation = Callable[[dict[str, Any]], "bytes | dict[str, Any]"]
Self = TypeVar("Self", bound="FakeService")


class ServiceError(Exception):
    """An error as the service reports it: ``code`` is the exception's name, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Disconnect(Exception):
    """The connection is cut without an answer."""


@dataclass(slots=True)
class _Fault:
    error: Exception
    left: int | None


class FakeService:
    """One AWS service on loopback, on a port that the system picks.

    Use it as a context manager, or call ``start`` and ``close``. Signatures are not checked; any credentials do. All
    methods may be called from any thread while the server runs.

    ``calls`` counts what clients asked, by operation, refused calls included; calls of the Python methods are not
    counted.
    """

    #: Prefix of the header ``X-Amz-Target``.
    target: ClassVar[str] = ""
    #: The error that this service reports when it is asked too often.
    throttling_code: ClassVar[str] = "ThrottlingException"

    def __init__(self, *, region: str = "us-east-1", account: str = "123456789012", clock: Clock | None = None) -> None:
        self.region = region
        self.account = account
        self.calls: Counter[str] = Counter()
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._called = threading.Condition(self._lock)
        self._faults: dict[str, list[_Fault]] = {}
        self._latency: dict[str, float] = {}
        self._paused: dict[str, threading.Event] = {}
        self._server: _Server | None = None

    # Life

    def start(self: Self) -> Self:
        """Listens on 127.0.0.1; ``endpoint_url`` is known afterwards."""
        if self._server is None:
            self._server = _Server(self)
            self._server.start(type(self).__name__)
        return self

    def close(self) -> None:
        """Stops listening and cuts every connection. What is stored stays readable in this process."""
        for gate in list(self._paused.values()):
            gate.set()
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self: Self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:PORT``, for ``endpoint_url`` of boto3 or of the configuration."""
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} is not running: use it in a with statement, or call start()")
        return f"http://127.0.0.1:{self._server.server_port}"

    # Faults

    def fail(
        self, operation: str, code: str, message: str = "", *, status: int = 400, times: int | None = None
    ) -> None:
        """The next ``times`` calls of ``operation`` (without ``times``: all until ``mend``) end in error ``code``."""
        self._order(operation, ServiceError(code, message, status), times)

    def throttle(self, operation: str, times: int | None = None) -> None:
        """The next ``times`` calls of ``operation`` are refused because there were too many."""
        self._order(operation, ServiceError(self.throttling_code, "Rate exceeded"), times)

    def deny(self, operation: str, times: int | None = None) -> None:
        """The next ``times`` calls of ``operation`` are refused for lack of permission, in AWS's words."""
        action = f"{self._action_prefix()}:{operation}"
        message = (
            f"User: arn:aws:sts::{self.account}:assumed-role/shipper/session is not authorized to perform: {action} "
            f"because no identity-based policy allows the {action} action"
        )
        self._order(operation, ServiceError("AccessDeniedException", message), times)

    def disconnect(self, operation: str, times: int | None = None) -> None:
        """The next ``times`` calls of ``operation`` are cut without an answer."""
        self._order(operation, Disconnect(), times)

    def mend(self, operation: str | None = None) -> None:
        """Ends the faults and latency of one operation, or of all."""
        with self._lock:
            for kind in (self._faults, self._latency):
                kind.clear() if operation is None else kind.pop(operation, None)

    def latency(self, operation: str, seconds: float) -> None:
        """Every call of ``operation`` is answered that much later."""
        with self._lock:
            self._latency[operation] = seconds

    @contextmanager
    def paused(self, operation: str) -> Iterator[None]:
        """Calls of ``operation`` get no answer before the block is left (they are counted when they come in)."""
        gate = threading.Event()
        with self._lock:
            self._paused[operation] = gate
        try:
            yield
        finally:
            with self._lock:
                self._paused.pop(operation, None)
            gate.set()

    def wait_for(self, operation: str, calls: int = 1, timeout: float = 10.0) -> None:
        """Waits until ``operation`` was called that many times in all. Raises ``TimeoutError``."""
        with self._called:
            if not self._called.wait_for(lambda: self.calls[operation] >= calls, timeout):
                raise TimeoutError(f"{operation} was called {self.calls[operation]} times in {timeout} s, not {calls}")

    def _order(self, operation: str, error: Exception, times: int | None) -> None:
        if operation not in self.operations():
            raise ValueError(f"{type(self).__name__} has no operation {operation}")
        with self._lock:
            self._faults.setdefault(operation, []).append(_Fault(error, times))

    def _action_prefix(self) -> str:
        return type(self).__name__.removeprefix("Fake").lower()

    # Answering

    def operations(self) -> Mapping[str, Operation]:
        """What this service can do: operation name → what carries it out under the service's lock."""
        raise NotImplementedError

    def answer(self, target: str, body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body for one request; ``target`` is its header ``X-Amz-Target``.

        Raises ``Disconnect`` when the connection is to be cut instead.
        """
        try:
            operation = target.removeprefix(self.target + ".")
            self._announce(operation)
            request = msgspec.json.decode(body or b"{}", type=dict[str, Any])
            with self._lock:
                result = self.operations()[operation](request)
            status, reply = 200, result if isinstance(result, bytes) else msgspec.json.encode(result)
        except msgspec.DecodeError as error:
            status, reply = 400, _json_error(ServiceError("SerializationException", str(error)))
        except ServiceError as error:
            status, reply = error.status, _json_error(error)
        except Disconnect:
            raise
        except Exception:
            log.exception("%s failed to answer", type(self).__name__)
            status, reply = 500, _json_error(ServiceError("InternalFailure", "", 500))
        return status, "application/x-amz-json-1.1", reply

    def _announce(self, operation: str) -> None:
        """Counts the call, then carries out what was ordered for it."""
        if operation not in self.operations():
            known = ", ".join(sorted(self.operations()))
            raise ServiceError("UnknownOperationException", f"{operation} is not one of {known}")
        with self._called:
            self.calls[operation] += 1
            self._called.notify_all()
            gate, latency = self._paused.get(operation), self._latency.get(operation, 0.0)
            fault = self._next_fault(operation)
        if gate is not None:
            gate.wait(PATIENCE)
        if latency:
            threading.Event().wait(latency)
        if fault is not None:
            raise fault

    def _next_fault(self, operation: str) -> Exception | None:
        ordered = self._faults.get(operation, [])
        while ordered:
            fault = ordered[0]
            if fault.left is None:
                return fault.error
            if fault.left > 0:
                fault.left -= 1
                return fault.error
            ordered.pop(0)
        return None


def required(request: Mapping[str, Any], key: str, kind: type[Any] = str) -> Any:
    """A parameter that must be there and of that type. Raises ``ServiceError``."""
    value = request.get(key)
    if not isinstance(value, kind):
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value at '{key[:1].lower()}{key[1:]}' failed to satisfy constraint: "
            "Member must not be null",
        )
    return value


def _json_error(error: ServiceError) -> bytes:
    return msgspec.json.encode({"__type": error.code, "message": error.message})


class _Server(HTTPServer):
    """A thread per connection, and all of them gone after ``stop``: nothing leaks into the next test."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, service: FakeService) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        self._acceptor: threading.Thread | None = None

    def start(self, name: str) -> None:
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.05,), name=name, daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        if self._acceptor is not None:
            self._acceptor.join(PATIENCE)
        with self._guard:
            connections = dict(self._connections)
            for connection in connections:
                # Wakes the thread that waits for the next request; the client may have closed it before.
                _shut(connection)
        for thread in connections.values():
            thread.join(PATIENCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="fake AWS connection", daemon=True
        )
        with self._guard:
            self._connections[request] = thread
        thread.start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client went away, or ``stop`` cut the connection
        except Exception:
            log.exception("a connection ended in an error")
        finally:
            with self._guard:
                self._connections.pop(request, None)
                self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 256 * 1024

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_REQUEST_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        try:
            status, content_type, reply = self.server.service.answer(self.headers.get("X-Amz-Target", ""), body)
        except Disconnect:
            self.close_connection = True
            return
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nx-amzn-RequestId: {uuid4()}\r\n"
            f"Date: {self.date_time_string()}\r\nContent-Type: {content_type}\r\nContent-Length: {len(reply)}\r\n\r\n"
        ).encode()
        if len(reply) <= self.rbufsize:
            self.wfile.write(head + reply)
        else:
            self.wfile.write(head)
            self.wfile.write(reply)

    def log_message(self, *arguments: object) -> None:
        """Requests are counted, not printed."""


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
