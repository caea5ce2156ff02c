"""Records reach a stream or a file: within Kinesis' limits, again where it refused them, never silently lost."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from shipper.errors import Held
from shipper.generate.destinations import MAX_BYTES, MAX_RECORDS, PATIENCE, FileDestination, StreamDestination

Answer = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
GOOD = {"SequenceNumber": "1", "ShardId": "s"}
SLOW = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}


class MovedClock:
    """Time passes only where somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += seconds
        self.waits.append(seconds)
        return event.is_set()


class Kinesis:
    """Answers PutRecords by a script, the last answer for ever; keeps what it accepted."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = list(answers)
        self.calls: list[list[dict[str, Any]]] = []
        self.accepted: list[dict[str, Any]] = []

    def put_records(self, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # boto3's names
        assert StreamName == "activity"
        self.calls.append(list(Records))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        results = answer(Records)
        self.accepted += [entry for entry, result in zip(Records, results, strict=True) if "ErrorCode" not in result]
        return {"FailedRecordCount": len(Records) - len(self.accepted), "Records": results}


def accept(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [GOOD for _ in entries]


def refuse(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [SLOW for _ in entries]


def half(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [GOOD if number % 2 else SLOW for number, _ in enumerate(entries)]


def failure(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutRecords")


def put(kinesis: Kinesis, envelopes: list[bytes]) -> MovedClock:
    clock = MovedClock()
    destination = StreamDestination(kinesis, "activity", clock)  # type: ignore[arg-type]  # a scripted client
    for one in envelopes:
        destination.write(one)
    destination.flush()
    return clock


def test_calls_stay_within_the_limits_of_records_and_bytes() -> None:
    small, large = Kinesis(accept), Kinesis(accept)
    put(small, [b"x"] * (2 * MAX_RECORDS + 1))
    assert [len(call) for call in small.calls] == [MAX_RECORDS, MAX_RECORDS, 1]
    put(large, [bytes(1_000_000)] * 11)
    sizes = [sum(len(entry["Data"]) + len(entry["PartitionKey"]) for entry in call) for call in large.calls]
    assert max(sizes) <= MAX_BYTES
    assert [len(call) for call in large.calls] == [5, 5, 1]


def test_every_record_has_a_random_uuid_as_its_key() -> None:
    kinesis = Kinesis(accept)
    put(kinesis, [b"x"] * 50)
    keys = [entry["PartitionKey"] for entry in kinesis.accepted]
    assert len(set(keys)) == 50
    assert {uuid.UUID(key).version for key in keys} == {4}


def test_only_refused_records_are_sent_again_after_growing_waits() -> None:
    kinesis = Kinesis(half, refuse, refuse, accept)
    clock = put(kinesis, [b"%d" % number for number in range(10)])
    assert [len(call) for call in kinesis.calls] == [10, 5, 5, 5]
    assert sorted(entry["Data"] for entry in kinesis.accepted) == [b"%d" % number for number in range(10)]
    first, second, third = clock.waits
    assert 0.05 <= first <= 0.1
    assert 0.05 <= second <= 0.2
    assert second <= third * 4
    assert third <= 0.4


@pytest.mark.parametrize(
    "error",
    [
        failure("LimitExceededException"),
        failure("InternalFailure"),
        failure("ProvisionedThroughputExceededException"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ],
)
def test_a_call_that_fails_for_the_moment_is_made_again(error: Exception) -> None:
    kinesis = Kinesis(error, error, accept)
    put(kinesis, [b"a", b"b"])
    assert [entry["Data"] for entry in kinesis.accepted] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("code", "reason"), [("ResourceNotFoundException", "stream_not_found"), ("AccessDeniedException", "access_denied")]
)
def test_what_waiting_does_not_mend_stops_at_once(code: str, reason: str) -> None:
    kinesis = Kinesis(failure(code))
    with pytest.raises(Held) as caught:
        put(kinesis, [b"a"])
    assert caught.value.reason == reason
    assert len(kinesis.calls) == 1


def test_a_record_refused_for_good_stops() -> None:
    kinesis = Kinesis(
        lambda entries: [{"ErrorCode": "KMSAccessDeniedException", "ErrorMessage": "no"} for _ in entries]
    )
    with pytest.raises(Held, match="KMSAccessDenied"):
        put(kinesis, [b"a"])


def test_a_stream_that_takes_nothing_is_given_up_after_a_while() -> None:
    kinesis = Kinesis(refuse)
    clock = MovedClock()
    destination = StreamDestination(kinesis, "activity", clock)  # type: ignore[arg-type]  # a scripted client
    destination.write(b"a")
    with pytest.raises(Held, match="has taken no record"):
        destination.flush()
    assert PATIENCE < clock.time < PATIENCE + 10
    assert max(clock.waits) <= 5.0


def test_a_file_has_one_envelope_per_line() -> None:
    file = io.BytesIO()
    destination = FileDestination(file)
    destination.write(b'{"a":1}')
    destination.write(b'{"b":2}')
    destination.flush()
    assert file.getvalue() == b'{"a":1}\n{"b":2}\n'
