"""Kept records whose key stays refused while others decode are passed over; nobody who plants one stops the trail."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from shipper.configuration import load
from shipper.engine import passing
from shipper.engine.keeper import Keeper
from shipper.engine.passing import Passing
from shipper.engine.pipeline import Pipeline
from shipper.errors import Held
from shipper.generate.activity import PlainRecord
from shipper.generate.damage import damage
from shipper.generate.sealer import DataKey, Sealer, encryption_context
from support.keeping import (
    ORDERLY,
    Later,
    assert_all_arrived,
    assert_in_read_order,
    in_order,
    kept,
    running,
    sealed,
    settled,
)
from support.oracle import assert_balanced
from support.site import STREAM, Site
from support.waiting import until

DENIED = Held("access_denied", "not yours")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a thirtieth of the time."""
    monkeypatch.setattr("shipper.engine.holds.FIRST_TRY", 0.05)
    monkeypatch.setattr("shipper.engine.holds.LAST_TRY", 0.2)
    monkeypatch.setattr("shipper.engine.passing.PATIENCE", 1.0)
    for module in ("shipper.engine.passing", "shipper.engine.keeper", "shipper.decode.das.keys"):
        monkeypatch.setattr(f"{module}.REFUSAL_TTL", 0.2)


class Foreign:
    """Seals records under data keys of a KMS key that shipper may not use."""

    def __init__(self, site: Site, rotate_after: int = 1) -> None:
        self._site = site
        self.key = site.kms.create_key("foreign")
        site.kms.deny_key(self.key)
        self.sealer = Sealer(self, rotate_after=rotate_after)

    def new(self, resource_id: str) -> DataKey:
        plain, blob = self._site.kms.generate_data_key(self.key, encryption_context(resource_id))
        return DataKey(blob, plain)

    def records(self, count: int) -> list[bytes]:
        records: list[PlainRecord] = []
        while len(records) < count:
            records += self._site.generator.records(500)
        return [self.sealer.seal(record) for record in records[:count]]

    def permit(self) -> None:
        self._site.kms.permit_key(self.key)


def arrived(site: Site) -> int:
    return len(site.receiver.ids.get("siem", ()))


def wait_for(site: Site, events: int) -> None:
    until(lambda: arrived(site) == events, lambda: f"{arrived(site)} of {events} events arrived")


@pytest.mark.usefixtures("_quick")
def test_a_planted_record_under_a_foreign_key_waits_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, foreign = in_order(site), Foreign(site)
    appended: list[int] = []
    original = Keeper.append

    def append(self: Keeper, partition: int, *more: Any) -> None:
        appended.append(partition)
        original(self, partition, *more)

    monkeypatch.setattr(Keeper, "append", append)
    pipeline, wait = running(site, Later())
    site.put(20)
    wait_for(site, 20)
    (planted,) = site.generator.records(1)
    site.kinesis.put(STREAM, foreign.sealer.seal(planted))
    site.put(200)
    wait_for(site, 220)
    until(lambda: kept(site) == 1, lambda: str(kept(site)))
    assert_in_read_order(seen)
    until(lambda: [hold.reason for hold in pipeline.held()] == ["access_denied"], lambda: str(pipeline.held()))
    until(lambda: "1 kept records wait" in pipeline.held()[0].detail, lambda: str(pipeline.held()))
    before = len(appended)
    site.put(50)  # read directly again
    wait_for(site, 270)
    assert len(appended) == before > 0
    assert_in_read_order(seen)
    foreign.permit()
    wait_for(site, 270 + planted.events)
    until(lambda: not pipeline.held(), lambda: str(pipeline.held()))
    settled(site, pipeline)
    pipeline.stop()
    result = wait()
    assert (result.exit_code, site.letters()) == (0, [])
    assert_all_arrived(site, result, 270 + planted.events)


@pytest.mark.usefixtures("_quick")
def test_five_thousand_planted_in_a_row(site: Site) -> None:
    seen, foreign, another = in_order(site), Foreign(site, rotate_after=4900), Foreign(site)
    planted = [*foreign.records(4900), *another.records(100)]
    pipeline, wait = running(site, Later())
    site.put(20)
    wait_for(site, 20)
    site.kinesis.put_many(STREAM, planted)
    site.put(100)
    wait_for(site, 120)
    until(lambda: kept(site) == 5000, lambda: str(kept(site)))
    assert_in_read_order(seen)
    foreign.permit()
    until(lambda: kept(site) == 100, lambda: f"{kept(site)} records are kept")
    pipeline.stop()
    result = wait()
    assert (result.exit_code, result.kept["orders"][0], site.letters()) == (75, 100, [])
    assert_balanced("siem", result.books["siem"])


@pytest.mark.usefixtures("_quick")
def test_planted_records_between_all_others_cost_no_more_time_than_one(site: Site) -> None:
    seen, foreign = in_order(site), Foreign(site)
    good = sealed(site, 600)
    planted = foreign.records(len(good))
    assert len(good) > 45  # seconds, one after the other
    pipeline, wait = running(site, Later())
    site.kinesis.put_many(STREAM, [record for pair in zip(planted, good, strict=True) for record in pair])
    wait_for(site, 600)
    assert_in_read_order(seen)
    until(lambda: kept(site) == len(planted), lambda: str(kept(site)))
    pipeline.stop()
    result = wait()
    assert result.exit_code == 75
    assert_balanced("siem", result.books["siem"])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("behind_a_planted_one", [False, True])
def test_nothing_overtakes_while_the_key_of_all_is_being_enabled(site: Site, behind_a_planted_one: bool) -> None:
    """Each record has a data key of its own: what KMS has just refused is refused from memory for a while, when what
    stands behind it was never asked for."""
    site.sealer = Sealer(site, rotate_after=1)
    seen, foreign = in_order(site), Foreign(site)
    records = sealed(site, 300)
    site.kms.disable_key(site.key)
    pipeline, wait = running(site, Later())
    if behind_a_planted_one:
        site.kinesis.put_many(STREAM, foreign.records(1))
        until(lambda: kept(site) == 1, lambda: str(kept(site)))
    site.kinesis.put_many(STREAM, records)
    until(lambda: kept(site) == len(records) + behind_a_planted_one, lambda: str(kept(site)))
    calls = site.kms.calls["Decrypt"]
    site.kms.wait_for("Decrypt", calls + 10)  # nothing decodes, so nothing is passed over, however often it is tried
    assert seen == []
    site.kms.enable_key(site.key)
    wait_for(site, 300)
    assert_in_read_order(seen)
    until(lambda: kept(site) == behind_a_planted_one, lambda: str(kept(site)))
    pipeline.stop()
    assert_balanced("siem", wait().books["siem"])


@pytest.mark.usefixtures("_quick")
def test_the_next_run_passes_over_what_is_left_too(site: Site) -> None:
    foreign = Foreign(site)
    for _ in range(2):
        pipeline, wait = running(site, Later())
        before = arrived(site)
        site.kinesis.put_many(STREAM, foreign.records(2))
        site.put(50)
        wait_for(site, before + 50)
        settled_but = kept(site)
        pipeline.stop()
        result = wait()
        assert (result.exit_code, [hold.reason for hold in result.held]) == (75, ["access_denied"])
        assert result.kept["orders"][0] == settled_but
    assert kept(site) == 4


@pytest.mark.usefixtures("_quick")
def test_a_single_run_waits_for_the_patience_and_ends_with_what_is_left_on_disk(site: Site) -> None:
    foreign = Foreign(site)
    site.kinesis.put_many(STREAM, foreign.records(2))
    site.put(60)
    site.configure(output=ORDERLY)
    path = site.folder / "shipper.toml"
    path.write_text(path.read_text().replace('drain_timeout = "10s"', 'drain_timeout = "900ms"'))
    result = Pipeline(load([path]), once=True, randomness=random.Random(1)).run()
    assert (result.exit_code, result.message, result.kept["orders"][0]) == (75, "", 2)
    assert arrived(site) == 60
    assert_balanced("siem", result.books["siem"])


@pytest.mark.usefixtures("_quick")
def test_one_that_cannot_be_decoded_when_its_key_is_there_becomes_a_dead_letter(site: Site) -> None:
    foreign = Foreign(site)
    (record, *_) = site.generator.records(10)
    site.kinesis.put(STREAM, damage(foreign.sealer, record, "tampered", random.Random(1)))
    pipeline, wait = running(site, Later())
    site.put(50)
    wait_for(site, 50)
    until(lambda: kept(site) == 1, lambda: str(kept(site)))
    foreign.permit()
    settled(site, pipeline)
    assert [reason for reason, _ in site.letters()] == ["tampered"]
    pipeline.stop()
    assert_balanced("siem", wait().books["siem"])


def refuse(line: Passing, times: Sequence[float], record: int = 5, newest: int = 9, *, proven: bool = True) -> None:
    for time in times:
        line.refused(record, newest, time, proven=proven)


def test_a_record_is_passed_over_after_three_tries_and_thirty_seconds() -> None:
    line = Passing()
    refuse(line, [100, 115])
    assert not line.passes(5, DENIED, 131)  # two tries
    refuse(line, [125])
    assert not line.passes(5, DENIED, 129)  # too early
    assert line.passes(5, DENIED, 131)
    assert line.passes(9, DENIED, 131)  # it stood there all the time
    assert not line.passes(10, DENIED, 131)  # it came later


def test_what_kms_said_a_moment_ago_is_no_further_try() -> None:
    line = Passing()
    refuse(line, [100, 101, 102, 103])
    assert not line.passes(5, DENIED, 140)


def test_a_try_at_which_nothing_else_decodes_begins_the_count_anew() -> None:
    line = Passing()
    refuse(line, [100, 110])
    refuse(line, [120], proven=False)
    refuse(line, [130])
    assert not line.passes(5, DENIED, 140)
    refuse(line, [140, 150])
    assert not line.passes(5, DENIED, 159)
    assert line.passes(5, DENIED, 160)


def test_none_is_passed_over_when_the_first_one_is_decoded() -> None:
    line = Passing()
    refuse(line, [100, 115, 131])
    assert not line.passes(6, DENIED, 131)  # the fifth was not refused this time
    assert line.began(5)
    assert not line.patient
    assert not line.passes(6, DENIED, 131)


def test_a_fault_of_more_than_one_key_takes_longer() -> None:
    busy = Held("key_unavailable", "KMS is busy")
    line = Passing()
    refuse(line, range(0, 590, 10))
    assert not line.passes(5, busy, 599)
    assert line.passes(5, busy, 600)


def test_long_waits_are_remembered_in_little_space() -> None:
    line = Passing()
    refuse(line, range(0, 1_000_000, 10))
    assert len(line._tries) <= passing.LONG_PATIENCE / 10 + passing.TRIES
