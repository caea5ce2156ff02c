"""What holds for every test: no credentials and no settings of this machine, and no network but loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from servers.opensearch import Server as OpenSearchServer
from servers.opensearch import opensearch
from support.requirements import require as _require
from support.requirements import required

#: boto3 must find these and nothing else: neither a developer's profile nor a machine's role.
_AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported, and for the processes that tests start."""
    for name in list(os.environ):
        if name.startswith("AWS_") and name != "AWS_CA_BUNDLE":
            del os.environ[name]
    os.environ.update(_AWS)
    for name in ("SHIPPER_CONFIG", "SHIPPER_LISTEN"):
        os.environ.pop(name, None)
    # The reaper of testcontainers is one more image to pull; our containers end with their tests.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


#: How the contract of outputs says that a destination cannot do, on any machine, what a test needs.
_NOT_SUPPORTED = "not supported by this destination: "


@pytest.fixture
def require() -> Callable[[str, bool, str], None]:
    """``require(name, available, reason)``: skips, or fails where SHIPPER_TEST_REQUIRE says so."""
    return _require


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """A test that reaches for another machine fails instead: it would fail anyway where there is no network."""

    def guarded(real: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                raise ConnectionRefusedError(f"tests may not leave this machine: {address!r}")
            return real(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        yield


@pytest.fixture(scope="session")
def opensearch_server() -> Iterator[OpenSearchServer]:
    """One for all tests that stand in the xdist group ``opensearch``: one worker runs them, so each may kill it, and
    finds on it what the one before it left."""
    with opensearch() as server:
        yield server


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is required, a skip is a failure, also one that did not ask ``require``."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if required("all") and reporter is not None:
        skipped = [report for report in reporter.stats.get("skipped", ()) if _NOT_SUPPORTED not in str(report.longrepr)]
        if skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
