"""``shipper generate`` writes records that open with the keys it leaves, to a file or to a stream."""

from __future__ import annotations

import json
import re
import shlex
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import click
import pytest
from click.testing import CliRunner, Result

from shipper.commands.generate import command
from shipper.decode.das.compression import inflate
from shipper.decode.das.envelope import parse_envelope
from shipper.decode.das.keys import KeysFile
from shipper.decode.das.message import decrypt_message
from shipper.errors import Held, ShipperError
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms

STREAM = "aws-rds-das-cluster-AAAABBBBCCCCDDDDEEEEFFFF22"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def opened(data: bytes, key: bytes) -> dict[str, Any]:
    message = parse_envelope(data).message
    assert message is not None
    body = inflate(decrypt_message(message, key, max_bytes=10**7), max_bytes=10**7)
    record: dict[str, Any] = json.loads(body)
    return record


def opened_file(path: Path, keys: Path) -> list[dict[str, Any]]:
    resolver = KeysFile(keys)
    return [
        opened(line, resolver.data_key(parse_envelope(line).key_blob, None)) for line in path.read_bytes().splitlines()
    ]


def events_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for one in records for event in one["databaseActivityEventList"] if event["type"] == "record"]


@pytest.fixture
def out(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "records.jsonl", tmp_path / "keys.json"


def test_a_file_holds_every_engine_and_opens_with_its_keys(out: tuple[Path, Path]) -> None:
    file, keys = out
    result = run("--engine", "all", "--events", 402, "--file", file, "--keys", keys, "--seed", 1)
    assert result.exit_code == 0
    assert result.stdout.startswith("402 events in ")
    assert result.stdout.count("\n") == 1
    events = events_of(opened_file(file, keys))
    counted = Counter(event["serverType"] for event in events)
    assert counted == {"PostgreSQL": 101, "MySQL": 101, "oracle": 100, "SQLSERVER": 100}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600


def test_the_same_seed_makes_the_same_activity(out: tuple[Path, Path]) -> None:
    file, keys = out
    for seed in (1, 1, 2):
        run("--engine", "oracle", "--events", 50, "--file", file, "--keys", keys, "--seed", seed)
    texts = [(event["command"], event["commandText"]) for event in events_of(opened_file(file, keys))]
    assert texts[:50] == texts[50:100]
    assert texts[:50] != texts[100:]


def test_unpaced_activity_lies_in_the_past_just_gone(out: tuple[Path, Path]) -> None:
    file, keys = out
    begun = datetime.now(UTC)
    run("--engine", "oracle", "--events", 1_000, "--file", file, "--keys", keys)
    first, *_, last = (
        datetime.strptime(event["logTime"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        for event in events_of(opened_file(file, keys))
    )
    # A thousand events at 200 a second of their own time, which is random, take five seconds.
    assert first < begun - timedelta(seconds=3)
    assert last < datetime.now(UTC) + timedelta(seconds=2)


def test_events_per_record_and_instances_are_kept_to(out: tuple[Path, Path]) -> None:
    file, keys = out
    run("--engine", "aurora-postgresql", "--events", 60, "--events-per-record", 1, "--instances", 2, "--rate", 1e6,
        "--file", file, "--keys", keys)  # fmt: skip
    records = opened_file(file, keys)
    assert [len(one["databaseActivityEventList"]) for one in records] == [1] * len(records)
    assert len({one["instanceId"] for one in records}) == 2
    assert len(events_of(records)) == 60


def test_a_dash_writes_records_alone_to_standard_output(out: tuple[Path, Path]) -> None:
    result = run("--engine", "sqlserver", "--events", 30, "--file", "-", "--keys", out[1])
    lines = result.stdout_bytes.splitlines()
    assert len(lines) >= 3
    assert all(json.loads(line)["version"] == "1.4" for line in lines)
    assert "30 events" in result.stderr


def test_a_second_run_adds_to_file_and_keys(out: tuple[Path, Path]) -> None:
    file, keys = out
    for _ in range(2):
        run("--engine", "oracle", "--events", 20, "--file", file, "--keys", keys)
    assert len(events_of(opened_file(file, keys))) == 40


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Any:
    with FakeKinesis() as kinesis, FakeKms() as kms:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.endpoint_url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.endpoint_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield kinesis, kms


def test_a_stream_gets_records_whose_keys_kms_unwraps_for_its_cluster(servers: tuple[FakeKinesis, FakeKms]) -> None:
    kinesis, kms = servers
    kinesis.create_stream(STREAM, shards=4)
    key = kms.create_key()
    result = run(
        "--engine", "aurora-mysql", "--events", 300, "--stream", STREAM, "--kms-key", key, "-r", kinesis.region
    )
    assert "300 events" in result.stdout
    assert STREAM in result.stdout
    resource_id = STREAM.removeprefix("aws-rds-das-")
    client = boto3.client("kms", region_name=kms.region)
    reader = boto3.client("kinesis", region_name=kinesis.region)
    records = []
    shards = reader.list_shards(StreamName=STREAM)["Shards"]
    for shard in shards:
        iterator = reader.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        got = reader.get_records(ShardIterator=iterator)["Records"]
        assert got, "random partition keys reach every shard"
        for one in got:
            blob = parse_envelope(one["Data"]).key_blob
            plain = client.decrypt(CiphertextBlob=blob, EncryptionContext={"aws:rds:dbc-id": resource_id})["Plaintext"]
            records.append(opened(one["Data"], plain))
    assert len(events_of(records)) == 300
    assert {one["clusterId"] for one in records} == {resource_id}


def test_engines_mixed_on_one_stream_use_the_context_of_the_stream(servers: tuple[FakeKinesis, FakeKms]) -> None:
    kinesis, kms = servers
    kinesis.create_stream(STREAM)
    run("--engine", "all", "--events", 40, "--stream", STREAM, "--kms-key", kms.create_key(), "-r", kinesis.region)
    reader = boto3.client("kinesis", region_name=kinesis.region)
    client = boto3.client("kms", region_name=kms.region)
    shard = reader.list_shards(StreamName=STREAM)["Shards"][0]["ShardId"]
    iterator = reader.get_shard_iterator(StreamName=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    engines = set()
    for one in reader.get_records(ShardIterator=iterator["ShardIterator"])["Records"]:
        blob = parse_envelope(one["Data"]).key_blob
        context = {"aws:rds:dbc-id": STREAM.removeprefix("aws-rds-das-")}
        opened(one["Data"], client.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"])
        engines.add(json.loads(one["Data"])["version"])
    assert engines == {"1.1", "1.2", "1.3", "1.4"}


def test_a_stream_that_is_not_there_is_said(servers: tuple[FakeKinesis, FakeKms], out: tuple[Path, Path]) -> None:
    with pytest.raises(Held) as caught:
        run("--engine", "oracle", "--events", 5, "--stream", "none", "--keys", out[1], "-r", servers[0].region)
    assert caught.value.reason == "stream_not_found"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--engine oracle --events 1 --keys K", "--stream or --file"),
        ("--engine oracle --events 1 --file F --stream S --keys K", "--stream or --file"),
        ("--engine oracle --events 1 --file F", "--kms-key or --keys"),
        ("--engine oracle --events 1 --file F --keys K --kms-key X", "--kms-key or --keys"),
        ("--engine oracle --events 0 --file F --keys K", "--events"),
        ("--engine oracle --events 1 --rate 0 --file F --keys K", "--rate"),
        ("--engine mongodb --events 1 --file F --keys K", "--engine"),
        ("--engine oracle --events 1 --instances 2 --file F --keys K", "has one"),
        ("--engine oracle --events 1 --resource-id cluster-X --file F --keys K", "begin with 'db-'"),
        ("--events 1 --file F --keys K", "--engine"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(
    arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*shlex.split(arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ShipperError, match="cannot be written"):
        run("--engine", "oracle", "--events", 5, "--file", tmp_path / "none" / "f", "--keys", tmp_path / "k")


def test_the_first_example_of_the_help_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = re.search(r"shipper generate (.*--file.*)", click.Context(command).get_help())
    assert shown is not None
    assert run(*shlex.split(shown[1])).exit_code == 0
    assert len(events_of(opened_file(tmp_path / "records.jsonl", tmp_path / "keys.json"))) == 1_000


def test_the_manual_names_every_option() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "generate.md").read_text()
    options = {name for parameter in command.params for name in parameter.opts}
    assert {name for name in options if f"`{name}" not in manual} == set()
    assert "shipper generate --engine all --events 1000 --file records.jsonl --keys keys.json" in manual
