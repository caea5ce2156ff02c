"""What HEC's answers mean: every code of Splunk's "Troubleshoot HTTP Event Collector", and pages that are not HEC's.

The trap is partial acceptance. With codes 6, 12, 13 and 15 everything before ``invalid-event-number`` (from 0) has been
indexed and nothing from it on; with code 7 the number is the one after the refused event. To send the whole request
again would double what stands before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shipper.connections import Answer, retry_after
from shipper.errors import Held
from shipper.output import DeliveryError, Failure, Outcome, Throttled, TooLarge, Unknown

#: Splunk Cloud cuts larger requests off and says that event 0 is no valid JSON (bytes, before compression).
ALWAYS_TAKEN = 1_000_000

SUCCESS, NO_DATA, INVALID, WRONG_INDEX, HEALTHY, ACK_DISABLED = 0, 5, 6, 7, 17, 14
#: Taken, and the queues, or those of acknowledgements, are nearly full.
NEARLY_FULL = (24, 25)
#: The request ended at an event that is not as it should be.
ENDED_AT_EVENT = (INVALID, 12, 13, 15)
#: Nothing was taken: busy, unhealthy, shutting down, at capacity.
BUSY = (9, 18, 19, 20, 23, 26, 27)

_ENABLE = "enable the token in Splunk (Settings, Data inputs, HTTP Event Collector), or give another one"
_CHANNEL = "take out of the way what removes the header X-Splunk-Request-Channel, or keeps requests from one indexer"
#: Code → the reason that it is held for, and the mend.
HELD: dict[int, tuple[str, str]] = {
    1: ("access_denied", _ENABLE),
    2: ("credentials", "take out of the way what removes the header Authorization"),
    3: ("credentials", "check token: it is the token's value, without the word Splunk"),
    4: ("credentials", "check token: it is no token of this Splunk"),
    NO_DATA: ("refused", "take out of the way what empties requests between here and Splunk"),
    10: ("refused", _CHANNEL),
    11: ("refused", _CHANNEL),
    ACK_DISABLED: ("refused", "turn on indexer acknowledgement for this token in Splunk, or remove ack"),
    16: ("credentials", "take out of the way what removes the header Authorization"),
    21: ("credentials", "check token: it is no token of this Splunk"),
    22: ("access_denied", _ENABLE),
    28: ("refused", _CHANNEL),
}
_INDEX = "permit the index for this token in Splunk, create it, or correct index"
_NOT_HEC = "check url: something else than HEC answers there, a proxy or a load balancer perhaps"
_WORDS = 200


class _Reply(msgspec.Struct):
    code: int
    text: str = ""
    number: int | None = msgspec.field(default=None, name="invalid-event-number")
    ack_id: int | None = msgspec.field(default=None, name="ackId")


class _Acks(msgspec.Struct):
    acks: dict[str, bool]


_reply = msgspec.json.Decoder(_Reply).decode
_acks = msgspec.json.Decoder(_Acks).decode


@dataclass(frozen=True, slots=True)
class Taken:
    """``count`` events from the first on were taken; the one after them was refused, where there is a ``refusal``."""

    count: int
    refusal: Failure | None = None
    ack_id: int | None = None
    slow_down: bool = False


def judge(answer: Answer, events: int, size: int) -> Taken:
    """What became of a request of so many events and of ``size`` bytes before compression.

    Raises what ``Output.send`` raises for the whole request; but for ``Unknown`` that means that nothing was taken.
    """
    reply = _read(answer)
    if reply is None:
        raise _without_words(answer)
    said = _said(answer, reply)
    ack_id = reply.ack_id if reply.ack_id is not None and reply.ack_id >= 0 else None
    if answer.status == 200 and reply.code in (SUCCESS, *NEARLY_FULL):
        return Taken(events, ack_id=ack_id, slow_down=reply.code in NEARLY_FULL)
    if reply.code == INVALID and not reply.number and size > ALWAYS_TAKEN:
        raise TooLarge(f"{said}, of a request of {size} bytes")
    if reply.code in ENDED_AT_EVENT:
        number = reply.number if reply.number is not None else 0 if events == 1 else events
        if not 0 <= number < events:
            raise Unknown(f"{said}, and does not say of which event")
        return Taken(number, Failure(Outcome.REJECTED, f"code_{reply.code}", said), ack_id)
    if reply.code == WRONG_INDEX:
        number = min(max(0, (reply.number or 0) - 1), events - 1)
        return Taken(number, Failure(Outcome.HELD, "target_not_found", f"{said}; {_INDEX}"), ack_id)
    raise _refusal(answer, reply, said)


def is_acknowledged(answer: Answer, ack_id: int) -> bool:
    """Whether an indexer says that it has indexed what it gave this number. It says so once. Raises what ``judge``
    raises for an answer that says something else."""
    if answer.status == 200:
        try:
            return _acks(answer.body).acks.get(str(ack_id), False)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
    reply = _read(answer)
    raise _without_words(answer) if reply is None else _refusal(answer, reply, _said(answer, reply))


def check_health(answer: Answer) -> str:
    """What HEC says of itself. Raises like ``judge`` where it is not well."""
    reply = _read(answer)
    if reply is None:
        raise _without_words(answer)
    if answer.status == 200 and reply.code in (SUCCESS, HEALTHY, *NEARLY_FULL):
        return _said(answer, reply)
    raise _refusal(answer, reply, _said(answer, reply))


def check_token(answer: Answer) -> None:
    """Of an empty request: Splunk looks at the token first and then misses the events. Raises like ``judge``."""
    reply = _read(answer)
    if reply is None or reply.code != NO_DATA:
        judge(answer, 1, 0)


def _read(answer: Answer) -> _Reply | None:
    try:
        return _reply(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _said(answer: Answer, reply: _Reply) -> str:
    words = "".join(each for each in reply.text[:_WORDS] if each.isprintable())
    return f"HTTP {answer.status}, code {reply.code}: {words or 'no words'}"


def _refusal(answer: Answer, reply: _Reply, said: str) -> Held | DeliveryError:
    if reply.code in HELD:
        reason, mend = HELD[reply.code]
        return Held(reason, said, mend)
    if reply.code in BUSY:
        return Throttled(said, reason=f"code_{reply.code}", retry_after=retry_after(answer))
    return _by_status(answer, said)


def _without_words(answer: Answer) -> Held | DeliveryError:
    """Of an answer that HEC did not give. Its text is not repeated: a page may show the request."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:50]
    return _by_status(answer, f"HTTP {answer.status}, and no answer of HEC's ({kind or 'no content type'})")


def _by_status(answer: Answer, said: str) -> Held | DeliveryError:
    match answer.status:
        case 401 | 403:
            return Held("access_denied", said, "see who answers there; " + _ENABLE)
        case 407:
            return Held("credentials", said, "put user and password into proxy")
        case 404 | 405 | 410:
            return Held("target_not_found", said, "enable HEC in Splunk; " + _NOT_HEC)
        case 413:
            return TooLarge(said)
        case 415:
            return Held("refused", said, 'write compression = "none"')
        case 429:
            return Throttled(said, retry_after=retry_after(answer))
        case status if 300 <= status < 400:
            return Held("refused", said, "write where it redirects to into url")
        case status if 402 <= status < 500 and status not in (408, 409, 425):
            return Held("refused", said, _NOT_HEC)
        case _:
            return Unknown(said, retry_after=retry_after(answer))
