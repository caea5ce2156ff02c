"""What the HTTP server answers, and what it refuses."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from shipper.errors import ConfigurationError
from shipper.observe import server as server_module
from shipper.observe.server import MAX_CONNECTIONS, HttpServer, ListenError, parse_listen


@dataclass
class Hold:
    component: str
    reason: str
    detail: str = "the destination's own words"


@dataclass
class Engine:
    """A stand-in for the engine whose state a test sets."""

    alive: bool = True
    phase: str = "running"
    holds: list[Hold] = field(default_factory=list)

    def healthy(self) -> tuple[bool, Mapping[str, Any]]:
        return self.alive, {"stalled": [] if self.alive else ["sender siem 0"]}

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self.phase == "running", {"phase": self.phase}

    def held(self) -> list[Hold]:
        return self.holds

    def status(self) -> Mapping[str, Any]:
        return {"phase": self.phase}


class Text:
    def __init__(self) -> None:
        self.render: Callable[[], bytes] = lambda: b"shipper_build_info 1\n"


@dataclass
class Running:
    server: HttpServer
    engine: Engine
    metrics: Text

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        host, port = self.server.address
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(self.server.address, timeout=10) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def running() -> Iterator[Running]:
    engine, metrics = Engine(), Text()
    server = HttpServer("127.0.0.1:0", metrics, engine)
    yield Running(server, engine, metrics)
    server.close()


def test_health_is_200_while_threads_make_progress_also_when_held_or_draining(running: Running) -> None:
    running.engine.holds = [Hold("output siem", "credentials")]
    running.engine.phase = "draining"
    status, headers, body = running.ask("/health")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"healthy": True, "stalled": []}


def test_health_is_503_when_a_thread_stands_still(running: Running) -> None:
    running.engine.alive = False
    status, _, body = running.ask("/health")
    assert status == 503
    assert json.loads(body) == {"healthy": False, "stalled": ["sender siem 0"]}


@pytest.mark.parametrize("phase", ["starting", "draining"])
def test_ready_is_503_while_starting_or_draining(running: Running, phase: str) -> None:
    running.engine.phase = phase
    status, _, body = running.ask("/ready")
    assert status == 503
    assert json.loads(body) == {"ready": False, "phase": phase, "held": []}


def test_ready_stays_200_when_something_is_held_and_says_what(running: Running) -> None:
    running.engine.holds = [Hold("output siem", "credentials")]
    status, _, body = running.ask("/ready")
    assert status == 200
    assert json.loads(body)["held"] == [{"component": "output siem", "reason": "credentials"}]


def test_ready_does_not_quote_destinations(running: Running) -> None:
    running.engine.holds = [Hold("output siem", "credentials", detail="token hunter2 is wrong")]
    assert b"hunter2" not in running.ask("/ready")[2]


def test_strict_ready_is_503_when_something_is_held(running: Running) -> None:
    assert running.ask("/ready?strict=1")[0] == 200
    running.engine.holds = [Hold("output siem", "credentials")]
    assert running.ask("/ready?strict=1")[0] == 503
    assert running.ask("/ready?strict=0")[0] == 200


def test_metrics_in_prometheus_text(running: Running) -> None:
    status, headers, body = running.ask("/metrics")
    assert (status, body) == (200, b"shipper_build_info 1\n")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_head_answers_without_a_body(running: Running) -> None:
    for path in ("/health", "/ready", "/metrics"):
        status, headers, body = running.ask(path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/status/", "/metrics/", "/../etc/passwd", "/health%00"])
def test_other_paths_are_not_found(running: Running, path: str) -> None:
    assert running.ask(path)[0] == 404


def test_status_is_told_on_loopback(running: Running) -> None:
    status, headers, body = running.ask("/status")
    assert (status, json.loads(body)) == (200, {"phase": "running"})
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (b"localhost:1", b" 200 "),
        (b"127.0.0.2", b" 200 "),
        (b"[::1]:9686", b" 200 "),
        (b"rebound.example.com", b" 403 "),
        (b"localhost.example.com", b" 403 "),
        (b"203.0.113.7:9686", b" 403 "),
        (b"[", b" 403 "),
        (b"", b" 403 "),
    ],
)
def test_status_is_told_under_a_name_of_loopback_only(running: Running, name: bytes, status: bytes) -> None:
    answer = running.raw(b"GET /status HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
    assert status in answer[:40]
    assert (b"phase" in answer) == (status == b" 200 ")


def test_status_is_told_to_nobody_who_does_not_say_whom_he_asks(running: Running) -> None:
    assert b" 403 " in running.raw(b"GET /status HTTP/1.0\r\n\r\n")[:40]


def test_beyond_loopback_status_is_refused_and_the_rest_answers() -> None:
    server = HttpServer("0.0.0.0:0", Text(), Engine())
    try:
        open_ = Running(server, Engine(), Text())
        assert b" 403 " in open_.raw(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")[:40]
        assert [open_.ask(path)[0] for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
    finally:
        server.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "__init__"])
def test_nothing_can_be_changed(running: Running, method: str) -> None:
    status, headers, _ = running.ask("/health", method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_answers_tell_nothing_about_the_machine_or_the_request(running: Running) -> None:
    for path in ("/health", "/<script>alert(1)</script>"):
        _, headers, body = running.ask(path)
        assert headers["Server"] == "shipper"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert b"script" not in body
        assert b"Python" not in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET\r\n\r\n", b"400 "),
        (b"GET /health HTTP/9.9\r\n\r\n", b"505 "),
        (b"GET http://[x HTTP/1.1\r\n\r\n", b" 400 "),
        (b"GET /ready?" + b"a=1&" * 50 + b" HTTP/1.1\r\n\r\n", b" 400 "),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400 "),
        (b"GET /health HTTP/1.0\n\n", b" 200 "),
    ],
)
def test_odd_requests(running: Running, request_: bytes, status: bytes) -> None:
    assert status in running.raw(request_)[:60]
    assert running.ask("/health")[0] == 200


def test_a_request_without_an_end_is_cut_at_its_size(running: Running) -> None:
    try:
        answer = running.raw(b"GET /health HTTP/1.1\r\nX: " + b"x" * 100_000)
    except ConnectionError:
        answer = b""
    assert answer == b""
    assert running.ask("/health")[0] == 200


def test_a_request_that_trickles_is_cut_at_its_time(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.1)
    assert running.raw(b"GET /health HT") == b""


def test_connections_beyond_the_bound_are_closed_at_once(running: Running) -> None:
    idle = [socket.create_connection(running.server.address, timeout=10) for _ in range(MAX_CONNECTIONS)]
    try:
        with socket.create_connection(running.server.address, timeout=10) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for connection in idle:
            connection.close()


def test_a_client_that_goes_away_harms_nobody(running: Running) -> None:
    running.metrics.render = lambda: b"x" * 10_000_000
    with socket.create_connection(running.server.address, timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert running.ask("/health")[0] == 200


def test_a_failing_answer_is_500_and_in_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise ValueError("hunter2")

    running.metrics.render = fail
    status, _, body = running.ask("/metrics")
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert "/metrics failed" in caplog.text


def test_a_taken_port_is_explained(running: Running) -> None:
    host, port = running.server.address
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:{port}: .*in use.*server\.listen"):
        HttpServer(f"{host}:{port}", Text(), Engine())


def test_an_unknown_host_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ListenError, match="Name or service not known"):
        HttpServer("nowhere.invalid:0", Text(), Engine())


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_ipv6(require: Callable[[str, bool, str], None]) -> None:
    require("ipv6", _has_ipv6(), "this machine has no IPv6 loopback")
    server = HttpServer("[::1]:0", Text(), Engine())
    try:
        assert server.url.startswith("http://[::1]:")
        assert Running(server, Engine(), Text()).ask("/health")[0] == 200
    finally:
        server.close()


def test_a_closed_server_frees_its_port() -> None:
    first = HttpServer("127.0.0.1:0", Text(), Engine())
    host, port = first.address
    first.close()
    second = HttpServer(f"{host}:{port}", Text(), Engine())
    second.close()
    assert second.address == (host, port)


@pytest.mark.parametrize(
    ("listen", "parsed"),
    [
        ("127.0.0.1:9686", ("127.0.0.1", 9686)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses(listen: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(listen) == parsed


@pytest.mark.parametrize(
    "listen", ["9686", ":9686", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "h:65536", "::1:9686", "[]:1", "h:-1", "h:٣"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"server\.listen: .* is not an address to listen on"):
        parse_listen(listen)
