"""So many undecodable records in a row are not to blame: the source is held, and they are kept until it is over."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from shipper.configuration import load
from shipper.decode import Reason, Refused
from shipper.engine.chunk import Chunk
from shipper.engine.pipeline import Pipeline, Result
from shipper.engine.prepare import Prepared
from shipper.engine.source_storm import SourceStorm
from shipper.engine.unpacking import decodes
from shipper.errors import StateError
from shipper.generate.damage import damage
from shipper.source import Record
from shipper.state import kept_records
from shipper.state.file import read_state
from support.oracle import assert_balanced
from support.site import CLUSTER, STREAM, Site, held, in_background
from support.waiting import until

#: The storm begins at the hundredth record, as by default.
STORM = 100


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.engine.holds.FIRST_TRY", 0.05)
    monkeypatch.setattr("shipper.engine.holds.LAST_TRY", 0.2)


def kept(site: Site) -> int:
    """How many records the sources keep."""
    try:
        with closing(read_state(site.state)) as connection:
            return sum(records for records, _, _ in kept_records.totals(connection).values())
    except StateError:
        return 0  # not there yet


def running(site: Site) -> tuple[Pipeline, Callable[[], Result]]:
    site.configure()
    pipeline = Pipeline(load([site.folder / "shipper.toml"]), randomness=random.Random(1))
    return pipeline, in_background(pipeline)


def garbage(site: Site, count: int) -> None:
    (record, *_) = site.generator.records(10)
    for number in range(count):
        site.kinesis.put(STREAM, damage(site.sealer, record, "tampered", random.Random(number)))


def settled(site: Site, pipeline: Pipeline) -> None:
    until(lambda: kept(site) == 0, lambda: f"{kept(site)} records are kept")
    until(lambda: not any(pipeline.spooled().values()), lambda: str(pipeline.spooled()))


def file_source(site: Site, resource_id: str, *more: str) -> Path:
    path = site.folder / "captured.toml"
    path.write_text(
        f"""
        [aws]
        region = "us-east-1"
        endpoint_url = {{ kms = "{site.kms.endpoint_url}" }}
        [sources.orders]
        type = "file"
        path = "captured.jsonl"
        resource_id = "{resource_id}"
        [outputs.siem]
        type = "rig"
        url = "{site.receiver.url}"
        batch = {{ max_wait = "10ms" }}
        [server]
        listen = ""
        drain_timeout = "2s"
        """
        + "\n".join(more)
    )
    return path


def test_a_wrong_resource_id_holds_the_source_and_costs_nothing_once_it_is_mended(site: Site) -> None:
    records = [site.sealer.seal(record) for record in site.generator.records(3000)]
    (site.folder / "captured.jsonl").write_bytes(b"".join(record + b"\n" for record in records))
    wrong = file_source(site, "cluster-WRONGWRONGWRONGWRONGWRONG1")
    result = Pipeline(load([wrong]), once=True).run()
    assert [hold.reason for hold in result.held] == ["storm"]
    assert (result.exit_code, site.letters(), site.receiver.ids) == (75, [], {})
    assert result.kept["orders"][0] == kept(site) == len(records)
    result = Pipeline(load([wrong]), once=True).run()  # again, and nothing is lost by it
    assert (result.exit_code, site.letters(), kept(site)) == (75, [], len(records))
    result = Pipeline(load([file_source(site, CLUSTER)]), once=True).run()
    assert (result.exit_code, result.held, site.letters()) == (0, [], [])
    assert len(site.receiver.ids["siem"]) == 3000
    assert set(site.receiver.ids["siem"].values()) == {1}
    assert kept(site) == 0
    books = result.books["siem"]
    assert books["replayed_out"] == {"": STORM - 1}
    assert books["delivered"] == {"": 3000}
    assert_balanced("siem", books)


def test_a_storm_of_garbage_ends_by_itself_when_something_is_decoded(site: Site) -> None:
    pipeline, wait = running(site)
    garbage(site, 3 * STORM)
    held(pipeline, "storm")
    until(lambda: kept(site) == 3 * STORM, lambda: str(kept(site)))
    assert site.letters() == []
    site.put(50)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 50)
    until(lambda: not pipeline.held(), lambda: str(pipeline.held()))
    settled(site, pipeline)
    assert [reason for reason, _ in site.letters()] == ["tampered"] * 3 * STORM
    pipeline.stop()
    result = wait()
    assert result.exit_code == 0
    assert result.books["siem"]["delivered"] == {"": 50}
    assert_balanced("siem", result.books["siem"])


def test_fewer_in_a_row_are_dead_letters(site: Site) -> None:
    for _ in range(3):  # over both shards: the good ones are read between them, and at the end
        garbage(site, STORM // 4)
        site.put(20)
    result = site.ship()
    assert result.exit_code == 0
    assert len(site.letters()) == 3 * (STORM // 4)
    assert "replayed_out" not in result.books["siem"]


def test_what_is_good_among_what_was_kept_ends_the_storm_wherever_it_stands(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the oldest nor the newest can be decoded."""
    monkeypatch.setattr("shipper.engine.keeper.PAGE_RECORDS", 50)
    site.kms.deny("Decrypt")
    garbage(site, 2 * STORM)
    site.put(10)
    garbage(site, 2 * STORM)
    site.configure(output='spool = { after = "100ms" }')
    pipeline = Pipeline(load([site.folder / "shipper.toml"]), randomness=random.Random(1))
    wait = in_background(pipeline)
    until(lambda: kept(site) == len(site.kinesis.records(STREAM)), lambda: str(kept(site)))
    site.kms.mend()
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 10)
    held(pipeline, "storm")  # what stands behind it is another one
    site.put(10)
    settled(site, pipeline)
    pipeline.stop()
    result = wait()
    assert len(site.letters()) == 4 * STORM
    assert_balanced("siem", result.books["siem"])


def test_a_record_that_is_decoded_begins_the_count_anew() -> None:
    storm = SourceStorm("orders", 3)
    assert storm.judge([False, False, True, False, False]) == 5
    assert storm.judge([True, False, False]) == 3
    assert not storm.raging
    assert storm.judge([False]) == 0
    assert storm.raging


def test_in_a_storm_nothing_is_believed_until_something_is_decoded() -> None:
    storm = SourceStorm("orders", 3)
    assert storm.judge([False] * 5) == 2
    assert storm.judge([False] * 5) == 0
    assert storm.judge([False, True]) == 2
    assert not storm.raging


def test_after_a_storm_none_begins_before_something_was_decoded() -> None:
    storm = SourceStorm("orders", 3)
    storm.judge([False] * 5)
    storm.over()
    assert storm.judge([False] * 500) == 500
    assert storm.judge([True, False, False]) == 3
    assert storm.judge([False]) == 0


def test_a_record_counts_as_decoded_by_one_event_or_heartbeat() -> None:
    records = [Record(position, b"", 0) for position in range(4)]
    whole, part = Refused(None, Reason.SHAPE, ""), Refused(1, Reason.SHAPE, "")
    chunk = Chunk(records=[0, 1, 2, 3], starts=[0, 2, 2, 2], count=3)
    prepared = Prepared(chunk, [], refused=[(records[0], [part]), (records[2], [whole])])
    assert decodes(prepared) == [True, True, False, True]
