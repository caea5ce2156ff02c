"""The Splunk HEC output passes the contract: event and raw endpoint, with acknowledgement, over TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from shipper.output import Outcome
from shipper.testing import OutputContract
from shipper.testing.contract.ground import Make
from shipper.testing.splunk_hec import FakeSplunkHec
from shipper_splunk_hec import SplunkHecOutput
from shipper_splunk_hec.settings import SplunkHecSettings
from support.certificates import Certificates

TOKEN = "8d2a9c1e-55aa-4c1f-9d5e-7b1d2f3a4c5d"


class TestEventEndpoint(OutputContract):
    secrets = (TOKEN,)
    unsupported: ClassVar[Mapping[str, str]] = {Outcome.NOT_TRIED: "whatever is posted was tried"}
    settings: ClassVar[Mapping[str, Any]] = {"index": "main", "host": "{cluster:-unknown}", "source": "{user}"}
    splunk: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def destination(self) -> Iterator[FakeSplunkHec]:
        with FakeSplunkHec(TOKEN, **self.splunk) as splunk:
            yield splunk

    def output(self, destination: FakeSplunkHec) -> SplunkHecOutput:
        given = {"type": "splunk_hec", "url": destination.url, "token": TOKEN, **self.settings}
        return SplunkHecOutput("siem", SplunkHecSettings.model_validate(given))

    def received(self, destination: FakeSplunkHec) -> list[Any]:
        return [event.event for event in destination.events]

    def refuse_next(self, destination: FakeSplunkHec, outcome: Outcome, event: bytes | None) -> None:
        if event is not None:
            code = {Outcome.REJECTED: 12, Outcome.HELD: 7}[outcome]
            destination.refuse(str(msgspec.json.decode(event)["id"]), code)
        elif outcome is Outcome.REJECTED:
            destination.answer(12, number=0)
        elif outcome is Outcome.TOO_LARGE:
            destination.answer(status=413)
        elif outcome is Outcome.UNKNOWN:
            destination.answer(8, stored=True)
        else:
            destination.answer({Outcome.THROTTLED: 9, Outcome.HELD: 4}[outcome])

    # HEC refuses an event and takes what stands before it, or it refuses a request: two tests have fewer cases.

    @pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.UNKNOWN, Outcome.TOO_LARGE, Outcome.HELD])
    def test_a_refused_batch_is_reported_so_and_is_taken_afterwards(
        self, destination: Any, make: Make, outcome: Outcome
    ) -> None:
        super().test_a_refused_batch_is_reported_so_and_is_taken_afterwards(destination, make, outcome)

    @pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.HELD])
    def test_one_refused_event_of_a_batch_is_reported_alone(
        self, destination: Any, make: Make, outcome: Outcome
    ) -> None:
        super().test_one_refused_event_of_a_batch_is_reported_alone(destination, make, outcome)

    def go_away(self, destination: FakeSplunkHec) -> None:
        destination.stop()

    def come_back(self, destination: FakeSplunkHec) -> None:
        destination.start()


class TestRawEndpoint(TestEventEndpoint):
    """Lines: Splunk refuses none of them, and the index of a request only as a whole."""

    unsupported: ClassVar[Mapping[str, str]] = {
        **TestEventEndpoint.unsupported,
        Outcome.REJECTED: "whatever is a line is taken",
        "partial": "a request is taken wholly or not at all",
    }
    settings: ClassVar[Mapping[str, Any]] = {"endpoint": "raw", "source": "das"}

    def received(self, destination: FakeSplunkHec) -> list[Any]:
        return [event.event for event in destination.events]


class TestRawEndpointWithMetadataOfEachEvent(TestRawEndpoint):
    settings: ClassVar[Mapping[str, Any]] = {"endpoint": "raw", "source": "{user}", "host": "{client_ip}"}


class TestAcknowledged(TestEventEndpoint):
    settings: ClassVar[Mapping[str, Any]] = {"ack": {"interval": "10ms", "timeout": "10s"}}
    splunk: ClassVar[Mapping[str, Any]] = {"ack": True, "index_delay": 0.02}


class TestUncompressedIndexedFields(TestEventEndpoint):
    settings: ClassVar[Mapping[str, Any]] = {
        "compression": "none",
        "indexed_fields": ["user", "client_ip", "native.x", "objects"],
        "sourcetype": "db:{user}",
        "format": {"type": "native"},
    }


class TestOverTls(TestEventEndpoint):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Iterator[FakeSplunkHec]:
        self.certificates = Certificates(tmp_path / "tls")
        with FakeSplunkHec(TOKEN, tls=self.certificates.server_context()) as splunk:
            yield splunk

    def output(self, destination: FakeSplunkHec) -> SplunkHecOutput:
        tls = {"ca_file": str(self.certificates.ca)}
        given = {"type": "splunk_hec", "url": destination.url, "token": TOKEN, "tls": tls}
        return SplunkHecOutput("siem", SplunkHecSettings.model_validate(given))
