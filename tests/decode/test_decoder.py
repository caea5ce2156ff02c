"""What a record is told by its bytes, what ``decode`` restricts, and what every event carries of its origin."""

from __future__ import annotations

import json

import msgspec
import pytest

from shipper.decode import Decoded, Origin, Reason
from shipper.decode.decoder import DECODER_VERSION, Kind, RecordDecoder
from shipper.errors import Held
from shipper.generate.sealing import seal
from shipper.source import Record

KEY = bytes(32)
EVENT = {"command": "LOGON", "logTime": "2024-03-05 11:22:33.233787", "dbUserName": "APP", "serverType": "oracle"}
NATIVE = {
    "schema_version": 1,
    "id": "018e0e59d9919e0f62a43c06113c108f",
    "time": "2024-03-05T11:22:33.233787Z",
    "engine": "oracle",
    "user": "APP",
}


class Keys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        return KEY


def decode(data: bytes, kind: Kind = "auto", origin: Origin | None = None, max_bytes: int = 1 << 20) -> Decoded:
    decoder = RecordDecoder(origin or Origin("orders", "shard-1"), Keys(), kind, max_record_bytes=max_bytes)
    return decoder.decode(Record(1, data, 1_709_637_753_000_000_000), "42")


def record(*events: object, **wrapper: object) -> bytes:
    fields: dict[str, object] = {
        "type": "DatabaseActivityMonitoringRecord",
        "clusterId": "cluster-A",
        "instanceId": "db-B",
        **wrapper,
        "databaseActivityEventList": list(events),
    }
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


SHAPES = {
    "envelope": seal(record(EVENT), wrapping_key=KEY, key_blob=b"k"),
    "plain envelope": b'{"type":"DatabaseActivityMonitoringRecords","databaseActivityEvents":%s}' % record(EVENT),
    "record": record(EVENT),
    "event": json.dumps(EVENT).encode(),
    "native": json.dumps(NATIVE).encode(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_auto_reads_every_shape(shape: str) -> None:
    decoded = decode(SHAPES[shape])
    assert decoded.refused == []
    assert [event.user for event in decoded.events] == ["APP"]


@pytest.mark.parametrize(("kind", "left_out"), [("das", "native"), ("events", "envelope")])
def test_das_reads_all_but_native_events_and_events_all_that_is_not_encrypted(kind: Kind, left_out: str) -> None:
    for shape, data in SHAPES.items():
        found = decode(data, kind)
        if shape == left_out:
            assert found.events == []
            assert [(item.ordinal, item.reason) for item in found.refused] == [(None, Reason.SHAPE)]
        else:
            assert len(found.events) == 1, shape


@pytest.mark.parametrize(
    "text",
    [
        "DatabaseActivityMonitoringRecords",
        "DatabaseActivityMonitoringRecord",
        '"databaseActivityEventList":[',
        '{"databaseActivityEvents":',
        '"schema_version":1',
    ],
)
def test_a_value_that_speaks_of_another_shape_misleads_nobody(text: str) -> None:
    for kind in ("auto", "das"):
        decoded = decode(json.dumps({"clientApplication": text, **EVENT}).encode(), kind)
        assert decoded.refused == []
        assert decoded.events[0].client_application == text


def test_a_name_far_behind_decides_as_well_as_one_at_the_beginning() -> None:
    padding = {"a": "x" * 5000}
    late = json.dumps({**padding, "databaseActivityEventList": [EVENT]}).encode()
    assert len(decode(late).events) == 1
    late = json.dumps({**padding, **NATIVE}).encode()
    assert decode(late).events[0].id == NATIVE["id"]


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b'"text"',
        b"5",
        b"null",
        b'{"level":"info","message":"x"}',
        b'{"command":"x"}',
        b'{"type":"heartbeat2"}',
        b'{"type":"record"}',
        b'{"schema_version":2,"id":"x","time":"2024-03-05T11:22:33Z"}',
        b'{"schema_version":"1","id":"x","time":"2024-03-05T11:22:33Z"}',
    ],
)
def test_json_of_any_other_shape_is_refused_as_shape(data: bytes) -> None:
    decoded = decode(data)
    assert (decoded.events, decoded.raw, decoded.heartbeats) == ([], [], 0)
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, Reason.SHAPE)]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert len(decode(b"\xef\xbb\xbf" + SHAPES["record"]).events) == 1


def test_a_heartbeat_that_stands_alone_is_counted() -> None:
    decoded = decode(b' {"type": "heartbeat"}')
    assert (decoded.heartbeats, decoded.events, decoded.refused) == (1, [], [])


def test_a_heartbeat_with_other_fields_is_still_one() -> None:
    decoded = decode(record({"type": "heartbeat", "logTime": "x"}, {"type": "heartbeat", "beat": 5}, EVENT))
    assert decoded.heartbeats == 2
    assert len(decoded.events) == 1
    assert decoded.events[0].extra is None


def test_an_empty_list_is_a_record_without_events() -> None:
    decoded = decode(record())
    assert (decoded.events, decoded.refused, decoded.heartbeats) == ([], [], 0)
    assert decoded.instance == "db-B"


@pytest.mark.parametrize("missing", ["type", "clusterId", "instanceId"])
@pytest.mark.parametrize("how", [..., None])
def test_a_record_need_not_say_its_type_or_where_it_is_from(missing: str, how: object) -> None:
    decoded = decode(record(EVENT, **{missing: how}))
    assert decoded.refused == []
    assert len(decoded.events) == 1
    assert b"null" not in decoded.frame


@pytest.mark.parametrize(
    "wrapper",
    [{"type": "Other"}, {"type": 5}, {"clusterId": 5}, {"instanceId": ["db-B"]}],
)
def test_a_record_whose_own_fields_have_a_wrong_type_is_refused(wrapper: dict[str, object]) -> None:
    assert [item.reason for item in decode(record(EVENT, **wrapper)).refused] == [Reason.SHAPE]


@pytest.mark.parametrize("listed", [b"null", b'"[]"', b"{}", b"5"])
def test_a_list_of_events_that_is_none_is_refused(listed: bytes) -> None:
    assert [item.reason for item in decode(b'{"databaseActivityEventList":%s}' % listed).refused] == [Reason.SHAPE]


def test_unknown_fields_of_the_record_are_passed_over() -> None:
    assert len(decode(record(EVENT, accountId="1", more=[1])).events) == 1


def test_an_event_of_an_unknown_type_is_shipped_with_its_type_in_extra() -> None:
    event = decode(record({**EVENT, "type": "summary"})).events[0]
    assert event.extra == '{"type":"summary"}'


def test_the_empty_cluster_id_of_rds_is_absent_and_stays_in_the_frame() -> None:
    decoded = decode(record(EVENT, clusterId=""))
    assert decoded.events[0].cluster_id is None
    assert b'"clusterId":""' in decoded.frame


def test_every_event_carries_its_origin() -> None:
    origin = Origin(
        "orders",
        "shard-1",
        facts={"cluster": "orders-prod", "account": "111122223333", "region": "eu-west-1", "instance": ""},
        labels={"env": "prod"},
    )
    for shape in ("record", "native"):
        event = decode(SHAPES[shape], origin=origin).events[0]
        assert event.cluster == "orders-prod"
        assert event.account == "111122223333"
        assert event.region == "eu-west-1"
        assert event.instance is None
        assert event.labels == {"env": "prod"}
        assert (event.source_name, event.source_partition, event.source_position) == ("orders", "shard-1", "42")
        assert event.arrived == "2024-03-05T11:22:33.000000Z"


def test_the_events_of_one_record_do_not_share_what_belongs_to_one() -> None:
    first, second = decode(record({**EVENT, "logTime": "x"}, EVENT)).events
    assert first.tags == ["time_from_arrival"]
    assert second.tags is None
    assert second.extra is None


def test_equal_events_of_one_record_have_different_ids_the_first_that_of_a_lone_one() -> None:
    first, second, third = decode(record(EVENT, EVENT, EVENT)).events
    assert len({first.id, second.id, third.id}) == 3
    assert decode(record(EVENT)).events[0].id == first.id
    assert decode(record(EVENT, instanceId="db-C")).events[0].id != first.id


def test_the_configured_engine_stands_where_the_bytes_do_not_say() -> None:
    bare = {name: value for name, value in EVENT.items() if name != "serverType"}
    assert decode(json.dumps(bare).encode()).events[0].engine is None
    origin = Origin("orders", "shard-1", engine="sqlserver")
    assert decode(json.dumps(bare).encode(), origin=origin).events[0].engine == "sqlserver"
    assert decode(json.dumps(EVENT).encode(), origin=origin).events[0].engine == "oracle"


@pytest.mark.parametrize(
    ("values", "engine"),
    [
        ({"serverType": "ORACLE"}, "oracle"),
        ({"serverType": "PostgreSQL"}, "aurora-postgresql"),
        ({"serverType": "mysql"}, "aurora-mysql"),
        ({"serverType": "SqlServer"}, "sqlserver"),
        ({"serverType": "", "dbProtocol": "Postgres 3.0"}, "aurora-postgresql"),
        ({"serverType": None, "serviceName": "Amazon Aurora MySQL"}, "aurora-mysql"),
        ({"serverType": "DB2", "serviceName": "oracle-ee"}, "oracle"),
        ({"serverType": "DB2"}, None),
    ],
)
def test_the_engine_is_told_by_the_events_own_values(values: dict[str, object], engine: str | None) -> None:
    assert decode(json.dumps({**EVENT, **values}).encode()).events[0].engine == engine


def test_an_event_of_no_known_engine_has_no_known_outcome() -> None:
    event = decode(json.dumps({**EVENT, "serverType": "DB2", "exitCode": 0}).encode()).events[0]
    assert (event.engine, event.outcome, event.category, event.code) == (None, "unknown", "authentication", "0")


def test_a_record_larger_than_the_limit_is_refused_before_and_after_unpacking() -> None:
    large = record({**EVENT, "commandText": "x" * 5000})
    assert [item.reason for item in decode(large, max_bytes=1000).refused] == [Reason.TOO_LARGE]
    sealed = seal(large, wrapping_key=KEY, key_blob=b"k")
    assert len(sealed) < 2000
    assert [item.reason for item in decode(sealed, max_bytes=2000).refused] == [Reason.TOO_LARGE]


def test_held_keys_are_raised_because_the_data_is_fine() -> None:
    class Forbidden:
        def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
            raise Held("access_denied", "no kms:Decrypt")

    decoder = RecordDecoder(Origin("orders", "shard-1"), Forbidden())
    with pytest.raises(Held):
        decoder.decode(Record(1, SHAPES["envelope"], 0), "1")


def test_the_version_names_the_decoder_and_the_kind() -> None:
    assert RecordDecoder(Origin("s", "p"), Keys(), "das").version == f"{DECODER_VERSION}:das"


def test_decoding_is_a_function_of_the_record_alone() -> None:
    decoder = RecordDecoder(Origin("orders", "shard-1"), Keys())
    first = decoder.decode(Record(1, SHAPES["record"], 5), "1")
    decoder.decode(Record(2, record(EVENT, EVENT, instanceId="db-C"), 6), "2")
    decoder.decode(Record(3, SHAPES["event"], 0), "3")
    again = decoder.decode(Record(1, SHAPES["record"], 5), "1")
    assert msgspec.json.encode(again) == msgspec.json.encode(first)


def test_an_unknown_arrival_is_absent() -> None:
    decoder = RecordDecoder(Origin("orders", "shard-1"), Keys())
    decoder.decode(Record(1, SHAPES["event"], 5_000_000_000), "1")
    event = decoder.decode(Record(2, b'{"command":"SELECT","dbUserName":"x"}', 0), "2").events[0]
    assert event.arrived is None
    assert (event.time, event.tags) == ("1970-01-01T00:00:00.000000Z", ["time_from_arrival"])


AURORA = (
    b'{"logTime":"2024-03-05 11:22:33.233787+00","type":"record","command":"QUERY","class":"MAIN","serverType":"MySQL",'
    b'"commandText":"SELECT 1","startTime":"2024-03-05 11:22:33.233700+00","endTime":"2024-03-05 11:22:33.233788+00"%s}'
)


def test_sound_events_are_decoded_together_as_each_is_alone() -> None:
    decoder = RecordDecoder(Origin("orders", "shard-1", facts={"cluster_id": "cluster-A"}), Keys())
    several = [Record(number, AURORA % (b',"pid":%d' % number), number * 10**9) for number in range(5)]
    alone = [decoder.decode(one, str(one.position)) for one in several]
    events, raw = decoder.events(several, str)
    assert list(events) == [one.events[0] for one in alone]
    assert list(raw) == [one.raw[0] for one in alone]


@pytest.mark.parametrize(
    "other",
    [
        record(EVENT),
        b"garbage",
        AURORA % b',"unknown":1',
        AURORA % b',"remotePort":"none"',
        AURORA % b',"dbUserName":"\xff"',
        AURORA % b"\n",
        AURORA.replace(b'"record"', b'"heartbeat"') % b"",
        AURORA.replace(b"MySQL", b"Unheard-of") % b"",
        AURORA.replace(b'"QUERY"', b"null") % b"",
        (AURORA % b"")[:-1],
        AURORA % (b',"errorMessage":"%s"' % (b"x" * (1 << 20))),
    ],
)
def test_together_they_end_before_what_is_no_sound_event(other: bytes) -> None:
    decoder = RecordDecoder(Origin("orders", "shard-1"), Keys(), max_record_bytes=1 << 20)
    sound = Record(1, AURORA % b"", 0)
    before = decoder.decode(sound, "1")
    events, _raw = decoder.events([sound, Record(2, other, 0), sound], str)
    assert list(events) == before.events
    assert decoder.events([Record(2, other, 0)], str) == ([], [])
    assert decoder.decode(sound, "1") == before
