"""What the OpenSearch output makes of a real server's answers: each refusal is provoked, none is invented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from servers.opensearch import MAX_CONTENT, PRESSURE, Server
from shipper.errors import Held
from shipper.output import Batch, NotTried, Outcome, Throttled, TooLarge, Unknown
from shipper.testing.contract.events import HOSTILE, MARK, batch_of, event
from shipper_opensearch import OpenSearchOutput
from shipper_opensearch.long_values import TAG
from shipper_opensearch.mapping import VERSION, properties
from shipper_opensearch.settings import OpenSearchSettings
from support.http_front import Answer, Front
from support.search import Search, held, refused, send

pytestmark = pytest.mark.xdist_group("opensearch")


@pytest.fixture
def search(opensearch_server: Server) -> Iterator[Search]:
    made = Search(opensearch_server)
    yield made
    made.close()


# -- where events go -----------------------------------------------------------------------------------------------


def test_an_event_is_stored_under_its_id_with_a_copy_of_its_time(search: Search) -> None:
    send(search.output(index="audit"), event(1))
    (document,) = search.api.documents("audit")
    assert document["_id"] == document["_source"]["id"] == event(1).id
    assert next(iter(document["_source"].items())) == ("@timestamp", event(1).time)


def test_a_409_on_our_own_id_is_already_stored(search: Search) -> None:
    output = search.output(index="audit")
    send(output, event(1))
    report = send(output, event(1), event(2))
    assert (report.failed, list(report.already_stored)) == ({}, [0])
    assert search.ids("audit") == [event(1).id, event(2).id]


def test_indices_are_named_by_the_template(search: Search) -> None:
    output = search.output(index="audit-{engine}-{time:%Y.%m.%d}")
    send(output, event(1), event(2, engine="oracle"), event(3, engine=None))
    found = {document["_index"]: document["_id"] for document in search.api.documents("audit-*")}
    assert found == {
        "audit-aurora-postgresql-2026.01.02": event(1).id,
        "audit-oracle-2026.01.02": event(2).id,
        "audit-none-2026.01.02": event(3).id,
    }


def test_an_alias_is_written_through(search: Search) -> None:
    search.api("PUT", "/audit-000001", {"aliases": {"audit": {"is_write_index": True}}})
    send(search.output(index="audit"), event(1))
    (document,) = search.api.documents("audit")
    assert document["_index"] == "audit-000001"


def test_routing_goes_with_each_event(search: Search) -> None:
    search.api("PUT", "/audit", {"mappings": {"_routing": {"required": True}}})
    send(search.output(index="audit", routing="{user}"), event(1, user='a"b\\c'))
    (document,) = search.api.documents("audit")
    assert document["_routing"] == 'a"b\\c'


def test_without_document_ids_the_server_makes_them(search: Search) -> None:
    output = search.output(index="audit", document_id="none")
    send(output, event(1))
    assert not send(output, event(1)).already_stored
    found = search.api.documents("audit")
    assert [document["_source"]["id"] for document in found] == [event(1).id] * 2
    assert event(1).id not in {document["_id"] for document in found}


def test_without_a_timestamp_field_the_event_is_stored_as_it_is(search: Search) -> None:
    output = search.output(index="audit", timestamp_field="")
    batch = batch_of(output.values(), [event(1)])
    output.send(batch)
    (document,) = search.api.documents("audit")
    assert next(iter(document["_source"])) == "schema_version"


def test_a_pipeline_is_named_in_the_request(search: Search) -> None:
    search.api("PUT", "/_ingest/pipeline/known", {"processors": []})
    assert not send(search.output(index="audit", pipeline="known"), event(1)).failed


# -- the managed template ------------------------------------------------------------------------------------------


def test_the_managed_template_maps_every_field_of_the_event(search: Search) -> None:
    output = search.output(index="audit-{time:%Y}", template="manage")
    send(output, event(1, native={"a": "b"}, labels={"team": "x"}, extra="{}"))
    (index,) = search.api("GET", "/audit-2026/_mapping").values()
    mapping = index["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["_meta"] == {"made_by": "shipper", "version": VERSION}
    assert {name: field["type"] for name, field in mapping["properties"].items()} == {
        name: field["type"] for name, field in properties("@timestamp").items()
    }


@pytest.mark.parametrize(
    "query",
    [
        {"term": {"user": "app"}},
        {"match": {"statement": MARK}},
        {"term": {"client_ip": "192.0.2.0/24"}},
        {"range": {"rows": {"gte": 1}}},
        {"range": {"@timestamp": {"gte": "2026-01-02", "lt": "2026-01-03"}}},
        {"term": {"native.database": "orders"}},
        {"term": {"labels.team": "payments"}},
    ],
    ids="-".join,
)
def test_a_search_finds_each_event_once(search: Search, query: dict[str, Any]) -> None:
    output = search.output(index="audit", template="manage")
    for _ in range(2):
        send(output, event(1, native={"database": "orders"}, labels={"team": "payments"}))
    search.api("POST", "/audit/_refresh")
    assert search.api("POST", "/audit/_search", {"query": query})["hits"]["total"]["value"] == 1


def test_a_template_that_is_there_is_left_as_it_is(search: Search) -> None:
    search.api("PUT", "/_index_template/shipper-audit", {"index_patterns": ["audit"], "version": VERSION})
    before = search.api("GET", "/_index_template/shipper-audit")
    search.output(index="audit", template="manage")
    assert search.api("GET", "/_index_template/shipper-audit") == before


def test_an_older_template_is_left_and_told_of(search: Search, caplog: pytest.LogCaptureFixture) -> None:
    search.api("PUT", "/_index_template/shipper-audit", {"index_patterns": ["audit"]})
    output = search.output(index="audit", template="manage")
    assert "version 0" in caplog.text
    assert [check.subject for check in output.check() if not check.ok] == ["template"]


def test_two_templates_for_the_same_names_hold_the_output(search: Search) -> None:
    search.api("PUT", "/_index_template/other", {"index_patterns": ["audit*"], "priority": 100})
    with pytest.raises(Held) as caught:
        search.output(index="audit", template="manage")
    assert "cannot create the index template" in str(caught.value)
    assert 'template = "none"' in caught.value.mend


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_event_is_refused_by_the_managed_mapping(search: Search, kind: str) -> None:
    report = send(search.output(index="audit", template="manage"), HOSTILE[kind](1))
    assert not report.failed


def test_values_that_are_too_long_for_a_flat_object_are_cut_and_tagged(search: Search) -> None:
    output = search.output(index="audit", template="manage")
    long = event(1, native={"a": "é" * 40_000, "kkkkk": "x" * 40_000, "b": "short"}, labels={"l": "y" * 70_000})
    assert not send(output, long, event(2)).failed
    found = {document["_id"]: document["_source"] for document in search.api.documents("audit")}
    source = found[long.id]
    assert source["tags"] == [TAG]
    assert source["native"]["b"] == "short"
    assert [len(source["native"]["kkkkk"].encode()), len(source["native"]["a"].encode())] == [32_746, 32_749]
    assert source["labels"]["l"].startswith("y" * 32_000)
    assert source["statement"] == long.statement
    assert "tags" not in found[event(2).id]


# -- an event is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "guilty", "words"),
    [
        ({"database": {"type": "ip"}}, {}, "failed to parse field [database] of type [ip]"),
        ({"statement": {"type": "long"}}, {}, "failed to parse field [statement] of type [long]"),
        ({"user": {"type": "keyword"}}, {"user": MARK * 4_000}, "immense term"),
        ({"client_ip": {"type": "date"}}, {}, "failed to parse field [client_ip] of type [date]"),
        ({"user": {"type": "object"}}, {}, "object mapping for [user] tried to parse"),
    ],
    ids=["ip", "long", "immense term", "date", "object"],
)
def test_a_mapping_conflict_refuses_that_event_alone(
    search: Search, mapping: dict[str, Any], guilty: dict[str, Any], words: str
) -> None:
    search.api("PUT", "/audit", {"mappings": {"properties": mapping}})
    innocent = event(1, **dict.fromkeys(mapping))
    report = send(search.output(index="audit"), innocent, event(2, **guilty))
    failure = refused(report)
    assert (list(report.failed), failure.outcome) == ([1], Outcome.REJECTED)
    assert words in failure.detail
    assert search.ids("audit") == [event(1).id]


def test_a_strict_mapping_refuses_what_it_does_not_know(search: Search) -> None:
    search.api("PUT", "/audit", {"mappings": {"dynamic": "strict", "properties": {"id": {"type": "keyword"}}}})
    failure = refused(send(search.output(index="audit"), event(1)))
    assert failure.outcome is Outcome.REJECTED
    assert "dynamic introduction of [@timestamp]" in failure.detail


def test_too_many_fields_refuse_the_event(search: Search) -> None:
    search.api("PUT", "/audit", {"settings": {"index.mapping.total_fields.limit": 3}})
    failure = refused(send(search.output(index="audit"), event(1)))
    assert failure.outcome is Outcome.REJECTED
    assert "Limit of total fields [3] has been exceeded" in failure.detail


def test_a_document_that_is_none_is_refused_alone(search: Search) -> None:
    output = search.output(index="audit")
    batch = batch_of(output.values(), [event(1), event(2), event(3)])
    torn = Batch([batch.events[0], batch.events[1][:-5], batch.events[2]], batch.values, batch.size)
    report = output.send(torn)
    assert refused(report).outcome is Outcome.REJECTED
    assert search.ids("audit") == [event(1).id, event(3).id]


def test_an_id_that_no_server_takes_is_refused_before_it_spoils_the_request(search: Search) -> None:
    output = search.output(index="audit")
    batch = batch_of(output.values(), [event(1), event(2), event(3)])
    values = [batch.values[0], ("x" * 513, *batch.values[1][1:]), batch.values[2]]
    report = output.send(Batch(batch.events, values, batch.size))
    assert {index: failure.outcome for index, failure in report.failed.items()} == {1: Outcome.REJECTED}
    assert search.ids("audit") == [event(1).id, event(3).id]


# -- somebody has to mend something --------------------------------------------------------------------------------


def test_a_write_block_holds_the_output(search: Search) -> None:
    search.api("PUT", "/audit", {"settings": {"index.blocks.write": True}})
    output = search.output(index="audit")
    error = held(output)
    assert error.reason == "unwritable"
    assert "FORBIDDEN/8/index write (api)" in error.detail
    search.api("PUT", "/audit/_settings", {"index.blocks.write": None})
    assert not send(output, event(1)).failed


def test_a_cluster_that_is_read_only_holds_the_output(search: Search) -> None:
    search.api("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": True}})
    try:
        error = held(search.output(index="audit"))
    finally:
        search.api("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": None}})
    assert error.reason == "unwritable"
    assert "cluster read-only (api)" in error.detail


def test_full_disks_hold_the_output(search: Search) -> None:
    search.api("PUT", "/audit")
    search.api("PUT", "/audit/_settings", {"index.blocks.read_only_allow_delete": True})
    error = held(search.output(index="audit"))
    assert error.reason == "disk_full"
    assert "flood-stage watermark" in error.detail


def test_full_disks_under_one_of_several_indices_let_its_events_wait(search: Search) -> None:
    search.api("PUT", "/audit-read")
    search.api("PUT", "/audit-read/_settings", {"index.blocks.read_only_allow_delete": True})
    report = send(search.output(index="audit-{category}"), event(1), event(2, category="ddl"))
    assert {index: failure.outcome for index, failure in report.failed.items()} == {0: Outcome.THROTTLED}


def test_a_blocked_index_among_others_holds_its_events_alone(search: Search) -> None:
    search.api("PUT", "/audit-read", {"settings": {"index.blocks.write": True}})
    report = send(search.output(index="audit-{category}"), event(1), event(2, category="ddl"))
    assert {index: (one.outcome, one.reason) for index, one in report.failed.items()} == {
        0: (Outcome.HELD, "unwritable")
    }


def test_too_many_shards_hold_the_output(search: Search) -> None:
    search.api("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 1}})
    error = held(search.output(index="audit"))
    assert error.reason == "refused"
    assert "maximum shards open" in error.detail
    assert "max_shards_per_node" in error.mend


def test_an_index_that_may_not_be_made_holds_the_output(search: Search) -> None:
    search.api("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": "false"}})
    error = held(search.output(index="audit"))
    assert (error.reason, error.detail) == ("target_not_found", "index_not_found_exception: no such index [audit]")


def test_a_closed_index_holds_the_output(search: Search) -> None:
    search.api("PUT", "/audit")
    search.api("POST", "/audit/_close")
    assert held(search.output(index="audit")).reason == "unwritable"


def test_an_alias_without_a_write_index_holds_the_output(search: Search) -> None:
    for name in ("audit-1", "audit-2"):
        search.api("PUT", f"/{name}", {"aliases": {"audit": {}}})
    error = held(search.output(index="audit"))
    assert error.reason == "target_not_found"
    assert "no write index is defined for alias [audit]" in error.detail


def test_an_absent_pipeline_holds_the_output(search: Search) -> None:
    error = held(search.output(index="audit", pipeline="absent"))
    assert (error.reason, error.detail) == (
        "refused",
        "illegal_argument_exception: pipeline with id [absent] does not exist",
    )


# -- size, pressure, and being away --------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_request_over_the_servers_limit_is_too_large(search: Search, compression: str) -> None:
    """The server counts what it unpacks."""
    output = search.output(index="audit", compression=compression)
    with pytest.raises(TooLarge):
        send(output, *(event(number, statement="x" * (MAX_CONTENT // 4)) for number in range(1, 6)))
    assert not send(output, event(1)).failed


def test_indexing_pressure_throttles(search: Search) -> None:
    output = search.output(index="audit")
    with pytest.raises(Throttled) as caught:
        send(output, *(event(number, statement="x" * (PRESSURE // 10 + 10_000)) for number in range(1, 11)))
    assert "rejected execution of coordinating operation" in str(caught.value)
    assert search.ids("audit") == []
    assert not send(output, event(1)).failed


def test_a_circuit_breaker_throttles(search: Search) -> None:
    limit = {"network.breaker.inflight_requests.limit": "50kb"}
    search.api("PUT", "/_cluster/settings", {"transient": limit})
    output = search.output(index="audit")
    with pytest.raises(Throttled) as caught:
        send(output, event(1, statement="x" * 100_000))
    assert "circuit_breaking_exception" in str(caught.value)
    assert not send(output, event(2)).failed


def test_a_server_that_is_killed_and_comes_back_has_every_event_once(search: Search) -> None:
    output = search.output(index="audit")
    send(output, event(1))
    search.server.kill()
    with pytest.raises((NotTried, Unknown)):
        send(output, event(1), event(2))
    with pytest.raises(NotTried):
        send(output, event(1), event(2))
    assert [check.ok for check in output.check()] == [False]
    search.server.start()
    assert list(send(output, event(1), event(2)).already_stored) == [0]
    assert search.ids("audit") == [event(1).id, event(2).id]


def test_of_several_hosts_another_is_used_where_one_fails(search: Search) -> None:
    dead, alive = Front(search.server.url), Front(search.server.url)
    try:
        output = search.output(index="audit", hosts=[dead.url, alive.url])
        for number in (1, 2):
            send(output, event(number))
        assert dead.seen
        assert alive.seen
        dead.stop()
        attempts = 0
        for number in range(3, 7):
            for _ in range(3):
                attempts += 1
                try:
                    send(output, event(number))
                    break
                except (NotTried, Unknown):
                    continue
        assert attempts <= 6  # the dead one is left alone for some seconds
        assert search.ids("audit") == [event(number).id for number in range(1, 7)]
    finally:
        dead.stop()
        alive.stop()


# -- what is checked -----------------------------------------------------------------------------------------------


def test_check_says_what_is_there_and_makes_nothing(search: Search) -> None:
    output = OpenSearchOutput(
        "search",
        OpenSearchSettings.model_validate({"type": "opensearch", "hosts": search.server.url, "index": "audit"}),
    )
    assert [(check.subject, check.ok) for check in output.check()] == [
        ("cluster", True),
        ("target", True),
        ("template", True),
    ]
    assert search.api.try_("HEAD", "/audit")[0] == 404
    assert search.api.try_("GET", "/_index_template/shipper-audit")[0] == 404


def test_check_asks_whether_an_index_can_be_written_to(search: Search) -> None:
    search.api("PUT", "/audit")
    output = search.output(index="audit")
    assert [(check.subject, check.ok) for check in output.check()] == [("cluster", True), ("write", True)]
    search.api("PUT", "/audit/_settings", {"index.blocks.write": True})
    (fault,) = [check for check in output.check() if not check.ok]
    assert "FORBIDDEN/8/index write" in fault.detail
    assert fault.mend
    search.api("PUT", "/audit/_settings", {"index.blocks.write": None})
    assert search.ids("audit") == []


def test_check_sees_that_something_else_answers(search: Search) -> None:
    front = Front(search.server.url)
    front.spoiled_path = ""
    try:
        output = search.output(index="audit", hosts=front.url)
        front.spoil = lambda request, forward: Answer(200, b"<html>It works!</html>", "text/html")
        (check,) = [check for check in output.check() if check.subject == "cluster"]
        assert not check.ok
        assert "no OpenSearch" in check.detail
    finally:
        front.stop()
