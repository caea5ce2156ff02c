"""A real OpenSearch that is empty, outputs for it, and what becomes of what they send."""

from __future__ import annotations

from typing import Any

import pytest

from servers.opensearch import Api, Server
from shipper.errors import Held
from shipper.event import Event
from shipper.output import Failure, Report
from shipper.testing.contract.events import MARK, batch_of, event
from shipper_opensearch import OpenSearchOutput
from shipper_opensearch.settings import OpenSearchSettings


class Search:
    """An empty server, and outputs for it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.api = Api(server.url)
        self.api.clean()
        self.made: list[OpenSearchOutput] = []

    def output(self, **settings: Any) -> OpenSearchOutput:
        given = {"type": "opensearch", "hosts": self.server.url, "template": "none", **settings}
        output = OpenSearchOutput("search", OpenSearchSettings.model_validate(given))
        self.made.append(output)
        output.connect(None)
        return output

    def close(self) -> None:
        """What is left on the server is for the next one to clear up."""
        for output in self.made:
            output.close()

    def ids(self, place: str) -> list[str]:
        return sorted(document["_id"] for document in self.api.documents(place))


def send(output: OpenSearchOutput, *events: Event) -> Report:
    return output.send(batch_of(output.values(), events))


def refused(report: Report) -> Failure:
    """The only failure of a report. Audit data is in none."""
    (failure,) = report.failed.values()
    assert MARK not in failure.detail
    return failure


def held(output: OpenSearchOutput, *events: Event) -> Held:
    with pytest.raises(Held) as caught:
        send(output, *(events or (event(1), event(2))))
    assert MARK not in str(caught.value)
    assert caught.value.mend
    return caught.value
