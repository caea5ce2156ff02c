"""Who a request is sent to: several URLs in turn, past those that just failed; and what a sender keeps between two."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TypeVar
from uuid import uuid4

from shipper.clock import Clock
from shipper.connections import Answer, Connections, place_of
from shipper.errors import Held
from shipper.output import DeliveryError, NotTried, Throttled, Unknown

log = logging.getLogger("shipper.output.splunk_hec")

#: A URL that failed is asked last for this long (seconds).
REST = 10.0
#: Cookies of a load balancer that are kept, and the longest of them (characters).
_COOKIES = 16
_LONGEST = 4096

T = TypeVar("T")


class Node:
    """One URL and the connections to it."""

    def __init__(self, url: str, connections: Connections) -> None:
        self.url = url
        self.place = place_of(url)
        self.connections = connections
        self.rests_until = 0.0
        #: What was sent there last may have failed for the server's sake: its health is asked for before more is sent.
        self.doubtful = False


class Sender:
    """What one thread keeps between requests: its channel, and with acknowledgements the indexer that knows it."""

    def __init__(self) -> None:
        self.channel = str(uuid4())
        self.node: Node | None = None
        self.cookies: dict[str, str] = {}

    def remember(self, node: Node, answer: Answer) -> None:
        """Keeps to this node, and behind a load balancer to whom it leads: acknowledgements are each indexer's own."""
        if node is not self.node:
            self.node, self.cookies = node, {}
        # One header may hold several cookies, joined by ", ": dates have a comma of their own, names have none.
        for text in answer.headers.get("Set-Cookie", "").split(", "):
            try:
                found = SimpleCookie(text[:_LONGEST])
            except CookieError:
                continue
            for name, cookie in found.items():
                if name in self.cookies or len(self.cookies) < _COOKIES:
                    self.cookies[name] = cookie.coded_value

    def cookie(self, node: Node) -> dict[str, str]:
        """The header that leads back there; another node does not get it."""
        if node is not self.node or not self.cookies:
            return {}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}


class Nodes:
    """All URLs of an output. Any thread may use them."""

    def __init__(self, name: str, nodes: Sequence[Node], clock: Clock, probe: Callable[[Node], None]) -> None:
        """``probe`` raises what it raises for a node to which nothing should be sent now."""
        self._probe = probe
        self._name = name
        self._nodes = list(nodes)
        self._clock = clock
        self._turn = 0
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def first_that_takes(self, request: Callable[[Node], T], prefer: Node | None) -> T:
        """What ``request`` returns for the first node that it does not fail for as if nothing had been taken there.

        Raises what it raised where no node is left: rather what passes by itself than what a person must mend.
        """
        errors: list[Held | DeliveryError] = []
        for node in self._order(prefer):
            try:
                if node.doubtful:
                    self._probe(node)
                result = request(node)
            except (NotTried, Throttled, Held) as error:
                node.doubtful = not isinstance(error, Held)
                errors.append(error)
                self._rest(node, error)
            except Unknown:
                node.doubtful = True
                raise
            else:
                node.doubtful = False
                node.rests_until = 0.0
                return result
        raise next((error for error in errors if not isinstance(error, Held)), errors[0])

    def close(self) -> None:
        for node in self._nodes:
            node.connections.close()

    def _rest(self, node: Node, error: Held | DeliveryError) -> None:
        # The engine does not learn of it as long as another one takes the events.
        if len(self._nodes) > 1 and not node.rests_until:
            log.warning("output %s: %s is passed by while others take the events: %s", self._name, node.place, error)
        node.rests_until = self._clock.monotonic() + REST

    def _order(self, prefer: Node | None) -> list[Node]:
        if len(self._nodes) == 1:
            return self._nodes
        with self._lock:
            self._turn = (self._turn + 1) % len(self._nodes)
            turn = self._turn
        now = self._clock.monotonic()
        order = self._nodes[turn:] + self._nodes[:turn]
        return sorted(order, key=lambda node: (node.rests_until > now, node is not prefer))
