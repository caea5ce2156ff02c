"""Connections of HTTP outputs: TLS and whom it trusts, proxies, timeouts, and what a failure means."""

from __future__ import annotations

import base64
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from isal import igzip

from shipper.connections import Answer, Connections, compress, retry_after
from shipper.errors import Held
from shipper.http import HttpSettings
from shipper.output import NotTried, Unknown
from shipper.testing.splunk_hec import FakeSplunkHec
from support.certificates import KEY_PASSWORD, Certificates

HEALTH = "/services/collector/health"

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def ask() -> Iterator[Ask]:
    made: list[Connections] = []

    def _ask(url: str, **settings: Any) -> Answer:
        connections = Connections(HttpSettings.model_validate({"type": "http", **settings}), url, 1)
        made.append(connections)
        return connections.request("GET", url + HEALTH, {})

    yield _ask
    for connections in made:
        connections.close()


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(certificates: Certificates, ask: Ask) -> None:
    with FakeSplunkHec(tls=certificates.server_context()) as server:
        assert ask(server.url, tls={"ca_file": str(certificates.ca)}).status == 200


def test_a_certificate_that_nobody_vouches_for_holds(certificates: Certificates, ask: Ask) -> None:
    with FakeSplunkHec(tls=certificates.server_context()) as server, pytest.raises(Held) as raised:
        ask(server.url)
    assert raised.value.reason == "unreachable"
    assert "is not trusted" in raised.value.detail
    assert "tls.ca_file" in raised.value.mend


def test_a_certificate_for_another_host_holds_unless_the_settings_say_otherwise(tmp_path: Path, ask: Ask) -> None:
    certificates = Certificates(tmp_path, server_name="elsewhere.example")
    with FakeSplunkHec(tls=certificates.server_context()) as server:
        with pytest.raises(Held, match="not trusted"):
            ask(server.url, tls={"ca_file": str(certificates.ca)})
        assert ask(server.url, tls={"ca_file": str(certificates.ca), "verify_hostname": False}).status == 200


@pytest.mark.parametrize("form", [str, str.upper, lambda text: text.replace(":", "")])
def test_one_certificate_is_trusted_by_its_fingerprint(
    certificates: Certificates, ask: Ask, form: Callable[[str], str]
) -> None:
    with FakeSplunkHec(tls=certificates.server_context()) as server:
        assert ask(server.url, tls={"fingerprint": form(certificates.fingerprint)}).status == 200


def test_another_fingerprint_holds(certificates: Certificates, ask: Ask) -> None:
    with FakeSplunkHec(tls=certificates.server_context()) as server, pytest.raises(Held, match="another fingerprint"):
        ask(server.url, tls={"fingerprint": "00" * 32})


def test_a_fingerprint_that_is_none_holds(ask: Ask) -> None:
    with pytest.raises(Held, match="no SHA-256"):
        ask("https://127.0.0.1:1", tls={"fingerprint": "sha1"})


def test_nothing_is_verified_when_the_settings_say_so(certificates: Certificates, ask: Ask) -> None:
    with FakeSplunkHec(tls=certificates.server_context()) as server:
        assert ask(server.url, tls={"verify": False}).status == 200


def test_a_client_shows_its_certificate(certificates: Certificates, ask: Ask) -> None:
    client = {"cert_file": str(certificates.client), "key_file": str(certificates.client_key)}
    tls = {"ca_file": str(certificates.ca), **client, "key_password": KEY_PASSWORD}
    with FakeSplunkHec(tls=certificates.server_context(ask_client=True)) as server:
        assert ask(server.url, tls=tls).status == 200
        with pytest.raises((Held, Unknown)):
            ask(server.url, tls={"ca_file": str(certificates.ca)})


@pytest.mark.parametrize("password", [None, "a wrong one"])
def test_a_key_that_cannot_be_opened_holds_and_asks_nobody(
    certificates: Certificates, ask: Ask, password: str | None
) -> None:
    tls = {"cert_file": str(certificates.client), "key_file": str(certificates.client_key), "key_password": password}
    with pytest.raises(Held) as raised:
        ask("https://127.0.0.1:1", tls=tls)
    assert raised.value.reason == "credentials"
    assert "a wrong one" not in str(raised.value)


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_a_file_that_is_missing_holds_and_is_named_by_its_key(tmp_path: Path, ask: Ask, key: str) -> None:
    with pytest.raises(Held, match=f"tls.{key}.*No such file"):
        ask("https://127.0.0.1:1", tls={key: str(tmp_path / "missing.pem")})


def test_tls_to_a_port_without_it_holds(ask: Ask) -> None:
    with FakeSplunkHec() as server, pytest.raises(Held, match="does not speak TLS"):
        ask(server.url.replace("http:", "https:"))


# -- failures ----------------------------------------------------------------------------------------------------------


def test_where_nobody_listens_nothing_was_tried(ask: Ask) -> None:
    with FakeSplunkHec() as server:
        server.stop()
        with pytest.raises(NotTried, match="Connection refused"):
            ask(server.url)


def test_a_name_that_does_not_exist_was_not_tried(ask: Ask) -> None:
    with pytest.raises(NotTried, match="no connection to nowhere"):
        ask("http://nowhere.invalid:1", proxy=None)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
    ids=["cut short", "cut within a chunk", "not gzip", "not http", "nothing"],
)
def test_half_an_answer_is_unknown(ask: Ask, answer: bytes) -> None:
    with RawServer(answer) as url, pytest.raises(Unknown):
        ask(url)


def test_an_answer_without_end_is_unknown(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.connections.MAX_ANSWER", 10_000)
    body = igzip.compress(bytes(1_000_000))
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with RawServer(answer) as url, pytest.raises(Unknown, match="more than 10000 bytes"):
        ask(url)


def test_a_redirect_is_not_followed(ask: Ask) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with RawServer(answer) as url:
        assert ask(url).status == 302


# -- proxies and headers -----------------------------------------------------------------------------------------------


def test_a_proxy_is_asked_with_its_password(ask: Ask) -> None:
    with Proxy() as seen:
        answer = ask("http://splunk.example:8088", proxy=f"http://us%40er:pass@127.0.0.1:{seen.server_port}")
    assert answer.status == 200
    assert seen.paths == [f"http://splunk.example:8088{HEALTH}"]
    assert seen.authorizations == ["Basic " + base64.b64encode(b"us@er:pass").decode()]


def test_a_proxy_that_refuses_to_connect_was_not_tried(ask: Ask) -> None:
    with Proxy(502) as seen, pytest.raises(NotTried, match="the proxy does not lead to splunk"):
        ask("https://splunk.example:8088", proxy=f"http://127.0.0.1:{seen.server_port}")


def test_a_proxy_that_wants_a_password_holds(ask: Ask) -> None:
    with Proxy(407) as seen, pytest.raises(Held, match="the proxy asks for a user"):
        ask("https://splunk.example:8088", proxy=f"http://127.0.0.1:{seen.server_port}")


def test_a_proxy_that_is_away_was_not_tried(ask: Ask) -> None:
    with Proxy() as seen:
        port = seen.server_port
    with pytest.raises(NotTried, match="the proxy"):
        ask("http://splunk.example:8088", proxy=f"http://127.0.0.1:{port}")


def test_the_environment_names_a_proxy_and_who_is_reached_without(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as seen:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{seen.server_port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{seen.server_port}")
        assert ask("http://splunk.example:8088").status == 200
        assert len(seen.paths) == 1
        with FakeSplunkHec() as inside:  # NO_PROXY names loopback
            assert ask(inside.url).status == 200
        assert len(seen.paths) == 1


def test_a_proxy_that_is_no_url_holds_and_is_not_shown(ask: Ask) -> None:
    with pytest.raises(Held) as raised:
        ask("http://splunk.example", proxy="user:password@host")
    assert "password" not in str(raised.value)


def test_headers_of_the_settings_are_sent(ask: Ask) -> None:
    with Proxy() as seen:
        ask("http://x.example", proxy=f"http://127.0.0.1:{seen.server_port}", headers={"X-Team": "payments"})
    assert seen.teams == ["payments"]


def test_a_header_that_cannot_be_one_holds_and_is_not_shown(ask: Ask) -> None:
    with pytest.raises(Held) as raised:
        ask("http://127.0.0.1:1", headers={"X-Key": "secret\r\nX-Other: y"})
    assert "X-Other" not in str(raised.value)


# -- small things ------------------------------------------------------------------------------------------------------


def test_compressed_bytes_are_gzip() -> None:
    assert gzip.decompress(compress(b"events" * 1000)) == b"events" * 1000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("120", 120.0), ("999999999", 86_400.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)
def test_a_time_to_wait_is_read(text: str, seconds: float) -> None:
    assert retry_after(Answer(503, {"Retry-After": text}, b"")) == seconds


@pytest.mark.parametrize("text", ["", "-1", "soon", "1e3", "٣", "Thu, 99 Jan"])
def test_a_time_to_wait_that_is_none_is_ignored(text: str) -> None:
    assert retry_after(Answer(503, {"Retry-After": text}, b"")) is None


# -- servers -----------------------------------------------------------------------------------------------------------


class RawServer:
    """Answers one connection with these bytes, and hangs up."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> str:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *exception: object) -> None:
        self._thread.join(10)
        self._listening.close()

    def _run(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(self._answer)


class Proxy(ThreadingHTTPServer):
    """Answers in the place of whoever is asked for; a tunnel gets ``status``."""

    def __init__(self, status: int = 502) -> None:
        self.status = status
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.teams: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Proxy)

    def __enter__(self) -> Proxy:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Proxy(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.authorizations.append(self.headers["Proxy-Authorization"])
        self.server.teams.append(self.headers["X-Team"])
        self.send_response(200)
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output quiet."""
