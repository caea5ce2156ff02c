"""The requests to HEC: which URL, which token, which channel; and waiting until an indexer has acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from shipper.clock import Clock
from shipper.connections import Answer, Connections, compress, header_value
from shipper.errors import Held
from shipper.output import Batch, Check, DeliveryError, NotTried, Rejected, TooLarge, Unknown
from shipper_splunk_hec.answers import Taken, check_health, check_token, is_acknowledged, judge
from shipper_splunk_hec.envelope import Envelopes, lines, query
from shipper_splunk_hec.nodes import Node, Nodes, Sender
from shipper_splunk_hec.settings import SplunkHecSettings

EVENT, RAW, ACK, HEALTH = (f"/services/collector/{name}" for name in ("event", "raw", "ack", "health"))

#: What a new token may mend.
_TOKEN_REASONS = ("access_denied", "credentials")
_JSON = {"Content-Type": "application/json"}
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_GZIP = {"Content-Encoding": "gzip"}

#: What a load balancer says that leads nowhere.
_AWAY = (502, 503, 504)
#: Shorter tokens are none, and stand in other words (characters).
_SECRET = 8

T = TypeVar("T")


class Client:
    """What is open between ``connect`` and ``close``. Raises ``Held`` where a file or a secret cannot be read."""

    def __init__(self, name: str, settings: SplunkHecSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._closing = threading.Event()
        self._envelopes = Envelopes(settings)
        self._senders = threading.local()
        #: Whether the token is known to make Splunk acknowledge.
        self._acknowledges = False
        keep = settings.concurrency
        self._nodes = Nodes(name, [Node(url, Connections(settings, url, keep)) for url in settings.url], clock, _probe)

    def close(self) -> None:
        """Ends waiting for acknowledgements, too."""
        self._closing.set()
        self._nodes.close()

    def deliver(self, batch: Batch, indices: Sequence[int]) -> Taken:
        """Sends these events in one request. Raises like ``judge``."""
        sender = self._sender()
        if self._settings.ack is not None and not self._acknowledges:
            # Before anything is sent: a token that does not acknowledge would have it stored and never say so.
            self._first_that_takes(lambda node: is_acknowledged(self._ask_acks(node, sender, 0), 0), sender)
            self._acknowledges = True
        events, values = batch.events, batch.values
        if len(indices) < len(batch):
            events, values = [events[index] for index in indices], [values[index] for index in indices]
        if self._settings.endpoint == "event":
            path, headers, body = EVENT, _JSON, self._envelopes.body(events, values)
        else:
            path, headers, body = f"{RAW}?{query(values[0])}", _TEXT, lines(events)
        size = len(body)
        if self._settings.compression == "gzip":
            headers, body = headers | _GZIP, compress(body)

        def post(node: Node) -> Taken:
            return judge(self._ask(node, sender, path, headers, body), len(indices), size)

        return self._first_that_takes(post, sender)

    def wait_until_indexed(self, taken: Taken) -> None:
        """Returns when the indexer has acknowledged what it took from this thread just now; at once without ``ack``.

        Raises ``Unknown`` where it does not say so in time: it may have forgotten in a restart, or its word may have
        been lost on the way, for it says it once.
        """
        ack, sender = self._settings.ack, self._sender()
        if ack is None:
            return
        if taken.ack_id is None or sender.node is None:
            self._acknowledges = False
            raise Unknown("taken, but not to be acknowledged: the token's indexer acknowledgement is off", reason="ack")
        deadline = self._clock.monotonic() + ack.timeout
        trouble = ""
        while not self._clock.wait(self._closing, ack.interval):
            try:
                if is_acknowledged(self._ask_acks(sender.node, sender, taken.ack_id), taken.ack_id):
                    return
                trouble = ""
            except (Held, DeliveryError) as error:
                trouble = f" ({error})"
            if self._clock.monotonic() >= deadline:
                raise Unknown(f"{sender.node.place} did not acknowledge within ack.timeout{trouble}", reason="ack")
        raise Unknown("the output was closed before the acknowledgement came", reason="ack")

    def check(self) -> Iterator[Check]:
        """Asks every URL how it is and what it thinks of the token; no event is written."""
        sender = Sender()
        for node in self._nodes:
            yield self._check(node, sender)

    def _check(self, node: Node, sender: Sender) -> Check:
        try:
            health = check_health(_health(node))
            check_token(self._ask(node, sender, EVENT, _JSON, b""))
            if self._settings.ack is not None:
                is_acknowledged(self._ask_acks(node, sender, 0), 0)
        except Held as held:
            return Check(node.place, ok=False, detail=held.detail, mend=held.mend)
        except DeliveryError as error:
            return Check(node.place, ok=False, detail=str(error), mend="see to the network between, or to splunkd.log")
        return Check(node.place, ok=True, detail=f"{health}; the token is accepted")

    # -- one request -------------------------------------------------------------------------------------------------

    def _first_that_takes(self, request: Callable[[Node], T], sender: Sender) -> T:
        """The first URL that takes it; once more where a token that is read from somewhere has become another."""
        used = self._settings.token.reveal()
        try:
            return self._nodes.first_that_takes(request, sender.node)
        except Held as held:
            if held.reason not in _TOKEN_REASONS or self._settings.token.kind == "text":
                raise
            self._settings.token.refresh()
            if self._settings.token.reveal() == used:
                raise
        return self._nodes.first_that_takes(request, sender.node)

    def _ask_acks(self, node: Node, sender: Sender, ack_id: int) -> Answer:
        return self._ask(node, sender, ACK, _JSON, msgspec.json.encode({"acks": [ack_id]}))

    def _ask(self, node: Node, sender: Sender, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        token = header_value(self._settings.token)
        own = {"Authorization": f"Splunk {token}", "X-Splunk-Request-Channel": sender.channel}
        answer = node.connections.request("POST", node.url + path, {**headers, **own, **sender.cookie(node)}, body)
        if self._settings.ack is not None:
            sender.remember(node, answer)
        if len(token) < _SECRET:
            return answer
        # What an answer says is logged: whoever sends the request back in it must not have the token shown.
        return answer._replace(body=answer.body.replace(token.encode(), b"(token)"))

    def _sender(self) -> Sender:
        sender: Sender | None = getattr(self._senders, "sender", None)
        if sender is None:
            sender = self._senders.sender = Sender()
        return sender


def _health(node: Node) -> Answer:
    return node.connections.request("GET", node.url + HEALTH, {})


def _probe(node: Node) -> None:
    """Raises ``NotTried`` or ``Throttled`` where HEC is away or says that it is not well: what is sent to a Splunk on
    its way up or down may be stored without an answer. Of anything else the events' own request will tell."""
    answer = None
    try:
        answer = _health(node)
        check_health(answer)
    except Unknown as error:
        if answer is None or answer.status in _AWAY:
            raise NotTried(f"health: {error}") from None
    except (Held, Rejected, TooLarge):
        return
