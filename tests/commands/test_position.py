"""``shipper position``: where outputs stand, and reading again for one of them alone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.operations import EVENTS, Site
from support.receiver import Receiver


@pytest.fixture
def site(captured: Site, tmp_path: Path, receiver: Receiver) -> Site:
    """Two outputs have everything; nothing runs any more."""
    found = Site(tmp_path)
    found.take_captured(captured)
    found.configure(receiver, ["siem", "lake"])
    found.once()
    return found


def shown(site: Site, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in site.run("position", "show", "--json", *arguments).splitlines()]


def again(site: Site, *arguments: str, code: int = 0) -> str:
    return site.run("position", "set", "--output", "siem", "--source", "captured", *arguments, code=code)


def times(receiver: Receiver, output: str) -> set[int]:
    """How often the output has stored an event."""
    return set(receiver.ids[output].values())


def test_show_says_for_each_output_where_it_stands_and_how_old_that_is(site: Site) -> None:
    found = shown(site)
    assert [one["output"] for one in found] == ["lake", "siem"]
    for one in found:
        assert one["source"] == "captured"
        assert one["stream"] == f"file:{site.folder / 'captured.jsonl'}"
        assert one["partition"].startswith("captured.jsonl#")
        assert 0 < int(one["position"]) < (site.folder / "captured.jsonl").stat().st_size
        assert (one["next_event"], one["ended"], one["begins"]) == (None, False, None)
        assert one["arrived"].endswith("Z")
    assert [one["output"] for one in shown(site, "--output", "siem")] == ["siem"]
    assert len(shown(site, "--source", "captured")) == 2
    headings, line, _ = site.run("position", "show").splitlines()
    assert headings.split()[:4] == ["output", "source", "partition", "position"]
    assert line.split()[:4] == ["lake", "captured", found[0]["partition"], found[0]["position"]]


def test_show_of_an_unknown_source_names_those_that_there_are(site: Site) -> None:
    assert "no source 'nobody'; sources: captured" in site.run("position", "show", "--source", "nobody", code=1)


def test_set_lets_one_output_read_again_and_the_others_get_nothing_twice(site: Site, receiver: Receiver) -> None:
    assert "in 1 partitions; the next run begins there" in again(site, "--earliest")
    assert [one["begins"] for one in shown(site)] == [None, "earliest"]
    site.run("run", "--once")
    assert (times(receiver, "siem"), times(receiver, "lake")) == ({2}, {1})
    assert site.books()["siem"]["offered"] == 2 * EVENTS


def test_set_beside_a_running_shipper_begins_at_once(site: Site, receiver: Receiver) -> None:
    with site.running():
        assert "the running shipper has begun" in again(site, "--earliest")
        receiver.wait(lambda: len(receiver.stored("siem")) == 2 * EVENTS)
    assert (times(receiver, "siem"), times(receiver, "lake")) == ({2}, {1})
    site.books()


@pytest.mark.parametrize(("time", "expected"), [("2001-01-01T00:00Z", 2), ("2100-01-01T00:00Z", 1)])
def test_set_to_a_time_reads_again_what_arrived_since(site: Site, receiver: Receiver, time: str, expected: int) -> None:
    again(site, "--time", time)
    (_, begins) = (one["begins"] for one in shown(site))
    assert begins.startswith(time.removesuffix("Z"))
    site.run("run", "--once")
    assert (times(receiver, "siem"), times(receiver, "lake")) == ({expected}, {1})


def test_a_dry_run_says_where_it_stands_and_touches_nothing(site: Site) -> None:
    before = (site.folder / "state" / "shipper.db").read_bytes()
    (_, siem) = shown(site)
    said = again(site, "--earliest", "--dry-run")
    assert "nothing was touched" in said
    assert siem["position"] in said
    assert json.loads(again(site, "--time", "1h", "--dry-run", "--json")) == {"dry_run": True, "partitions": 1}
    assert (site.folder / "state" / "shipper.db").read_bytes() == before


@pytest.mark.parametrize("arguments", [(), ("--time", "1h", "--earliest")])
def test_set_needs_one_beginning(site: Site, arguments: tuple[str, ...]) -> None:
    assert "either --time or --earliest" in again(site, *arguments, code=2)


def test_set_of_an_output_that_takes_nothing_of_the_source_is_refused(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["siem"], of_each="sources = []")
    assert "takes no events of 'captured'" in again(site, "--earliest", code=1)


def test_set_of_what_was_never_read_is_refused(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["siem", "lake", "new"])
    said = site.run("position", "set", "--output", "new", "--source", "captured", "--earliest", code=1)
    assert "stands nowhere in 'captured' yet" in said


# -- which stream a source of Kinesis reads ----------------------------------------------------------------------------

ARN = "arn:aws:kinesis:{region}:123456789012:stream/aws-rds-das-cluster-ABC"


def add_stream(site: Site, region: str, created: str) -> str:
    """A stream in which the outputs stand, as a source of Kinesis would have made it."""
    series = ARN.format(region=region)
    identity = f"{series}@{created}"
    with closing(sqlite3.connect(site.folder / "state" / "shipper.db")) as connection, connection:
        (stream,) = connection.execute(
            "INSERT INTO streams (identity, series, start) VALUES (?, ?, 'earliest') RETURNING id", (identity, series)
        ).fetchone()
        (partition,) = connection.execute(
            "INSERT INTO partitions (stream, name, begins) VALUES (?, 'shard-0', 'start') RETURNING id", (stream,)
        ).fetchone()
        connection.execute("INSERT INTO positions (lane, partition) SELECT id, ? FROM lanes", (partition,))
    return identity


def configure_kinesis(site: Site, more: str) -> None:
    configuration = (site.folder / "shipper.toml").read_text()
    (site.folder / "shipper.toml").write_text(f'{configuration}\n[sources.orders]\ntype = "kinesis"\n{more}\n')


def test_a_source_of_kinesis_is_found_by_its_stream_the_last_one_of_the_name(site: Site) -> None:
    configure_kinesis(site, 'resource_id = "cluster-ABC"')
    add_stream(site, "eu-west-1", "2026-01-01T00:00:00.000+00:00")
    newest = add_stream(site, "eu-west-1", "2026-02-02T00:00:00.000+00:00")
    assert {one["stream"] for one in shown(site, "--source", "orders")} == {newest}
    assert {one["source"] for one in shown(site)} == {"captured", "orders"}
    site.run("position", "set", "--output", "siem", "--source", "orders", "--earliest")
    begun = [(one["output"], one["stream"]) for one in shown(site) if one["begins"]]
    assert begun == [("siem", newest)]


def test_a_source_that_could_be_several_streams_is_refused_until_its_region_is_given(site: Site) -> None:
    configure_kinesis(site, 'stream = "aws-rds-das-cluster-ABC"')
    add_stream(site, "eu-west-1", "2026-01-01T00:00:00.000+00:00")
    american = add_stream(site, "us-east-1", "2026-01-01T00:00:00.000+00:00")
    assert "could be any of arn:aws:kinesis:eu-west-1" in site.run("position", "show", "--source", "orders", code=1)
    with (site.folder / "shipper.toml").open("a") as file:
        file.write('region = "us-east-1"\n')
    assert {one["stream"] for one in shown(site, "--source", "orders")} == {american}
