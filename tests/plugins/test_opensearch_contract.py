"""The OpenSearch output passes the contract, against a real server: in an index, a data stream, indices by template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from servers.opensearch import Api, Server
from shipper.output import Outcome
from shipper.testing import OutputContract
from shipper_opensearch import OpenSearchOutput
from shipper_opensearch.settings import OpenSearchSettings
from support.http_front import Answer, Front, Request

pytestmark = pytest.mark.xdist_group("opensearch")

PASSWORD = "correct-horse-4711"

#: What a server says of an item that it does not store.
ERRORS = {
    Outcome.THROTTLED: (429, "rejected_execution_exception", "rejected execution"),
    Outcome.UNKNOWN: (500, "translog_exception", "no space left on device"),
    Outcome.TOO_LARGE: (413, "too_large", "too large"),
    Outcome.REJECTED: (400, "mapper_parsing_exception", "failed to parse"),
    Outcome.HELD: (403, "security_exception", "no permissions for [indices:data/write/index]"),
}
#: What it says to a whole request.
STATUS = {Outcome.THROTTLED: 429, Outcome.TOO_LARGE: 413, Outcome.HELD: 403}


class Place:
    """An empty server with a front before it."""

    def __init__(self, server: Server) -> None:
        self.api = Api(server.url)
        self.api.clean()
        self.front = Front(server.url)

    def refuse(self, outcome: Outcome, event: bytes | None) -> None:
        def spoil(request: Request, forward: Any) -> Answer:
            if outcome is Outcome.UNKNOWN and event is None:
                forward(request)
                return Answer(0)  # it was stored, and nobody says so
            if outcome in STATUS and event is None:
                cause = {"type": ERRORS[outcome][1], "reason": ERRORS[outcome][2]}
                return Answer(STATUS[outcome], msgspec.json.encode({"error": cause}))
            return _without(request, forward, outcome, event)

        self.front.spoil = spoil


def _without(request: Request, forward: Any, outcome: Outcome, event: bytes | None) -> Answer:
    """Has the server take all but one event (or none), and puts what it would say of that into its answer."""
    lines = request.body.split(b"\n")[:-1]
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    mark = msgspec.json.decode(event)["id"].encode() if event is not None else b""
    guilty = [number for number, (_, source) in enumerate(pairs) if mark in source]
    kept = [pair for number, pair in enumerate(pairs) if number not in guilty]
    items: list[Any] = []
    if kept:
        body = b"".join(line + b"\n" for pair in kept for line in pair)
        items = msgspec.json.decode(forward(request._replace(body=body)).body)["items"]
    status, kind, reason = ERRORS[outcome]
    for number in guilty:
        items.insert(number, {"create": {"status": status, "error": {"type": kind, "reason": reason}}})
    return Answer(200, msgspec.json.encode({"errors": True, "items": items}))


class TestIndex(OutputContract):
    secrets: ClassVar[Sequence[str]] = (PASSWORD,)
    settings: ClassVar[Mapping[str, Any]] = {"index": "audit"}
    unsupported: ClassVar[Mapping[str, str]] = {
        Outcome.NOT_TRIED: "what reaches a server was tried; a connection that fails is tested as an outage",
    }

    @pytest.fixture
    def destination(self, opensearch_server: Server) -> Iterator[Place]:
        place = Place(opensearch_server)
        yield place
        place.front.stop()

    def output(self, destination: Place) -> OpenSearchOutput:
        auth = {"user": "shipper", "password": PASSWORD}
        given = {"type": "opensearch", "hosts": destination.front.url, "auth": auth, "concurrency": 4, **self.settings}
        return OpenSearchOutput("search", OpenSearchSettings.model_validate(given))

    def received(self, destination: Place) -> list[Mapping[str, Any]]:
        found = [document["_source"] for document in destination.api.documents("audit*")]
        for source in found:
            assert source.pop("@timestamp") == source["time"]
        return found

    def refuse_next(self, destination: Place, outcome: Outcome, event: bytes | None) -> None:
        destination.refuse(outcome, event)

    def go_away(self, destination: Place) -> None:
        destination.front.stop()

    def come_back(self, destination: Place) -> None:
        destination.front.start()


class TestDataStream(TestIndex):
    settings: ClassVar[Mapping[str, Any]] = {"data_stream": "audit-events"}


class TestIndicesByTemplate(TestIndex):
    settings: ClassVar[Mapping[str, Any]] = {
        "index": "audit-{category}-{time:%Y.%m}",
        "routing": "{user}",
        "compression": "none",
    }
