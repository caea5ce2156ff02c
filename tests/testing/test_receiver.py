"""The receiver of the rig output: what it stores, what it answers, and that a seed makes it do the same again."""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from shipper.errors import Held
from shipper.output import Batch, DeliveryError, NotTried, Outcome, Output, Report, TooLarge, Unknown
from support.behaviours import EVENT_KINDS, REQUEST_KINDS, Step, chosen
from support.receiver import RIG, Receiver, down

Rig = Output[Any]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(record=tmp_path / "stored", seed=4) as receiver:
        yield receiver


@pytest.fixture
def rig(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.syspath_prepend(str(RIG))
    module = importlib.import_module("shipper_rig")
    output: Rig = module.RigOutput("siem", module.RigSettings(type="rig", url=receiver.url))
    yield output
    output.close()


def batch(*ids: str, more: str = "") -> Batch:
    events = [msgspec.json.encode({"id": one, "statement": more}) for one in ids]
    return Batch(events, [()] * len(events), sum(map(len, events)))


IDS = [f"{number:04x}" for number in range(200)]


def outcomes(report: Report) -> set[Outcome]:
    return {failure.outcome for failure in report.failed.values()}


def test_what_it_acknowledged_is_in_its_record_and_counts_after_a_restart(
    receiver: Receiver, rig: Rig, tmp_path: Path
) -> None:
    rig.send(batch("a", "b"))
    rig.send(batch("a"))
    assert receiver.stored() == receiver.stored("siem") == ["a", "b", "a"]
    assert (tmp_path / "stored").read_text() == "siem\ta\nsiem\tb\nsiem\ta\n"
    with Receiver(record=tmp_path / "stored") as again:
        assert again.stored("siem") == ["a", "b", "a"]


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_a_share_of_the_events_fails_and_the_rest_is_stored(receiver: Receiver, rig: Rig, kind: str) -> None:
    receiver.behave(kind, share=0.3, retry_after=2.5)
    report = rig.send(batch(*IDS))
    assert 20 < len(report.failed) < 100
    assert outcomes(report) == {Outcome("unknown" if kind.startswith("unknown") else kind)}
    assert {failure.retry_after for failure in report.failed.values()} == {2.5}
    lost = [] if kind == "unknown_stored" else [IDS[index] for index in report.failed]
    assert sorted([*receiver.stored(), *lost]) == IDS


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_a_whole_batch_fails_by_an_exception(receiver: Receiver, rig: Rig, kind: str) -> None:
    receiver.behave(kind, whole=True, reason="busy", retry_after=1)
    with pytest.raises(DeliveryError) as error:
        rig.send(batch(*IDS))
    assert error.value.failure.reason == "busy"
    assert receiver.stored() == (IDS if kind == "unknown_stored" else [])


def test_the_same_seed_does_the_same_again_whatever_another_output_does(receiver: Receiver, rig: Rig) -> None:
    mix = {"throttled": 0.1, "unknown_stored": 0.1, "rejected": 0.1}
    receiver.behave("mix", mix=mix)
    first = [rig.send(batch(*IDS)) for _ in range(3)]
    assert len({frozenset(report.failed) for report in first}) == 3
    with Receiver(seed=4) as twin:
        twin.behave("mix", mix=mix)
        for report in first:
            twin.take("other", b"\n".join(batch(*IDS).events))
            reply = twin.take("siem", b"\n".join(batch(*IDS).events))
            assert reply is not None
            failed = msgspec.json.decode(reply)["failed"]
            assert {int(index): told["outcome"] for index, told in failed.items()} == {
                index: failure.outcome for index, failure in report.failed.items()
            }


def test_the_same_events_are_refused_every_time(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("rejected", every=5)
    for _ in range(2):
        assert [IDS[index] for index in rig.send(batch(*IDS)).failed] == [one for one in IDS if chosen(one, 5)]
    receiver.behave("rejected", having="drop table")
    assert set(rig.send(Batch([*batch("a").events, *batch("b", more="drop table").events], [()] * 2, 9)).failed) == {1}


def test_one_guilty_event_refuses_its_whole_batch(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("rejected", having='"0007"', whole=True)
    with pytest.raises(DeliveryError):
        rig.send(batch(*IDS))
    assert rig.send(batch("0008")).failed == {}
    assert receiver.stored() == ["0008"]


def test_a_request_over_its_bytes_is_too_large_until_it_is_split(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("too_large", over_bytes=150, whole=True)
    with pytest.raises(TooLarge):
        rig.send(batch(*IDS))
    assert rig.send(batch(*IDS[:3])).failed == {}
    receiver.behave("too_large", over_bytes=150)
    assert outcomes(rig.send(batch("b", more="x" * 150))) == {Outcome.TOO_LARGE}
    assert receiver.stored() == IDS[:3]


def test_what_it_has_is_answered_as_already_stored(receiver: Receiver, rig: Rig) -> None:
    receiver.behave([("unknown_stored", {"requests": 1, "remember": True}), "already_stored"])
    assert outcomes(rig.send(batch("a", "b"))) == {Outcome.UNKNOWN}
    report = rig.send(batch("a", "b", "c"))
    assert (report.failed, list(report.already_stored)) == ({}, [0, 1])
    assert receiver.stored() == ["a", "b", "c"]


def test_a_script_goes_on_step_by_step_and_ends_in_delivering(receiver: Receiver, rig: Rig) -> None:
    receiver.behave([("held", {"requests": 2, "detail": "no index"}), Step("slow_down", requests=1)])
    for _ in range(2):
        with pytest.raises(Held, match="no index"):
            rig.send(batch("a"))
    assert rig.send(batch("a")).slow_down
    assert not rig.send(batch("a")).slow_down
    assert receiver.stored() == ["a", "a"]


def test_one_output_misbehaves_and_another_does_not(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("held", output="other")
    assert rig.send(batch("a")).failed == {}
    receiver.behave("held", output="siem")
    with pytest.raises(Held):
        rig.send(batch("b"))


def test_garbage_leaves_nobody_sure_and_is_often_stored(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("garbage", stored=0.5)
    told: set[str] = set()
    for _ in range(60):
        try:
            report = rig.send(batch("a"))
            told.add(f"failed {sorted(report.failed)} already {list(report.already_stored)}")
        except Exception as error:  # noqa: BLE001 - a careless plugin raises anything
            told.add(type(error).__name__)
    assert "failed [1] already []" in told
    assert "failed [] already [8]" in told
    assert {"Unknown", "ValueError"} <= told
    assert 10 < len(receiver.stored()) < 50


def test_a_connection_that_is_reset_is_unknown(receiver: Receiver, rig: Rig) -> None:
    for stored in (0.0, 1.0):
        receiver.behave("reset", stored=stored)
        with pytest.raises(Unknown):
            rig.send(batch("a"))
        assert receiver.stored() == ["a"] * int(stored)


def test_it_goes_down_and_comes_back_on_its_port(receiver: Receiver, rig: Rig) -> None:
    rig.send(batch("a"))
    url = receiver.url
    with down(receiver):
        with pytest.raises(DeliveryError):
            rig.send(batch("b"))  # on the connection that was open
        with pytest.raises(NotTried):
            rig.send(batch("b"))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", receiver.port))
    assert receiver.url == url
    rig.send(batch("b"))
    assert receiver.stored() == ["a", "b"]


def test_down_for_a_while_ends_by_itself(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("down", seconds=0.01)
    with pytest.raises(Unknown):
        rig.send(batch("a"))
    sent = threading.Event()
    while not sent.is_set():
        try:
            rig.send(batch("a"))
            sent.set()
        except DeliveryError:
            continue
    assert receiver.stored() == ["a"]


def test_slow_without_a_time_waits_until_told_otherwise(receiver: Receiver, rig: Rig) -> None:
    receiver.behave("slow")
    thread = threading.Thread(target=rig.send, args=(batch("a"),))
    thread.start()
    receiver.wait_for_request("siem")
    assert receiver.stored() == []
    receiver.behave("deliver")
    thread.join(30)
    assert receiver.stored() == ["a"]


def test_a_script_in_another_process_reconfigures_it_and_asks_for_what_is_stored(receiver: Receiver, rig: Rig) -> None:
    def control(path: str, body: object = None) -> object:
        content = None if body is None else msgspec.json.encode(body)
        with urlopen(Request(receiver.control_url + path, content), timeout=30) as answer:
            return msgspec.json.decode(answer.read())

    control("/behave", {"script": [["rejected", {"requests": 1}]], "output": "siem"})
    assert outcomes(rig.send(batch("a"))) == {Outcome.REJECTED}
    rig.send(batch("b"))
    control("/stop", {})
    with pytest.raises(DeliveryError):
        rig.send(batch("c"))
    control("/start", {})
    rig.send(batch("c"))
    assert control("/stored?output=siem") == ["b", "c"]


def test_a_behaviour_that_does_not_exist_is_refused(receiver: Receiver) -> None:
    with pytest.raises(ValueError, match="slwo"):
        receiver.behave("slwo")
    with pytest.raises(ValueError, match="slwo"):
        receiver.behave("mix", mix={"slwo": 1.0})
    assert {"mix", "already_stored"}.isdisjoint({*EVENT_KINDS, *REQUEST_KINDS})
