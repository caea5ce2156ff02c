"""The source's own spool: what cannot be decoded now is read, kept in order, and decoded first when the key is back."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Any

import msgspec
import pytest

from shipper.configuration import load
from shipper.decode import Reason, Undecodable
from shipper.decode.das.record import Records
from shipper.engine.pipeline import Pipeline, Result
from shipper.engine.unpacking import _renumbered
from shipper.generate.activity import PlainRecord
from shipper.generate.damage import damage
from shipper.state import dead_letters
from shipper.state.dead_letters import Filter
from shipper.state.file import open_state
from shipper.state.spool import Place
from support.keeping import (
    HOUR,
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


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.engine.holds.FIRST_TRY", 0.05)
    monkeypatch.setattr("shipper.engine.holds.LAST_TRY", 0.2)


def pass_days(site: Site, clock: Later, days: int) -> None:
    """Time passes, and reading goes on meanwhile."""
    for _ in range(days * 2):
        clock.ahead += 12 * HOUR
        site.kinesis.wait_for("GetRecords", site.kinesis.calls["GetRecords"] + 6)


def expire(site: Site) -> None:
    """The stream forgets everything that it holds."""
    for shard in site.kinesis.shards(STREAM):
        site.kinesis.trim(STREAM, shard.id)


def test_a_key_disabled_for_three_days_on_a_quiet_stream(site: Site) -> None:
    clock, seen = Later(), in_order(site)
    pipeline, wait = running(site, clock)
    site.put(20)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    site.kms.disable_key(site.key)
    clock.ahead += HOUR  # the data keys that were in memory are gone
    site.put(30)
    until(lambda: kept(site), lambda: "nothing was kept")
    expire(site)
    pass_days(site, clock, 3)
    assert [(hold.component, hold.reason) for hold in pipeline.held()] == [("source orders", "key_disabled")]
    assert len(site.receiver.ids["siem"]) == 20
    site.kms.enable_key(site.key)
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == 50)
    until(lambda: not pipeline.held(), lambda: str(pipeline.held()))
    pipeline.stop()
    result = wait()
    assert (result.exit_code, result.kept, site.letters()) == (0, {}, [])
    assert_all_arrived(site, result, 50)
    assert_in_read_order(seen)


def test_a_key_disabled_for_three_days_on_a_busy_stream(site: Site) -> None:
    clock, seen = Later(), in_order(site)
    pipeline, wait = running(site, clock)
    parts = [sealed(site, 200) for _ in range(6)]
    meanwhile = sealed(site, 100)
    site.put(20)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    site.kms.disable_key(site.key)
    clock.ahead += HOUR
    for part in parts:
        before = kept(site)
        site.kinesis.put_many(STREAM, part)
        until(lambda before=before: kept(site) > before, lambda: "nothing more was kept")  # type: ignore[misc]
        clock.ahead += 12 * HOUR
        reads = site.kinesis.calls["GetRecords"]
        site.kinesis.wait_for("GetRecords", reads + 8)
        expire(site)
    site.kinesis.put_many(STREAM, meanwhile)
    site.kms.enable_key(site.key)
    site.put(100)
    total = 20 + 6 * 200 + 100 + 100
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == total)
    site.put(50)  # decoded directly again
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == total + 50)
    pipeline.stop()
    assert_all_arrived(site, wait(), total + 50)
    assert_in_read_order(seen)


def test_what_was_kept_is_shipped_by_the_next_run_though_the_stream_has_forgotten_it(site: Site) -> None:
    clock, seen = Later(), in_order(site)
    later = sealed(site, 40)
    site.put(40)
    site.kms.disable_key(site.key)
    pipeline, wait = running(site, clock)
    until(lambda: kept(site) == len(site.kinesis.records(STREAM)), lambda: str(kept(site)))
    pipeline.stop()
    result = wait()
    assert (result.exit_code, result.kept["orders"][0]) == (75, kept(site))
    expire(site)
    site.kinesis.put_many(STREAM, later)
    pipeline, wait = running(site, clock)  # the key is still disabled: what is new stands behind what is kept
    until(lambda: kept(site) > result.kept["orders"][0], lambda: str(kept(site)))
    site.kms.enable_key(site.key)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 80)
    settled(site, pipeline)
    pipeline.stop()
    assert_all_arrived(site, wait(), 80)
    assert_in_read_order(seen)


def test_a_single_run_whose_key_stays_refused_ends_with_a_backlog_that_is_safe_on_disk(site: Site) -> None:
    site.kms.deny("Decrypt")
    site.put(40)
    path = site.folder / "shipper.toml"
    site.configure(output=ORDERLY)
    path.write_text(path.read_text().replace('drain_timeout = "10s"', 'drain_timeout = "2s"'))
    result = Pipeline(load([path]), once=True).run()
    assert result.exit_code == 75
    assert result.kept["orders"][0] == len(site.kinesis.records(STREAM))
    assert result.books["siem"] == {}
    site.kms.mend()
    expire(site)
    result = site.ship(output=ORDERLY)
    assert result.exit_code == 0
    assert_all_arrived(site, result, 40)


def test_a_run_without_sources_decodes_what_was_kept(site: Site) -> None:
    test_a_single_run_whose_key_stays_refused_ends_with_a_backlog_that_is_safe_on_disk(site)
    site.kms.deny("Decrypt")
    site.put(10)
    path = site.folder / "shipper.toml"
    path.write_text(path.read_text().replace('drain_timeout = "10s"', 'drain_timeout = "2s"'))
    assert Pipeline(load([path]), once=True, clock=_an_hour_later()).run().exit_code == 75
    site.kms.mend()
    site.put(10)
    result = Pipeline(load([path]), once=True, sources=False).run()
    assert result.exit_code == 0
    assert_all_arrived(site, result, 50)


def _an_hour_later() -> Later:
    clock = Later()
    clock.ahead = HOUR
    return clock


def test_lanes_get_their_share_of_what_was_kept_by_their_rules_and_in_their_format(site: Site) -> None:
    records = site.put(300)
    site.kms.disable_key(site.key)
    pipeline, wait = running(
        site,
        Later(),
        output=ORDERLY
        + """
        match = { category = "authentication" }
        [outputs.all]
        type = "file"
        path = "all.jsonl"
        format = "raw"
        spool = { after = "100ms" }
        """,
    )
    until(lambda: kept(site) == len(records), lambda: str(kept(site)))
    site.kms.enable_key(site.key)
    settled(site, pipeline)
    pipeline.stop()
    books = wait().books
    for output in ("siem", "all"):
        assert_balanced(output, books[output])
        assert books[output]["offered"] == {"": 300}
    assert 0 < books["siem"]["delivered"][""] == 300 - books["siem"]["filtered"]["match"]
    lines = (site.folder / "all.jsonl").read_bytes().splitlines()
    assert len(lines) == 300
    assert all(line.startswith(b'{"type":"DatabaseActivityMonitoringRecord",') for line in lines)


def test_a_lane_that_had_settled_half_a_record_gets_the_other_half(site: Site) -> None:
    record = next(record for record in site.generator.records(100) if record.events > 4)
    site.kinesis.put(STREAM, site.sealer.seal(record))
    site.ship()
    with closing(open_state(site.state)) as connection:
        connection.execute("UPDATE positions SET event = 3 WHERE record IS NOT NULL")
    first = site.receiver.order["siem"][:]
    site.receiver.ids.clear()
    site.kms.disable_key(site.key)
    pipeline, wait = running(site, Later())
    until(lambda: kept(site), lambda: "nothing was kept")
    site.kms.enable_key(site.key)
    settled(site, pipeline)
    pipeline.stop()
    result = wait()
    assert list(site.receiver.ids["siem"]) == first[3:]
    assert result.books["siem"]["offered"] == {"": len(first) + len(first) - 3}


def test_a_dead_letter_of_a_record_is_decoded_when_it_is_replayed(site: Site) -> None:
    (record, *_) = site.put(10)
    data = site.sealer.seal(record)
    site.kinesis.put(STREAM, damage(site.sealer, record, "tampered", random.Random(1)))
    site.ship()
    assert [reason for reason, _ in site.letters()] == ["tampered"]
    replay_all(site)
    connection = open_state(site.state)
    connection.execute("UPDATE kept_records SET data = ?", (data,))  # as if a mended decoder could read it
    connection.close()
    site.receiver.ids.clear()
    result = drain(site)
    assert result.exit_code == 0
    assert site.letters() == []
    assert len(site.receiver.ids["siem"]) == record.events
    assert result.books["siem"]["replayed"] == {"": record.events}
    assert result.books["siem"]["replayed_out"] == {"": 1}
    assert_balanced("siem", result.books["siem"])


def test_a_replayed_record_that_still_cannot_be_decoded_is_a_dead_letter_again(site: Site) -> None:
    (record, *_) = site.put(10)
    site.kinesis.put(STREAM, damage(site.sealer, record, "tampered", random.Random(1)))
    site.ship()
    before = site.letters()
    replay_all(site)
    assert site.letters() == []
    result = drain(site)
    assert site.letters() == before
    assert result.books["siem"]["dead_lettered"] == {"tampered": 2}
    assert_balanced("siem", result.books["siem"])


def test_of_a_record_with_one_bad_event_only_that_one_is_replayed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    records = site.put(60)
    record = next(record for record in records if record.events >= 4)
    whole = msgspec.json.decode(record.plaintext, type=_Record).databaseActivityEventList
    bad = [bytes(raw) for raw in whole if b'"type":"record"' in bytes(raw)][1:3]
    original = Records._event

    def refuse(self: Records, raw: bytes, *more: Any, **named: Any) -> Any:
        if raw in bad:
            raise Undecodable(Reason.SHAPE, "not liked")
        return original(self, raw, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Records, "_event", refuse)
        site.ship()
    assert len(site.receiver.ids["siem"]) == 58
    replay_all(site)
    result = drain(site)
    assert result.books["siem"]["replayed"] == {"": 2}
    assert result.books["siem"]["replayed_out"] == {"": 2}
    assert_all_arrived(site, result, 60)


class _Record(msgspec.Struct):
    databaseActivityEventList: list[msgspec.Raw]


def replay_all(site: Site) -> None:
    connection = open_state(site.state)
    assert dead_letters.replay(connection, Filter(), 1).letters
    connection.close()


def drain(site: Site) -> Result:
    return Pipeline(load([site.folder / "shipper.toml"]), once=True, sources=False).run()


def events_of(records: list[PlainRecord]) -> int:
    return sum(record.events for record in records)


def test_events_of_a_part_of_a_record_keep_their_places_in_it() -> None:
    place = Place(1, 1, "orders", 7, "7", 0, 0, 4)
    runs = [(part.ordinal, part.count) for part in _renumbered([place], [1, 4, 5, 9])]
    assert runs == [(1, 1), (4, 2), (9, 1)]
    later = place._replace(ordinal=2, count=2)
    assert [(part.ordinal, part.count) for part in _renumbered([later], [1, 4, 5, 9])] == [(5, 1), (9, 1)]


def test_what_was_replayed_and_failed_again_is_kept_although_a_lane_is_still_behind_it(site: Site) -> None:
    """That lane would meet it by reading again: a tombstone says so. It is no reason to lose the record."""
    (record, *_) = site.put(10)
    site.kinesis.put(STREAM, damage(site.sealer, record, "tampered", random.Random(1)))
    site.ship()
    with closing(open_state(site.state)) as connection:
        connection.execute("INSERT INTO lanes (name) VALUES ('behind')")
        connection.execute(
            "INSERT INTO positions (lane, partition) SELECT lanes.id, partitions.id FROM lanes, partitions "
            "WHERE lanes.name = 'behind'"
        )
    replay_all(site)
    with closing(open_state(site.state)) as connection:
        assert connection.execute("SELECT count(*) FROM tombstones").fetchone() == (1,)
    drain(site)
    assert [reason for reason, _ in site.letters()] == ["tampered"]


def test_a_full_spool_of_a_lane_makes_what_was_kept_wait_until_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipper.engine.keeper.PAGE_BYTES", 10_000)
    records = site.put(400)
    site.kms.disable_key(site.key)
    site.receiver.behave("down")
    pipeline, wait = running(
        site,
        Later(),
        output='concurrency = 1\nspool = { after = "100ms", max_bytes = "20kB" }',
        batch='max_wait = "10ms", max_bytes = "10kB"',
    )
    until(lambda: kept(site) == len(records), lambda: str(kept(site)))
    site.kms.enable_key(site.key)
    until(lambda: any(hold.reason == "spool_full" for hold in pipeline.held()), lambda: str(pipeline.held()))
    assert kept(site) > 0
    site.receiver.behave("deliver")
    site.receiver.start()
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == events_of(records))
    settled(site, pipeline)
    pipeline.stop()
    assert_all_arrived(site, wait(), 400)
