"""What some fault tests ship to as well: a real OpenSearch, and a Splunk that acknowledges what it has indexed."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from faults.schedule import Fault
from servers.opensearch import Api
from shipper.testing.splunk_hec import FakeSplunkHec
from support.fault_proxy import FaultProxy

#: Seconds from a request's answer until its events are indexed, and gone no more when Splunk is killed.
INDEXING = 0.1
_TOKEN = "5f0c1b7e-fa17-4f1e-8d5e-2b9f63a4c1d2"
_BLOCKS = {"blocked": "index.blocks.write", "full": "index.blocks.read_only_allow_delete"}


class Siem(Protocol):
    """One of them, with a way to it that can be spoiled."""

    way: FaultProxy
    #: How many events were gone with a kill, and had to be sent again.
    lost: int

    def __enter__(self) -> Siem: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def settings(self) -> str:
        """The lines of its table in the configuration, but for those that change."""

    def begin(self, fault: Fault) -> None: ...

    def mend(self, fault: Fault) -> None: ...

    def stored(self) -> Counter[str]:
        """How often each event is there, by its id."""


class Search:
    """An index of its own in a real OpenSearch that others use too."""

    def __init__(self, url: str, seed: int) -> None:
        self._api = Api(url)
        self._index = f"faults-{seed}"
        self.lost = 0
        port = urlsplit(url).port
        assert port is not None
        self.way = FaultProxy(port, seed=seed)

    def __enter__(self) -> Search:
        self._api.clean()
        self.way.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.way.__exit__(kind, error, trace)
        self._forget()

    def settings(self) -> str:
        return f"""\
type = "opensearch"
hosts = "{self.way.url}"
index = "{self._index}"
timeout = {{ connect = "2s", request = "5s" }}
concurrency = 2"""

    def begin(self, fault: Fault) -> None:
        """Nothing where the index is not there yet."""
        self._block(fault, on=True)

    def mend(self, fault: Fault) -> None:
        self._block(fault, on=None)

    def stored(self) -> Counter[str]:
        found = self._api.documents(self._index)
        assert all(document["_id"] == document["_source"]["id"] for document in found)
        return Counter(document["_source"]["id"] for document in found)

    def _block(self, fault: Fault, on: bool | None) -> None:
        status, answer = self._api.try_("PUT", f"/{self._index}/_settings", {_BLOCKS[fault.kind]: on})
        assert status in (200, 404), answer

    def _forget(self) -> None:
        for place in (f"/{self._index}", f"/_index_template/shipper-{self._index}"):
            status, answer = self._api.try_("DELETE", place)
            assert status in (200, 404), answer


class Splunk:
    """One whose token asks for acknowledgements: what is not indexed when it is killed is gone."""

    def __init__(self, seed: int) -> None:
        self._splunk = FakeSplunkHec(_TOKEN, ack=True, index_delay=INDEXING)
        self.way = FaultProxy(self._splunk.port, seed=seed)
        self.lost = 0
        self._open = ExitStack()

    def __enter__(self) -> Splunk:
        self._open.enter_context(self._splunk)
        self._open.enter_context(self.way)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def settings(self) -> str:
        return f"""\
type = "splunk_hec"
url = "{self.way.url}"
token = "{_TOKEN}"
ack = {{ interval = "50ms", timeout = "1s" }}
timeout = {{ connect = "2s", request = "5s" }}
concurrency = 4"""

    def begin(self, fault: Fault) -> None:
        match fault.kind:
            case "killed":
                self.lost += self._splunk.kill()
            case "busy":
                self._splunk.answer(9, times=5)
            case "partly":
                self._splunk.answer(8, stored=True, times=3)
            case "unheard":
                self._splunk.hang_up(stored=True, times=3)
            case "unacknowledged":
                self._splunk.lose_acknowledgements = 3

    def mend(self, fault: Fault) -> None:
        if fault.kind == "killed":
            self._splunk.start()

    def stored(self) -> Counter[str]:
        ids: Counter[str] = Counter()
        for taken in self._splunk.events:
            ids[str(msgspec.convert(taken.event, dict[str, object])["id"])] += 1
        return ids
