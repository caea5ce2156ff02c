"""The engine between real servers: what holds a source, what becomes a dead letter, where reading begins again."""

from __future__ import annotations

import json
import random
import urllib.request
from collections import Counter
from typing import Any

import pytest

from shipper.clock import SystemClock
from shipper.configuration import load
from shipper.decode import decoder
from shipper.engine.pipeline import Pipeline
from shipper.errors import ConfigurationError
from shipper.generate.activity import PlainRecord
from shipper.generate.damage import damage
from shipper.source import END
from shipper.state import positions
from shipper.state.file import open_state
from support.site import STREAM, Site, held, in_background
from support.waiting import until

#: As if a kill had come when three events of one record were settled.
HALF_SETTLED = "UPDATE positions SET event = 1 WHERE record = (SELECT min(record) FROM positions)"


def events_of(records: list[PlainRecord]) -> int:
    return sum(record.events for record in records)


def test_the_way_of_an_event_from_a_stream_to_an_output(site: Site) -> None:
    records = site.put(300)
    result = site.ship()
    assert result.exit_code == 0
    assert set(site.receiver.ids["siem"].values()) == {1}
    assert len(site.receiver.ids["siem"]) == 300
    assert result.books["siem"] == {"offered": {"": 300}, "delivered": {"": 300}}
    assert any(record.heartbeat for record in records), "no heartbeat was among them"


def test_a_heartbeat_is_not_shipped_but_shows_that_the_database_is_audited(site: Site) -> None:
    record = next(record for record in site.generator.records(10_000) if record.heartbeat)
    site.kinesis.put(STREAM, site.sealer.seal(record))
    pipeline = site.configure()
    pipeline.run()
    assert site.receiver.ids == {}
    metrics = pipeline.metrics.registry
    assert metrics.get_sample_value("shipper_heartbeats_total", {"source": "orders"}) == 1
    seen = metrics.get_sample_value("shipper_last_heartbeat_timestamp_seconds", {"db_instance": record.instance})
    assert seen is not None
    assert seen > 0


def test_a_disabled_key_holds_the_source_and_loses_nothing(site: Site) -> None:
    site.put(50)
    site.kms.disable_key(site.key)
    pipeline = site.configure()
    wait = in_background(pipeline)
    held(pipeline, "key_disabled")
    site.kms.enable_key(site.key)
    result = wait()
    assert (result.exit_code, result.held) == (0, [])
    assert len(site.receiver.ids["siem"]) == 50
    assert site.letters() == []


def test_a_missing_permission_holds_the_source_and_loses_nothing(site: Site) -> None:
    site.put(50)
    site.kms.deny("Decrypt")
    pipeline = site.configure()
    wait = in_background(pipeline)
    held(pipeline, "access_denied")
    site.kms.mend()
    assert wait().exit_code == 0
    assert len(site.receiver.ids["siem"]) == 50
    assert site.letters() == []


def test_a_missing_stream_holds_the_source_until_it_is_there(site: Site) -> None:
    site.kinesis.delete_stream(STREAM)
    pipeline = site.configure()
    wait = in_background(pipeline)
    held(pipeline, "stream_not_found")
    site.kinesis.create_stream(STREAM)
    site.put(20)
    assert wait().exit_code == 0
    assert len(site.receiver.ids["siem"]) == 20


def test_a_hold_that_nobody_mends_ends_a_single_run_with_its_reason(site: Site) -> None:
    site.kinesis.delete_stream(STREAM)
    result = site.ship('[log]\nlevel = "error"')
    assert result.exit_code == 1
    assert [hold.reason for hold in result.held] == ["stream_not_found"]


def test_undecodable_records_are_kept_as_they_were_read_and_the_stream_goes_on(site: Site) -> None:
    (good, *_) = site.put(30)
    broken = {
        kind: damage(site.sealer, good, kind, random.Random(1))
        for kind in ("tampered", "cut_base64", "not_json_inside")
    }
    for data in broken.values():
        site.kinesis.put(STREAM, data)
    site.put(30)
    result = site.ship()
    assert len(site.receiver.ids["siem"]) == 60
    assert dict(site.letters()) == {
        "tampered": broken["tampered"],
        "base64": broken["cut_base64"],
        "json_malformed": broken["not_json_inside"],
    }
    assert result.dead_lettered == 3
    assert sum(result.books["siem"]["offered"].values()) == 63


def test_a_key_that_kms_refuses_makes_a_dead_letter_and_a_missing_permission_does_not(site: Site) -> None:
    (good, *_) = site.put(10)
    site.kinesis.put(STREAM, damage(site.sealer, good, "unknown_key", random.Random(1)))
    site.ship()
    assert [reason for reason, _ in site.letters()] == ["key_refused"]


def test_latest_means_the_first_run_even_if_nothing_was_read_before_the_first_stop(site: Site) -> None:
    site.put(20)
    assert site.ship(source='start = "latest"').exit_code == 0
    site.put(20)
    assert site.ship(source='start = "latest"').exit_code == 0
    assert len(site.receiver.ids["siem"]) == 20


def test_a_stream_that_was_made_anew_is_read_from_its_beginning(site: Site) -> None:
    site.ship(source='start = "latest"')
    site.kinesis.delete_stream(STREAM)
    site.kinesis.create_stream(STREAM)
    site.put(20)
    site.ship(source='start = "latest"')
    assert len(site.receiver.ids["siem"]) == 20


def test_a_stream_that_is_made_anew_while_it_is_read_is_followed(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipper.engine.source_line.LISTING_INTERVAL", 0.1)
    site.put(20)
    site.configure()
    pipeline = Pipeline(load([site.folder / "shipper.toml"]))
    wait = in_background(pipeline)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    site.kinesis.delete_stream(STREAM)
    site.kinesis.create_stream(STREAM)
    site.put(20)
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == 40)
    pipeline.stop()
    assert wait().exit_code == 0
    assert "is gone and had not been read to its end" in caplog.text


def test_children_of_a_split_shard_are_read_after_their_parent(site: Site) -> None:
    site.put(40)
    shard = site.kinesis.shards(STREAM)[0].id
    site.kinesis.split(STREAM, shard)
    site.put(40)
    assert site.ship().exit_code == 0
    assert len(site.receiver.ids["siem"]) == 80
    assert set(site.receiver.ids["siem"].values()) == {1}


def test_another_version_of_the_decoder_begins_a_half_settled_record_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record, *_) = site.put(10)
    assert record.events > 1
    site.ship()
    connection = open_state(site.state)
    connection.execute(HALF_SETTLED)
    changed = connection.execute("SELECT count(*) FROM positions WHERE event = 1").fetchone()[0]
    connection.close()
    assert changed == 1
    site.receiver.ids.clear()
    site.ship()
    same = len(site.receiver.ids["siem"])
    connection = open_state(site.state)
    connection.execute(HALF_SETTLED)
    connection.close()
    monkeypatch.setattr(decoder, "DECODER_VERSION", "another")
    site.receiver.ids.clear()
    site.ship()
    assert len(site.receiver.ids["siem"]) == same + 1


def test_two_sources_on_one_stream_are_refused(site: Site) -> None:
    site.put(10)
    more = f'[sources.again]\ntype = "kinesis"\nstream = "{STREAM}"\npoll_interval = "50ms"'
    with pytest.raises(ConfigurationError, match="read the same"):
        site.ship(more)


def test_rules_route_and_labels_are_added(site: Site) -> None:
    seen: list[dict[str, Any]] = []

    def keep(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend({**event, "output": output} for event in events)
        return {}

    site.receiver.script = keep
    site.put(400)
    result = site.ship(
        '[transforms.quiet]\ntype = "drop"\nmatch = { user = ["rdsadmin", "rdsproxyadmin"] }',
        f'[outputs.logins]\ntype = "rig"\nurl = "{site.receiver.url}"\nbatch = {{ max_wait = "10ms" }}',
        'transforms = []\nlabels = { team = "b" }\nmatch = { category = "authentication" }',
        source='labels = { team = "a", env = "test" }',
    )
    siem = [event for event in seen if event["output"] == "siem"]
    logins = [event for event in seen if event["output"] == "logins"]
    assert siem
    assert logins
    assert not {event.get("user") for event in siem} & {"rdsadmin", "rdsproxyadmin"}
    assert {event["category"] for event in logins} == {"authentication"}
    assert all(event["labels"] == {"team": "a", "env": "test"} for event in siem)
    assert all(event["labels"] == {"team": "b", "env": "test"} for event in logins)
    books = result.books
    assert books["siem"]["filtered"] == {"quiet": 400 - len(siem)}
    assert books["logins"]["filtered"] == {"match": 400 - len(logins)}
    assert Counter(books["siem"]["offered"]) == Counter(books["logins"]["offered"]) == {"": 400}


def test_health_readiness_and_metrics_over_http(site: Site) -> None:
    site.put(20)
    path = site.folder / "shipper.toml"
    site.configure()
    path.write_text(path.read_text().replace('listen = ""', 'listen = "127.0.0.1:0"'))
    pipeline = Pipeline(load([path]))
    wait = in_background(pipeline)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    assert pipeline.url is not None
    assert get(f"{pipeline.url}/health")[0] == 200
    status, body = get(f"{pipeline.url}/ready")
    assert (status, json.loads(body)["held"]) == (200, [])
    assert 'shipper_events_offered_total{output="siem"} 20.0' in get(f"{pipeline.url}/metrics")[1]
    pipeline.stop()
    assert wait().exit_code == 0


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status, answer.read().decode()


def test_a_gap_is_reported_when_a_position_is_older_than_what_the_stream_keeps(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.put(20)
    site.ship()
    connection = open_state(site.state)
    connection.execute("UPDATE positions SET arrived = 1700000000000000000, tip = 0 WHERE record IS NOT NULL")
    connection.close()
    pipeline = site.configure()
    pipeline.run()
    assert "a gap in shardId-" in caplog.text
    gaps = pipeline.metrics.registry.get_sample_value("shipper_gaps_total", {"source": "orders"})
    assert gaps
    assert gaps >= 1


def test_a_shard_that_vanished_unread_is_reported_as_a_gap(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.put(20)
    site.ship()
    connection = open_state(site.state)
    stream = connection.execute("SELECT id FROM streams").fetchone()[0]
    partition = connection.execute(
        "INSERT INTO partitions (stream, name, begins) VALUES (?, 'shardId-000000000099', 'start') RETURNING id",
        (stream,),
    ).fetchone()[0]
    connection.execute("INSERT INTO positions (lane, partition) VALUES (1, ?)", (partition,))
    connection.close()
    site.ship()
    assert "shardId-000000000099 is gone" in caplog.text


def test_a_position_in_the_middle_of_a_record_goes_on_there(site: Site) -> None:
    records = [record for record in site.put(10) if record.events]
    site.ship()
    site.receiver.ids.clear()
    connection = open_state(site.state)
    connection.execute("UPDATE positions SET event = 2 WHERE record IS NOT NULL")
    rows = connection.execute("SELECT record FROM positions WHERE record IS NOT NULL").fetchall()
    connection.close()
    site.ship()
    last = {str(int(row)) for (row,) in rows}
    assert last
    assert len(site.receiver.ids["siem"]) <= events_of(records)
    connection = open_state(site.state)
    assert all(
        standing.position is None or standing.position.event == END
        for (partition,) in connection.execute("SELECT id FROM partitions").fetchall()
        for standing in positions._standings(connection, partition).values()
    )
    connection.close()


def test_a_gap_that_opens_while_reading_is_held_is_reported(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    clock = Later()
    site.put(20)
    site.configure()
    pipeline = Pipeline(load([site.folder / "shipper.toml"]), clock=clock)
    wait = in_background(pipeline)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    site.kinesis.deny("GetRecords")
    held(pipeline, "access_denied")
    clock.ahead = 26 * 3600.0
    site.kinesis.expire_iterators()
    site.put(20)
    site.kinesis.mend()
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == 40)
    # A request that was under way when the clock moved tells nothing; the one after it does.
    until(lambda: "a gap in shardId-" in caplog.text, lambda: caplog.text)
    pipeline.stop()
    assert wait().exit_code == 0


def test_an_output_that_owes_everything_has_a_gap_when_it_was_away_for_too_long(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader stood at the tip meanwhile; that lane did not."""
    site.receiver.script = lambda output, events: {"held": "no"}
    site.put(20)
    site.configure()
    pipeline = Pipeline(load([site.folder / "shipper.toml"]))
    wait = in_background(pipeline)
    held(pipeline, "refused")
    pipeline.stop()
    wait()
    site.receiver.script = lambda output, events: {}
    connection = open_state(site.state)
    connection.execute("UPDATE positions SET tip = tip - 90000, arrived = 0")  # a day and an hour ago
    connection.close()
    site.ship()
    assert "a gap in shardId-" in caplog.text


def test_a_single_run_that_was_held_reads_all_that_was_there_when_it_began(site: Site) -> None:
    """The time of the hold must not count as having come nearer to the tip."""
    site.put(200)
    site.kms.deny("Decrypt")
    pipeline = site.configure(source="")
    wait = in_background(pipeline)
    held(pipeline, "access_denied")
    site.put(50)
    site.kms.mend()
    assert wait().exit_code == 0
    assert len(site.receiver.ids["siem"]) >= 200


class Later(SystemClock):
    """A machine on which time has passed."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead
