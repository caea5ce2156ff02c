"""The sealer keeps a data key per instance, under the context of its stream, and changes it now and then."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime

import boto3
import pytest

from shipper.decode.das.compression import inflate
from shipper.decode.das.envelope import parse_envelope
from shipper.decode.das.message import decrypt_message
from shipper.errors import Held
from shipper.generate.activity import ENGINES, Generator, PlainRecord
from shipper.generate.sealer import DataKey, KmsDataKeys, LocalDataKeys, Sealer, encryption_context
from shipper.testing.kms import FakeKms

START = datetime(2024, 3, 5, 11, 22, 33, tzinfo=UTC)


class Keys:
    """Remembers what was asked for and given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given: dict[bytes, bytes] = {}
        self._local = LocalDataKeys(lambda key: self.given.update({key.blob: key.plain}))

    def new(self, resource_id: str) -> DataKey:
        self.asked.append(resource_id)
        return self._local.new(resource_id)


def generate(engine: str, events: int = 300) -> list[PlainRecord]:
    return list(Generator(engine, seed=3, start=START).records(events))


def unseal(sealed: bytes, keys: dict[bytes, bytes]) -> bytes:
    envelope = parse_envelope(sealed)
    assert envelope.message is not None
    body = decrypt_message(envelope.message, keys[envelope.key_blob], max_bytes=10**7)
    return inflate(body, max_bytes=10**7)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_sealed_records_open_to_the_plaintext_with_the_engines_version_and_suite(engine: str) -> None:
    keys = Keys()
    sealer = Sealer(keys)
    for record in generate(engine, 60):
        sealed = sealer.seal(record)
        assert unseal(sealed, keys.given) == record.plaintext
        fields = json.loads(sealed)
        assert fields["version"] == ENGINES[engine].version
        message = base64.b64decode(fields["databaseActivityEvents"])
        assert int.from_bytes(message[2:4]) == ENGINES[engine].suite
        assert (b'"key" : "' in sealed) == (engine == "aurora-mysql")


def frames(sealed: bytes) -> int:
    """The final frame's number; it stands behind the end mark, and again as its IV."""
    message = base64.b64decode(json.loads(sealed)["databaseActivityEvents"])
    found = re.findall(rb"\xff\xff\xff\xff(.{4})\x00{8}\1", message, re.DOTALL)
    return int.from_bytes(found[-1])


@pytest.mark.parametrize(("engine", "several"), [("aurora-postgresql", True), ("aurora-mysql", False)])
def test_long_records_have_several_frames_where_frames_are_short(engine: str, several: bool) -> None:
    sealer = Sealer(Keys())
    numbers = {frames(sealer.seal(record)) for record in generate(engine, 2_000)}
    assert 1 in numbers
    assert (max(numbers) > 1) == several


def test_every_instance_has_its_own_key_and_changes_it_after_some_records() -> None:
    keys = Keys()
    sealer = Sealer(keys, rotate_after=10)
    blobs: dict[str, list[str]] = {}
    for record in generate("aurora-postgresql", 800):
        blobs.setdefault(record.instance, []).append(json.loads(sealer.seal(record))["key"])
    assert len(blobs) == 3
    assert not set.intersection(*(set(one) for one in blobs.values()))
    for used in blobs.values():
        runs = [used[begin : begin + 10] for begin in range(0, len(used), 10)]
        assert all(len(set(run)) == 1 for run in runs)
        assert len(set(used)) == len(runs)


def test_local_blobs_look_like_those_of_kms() -> None:
    kept: list[DataKey] = []
    key = LocalDataKeys(kept.append).new("cluster-X")
    assert kept == [key]
    assert len(key.blob) == 184
    assert base64.b64encode(key.blob).startswith(b"AQIDAH")
    assert len(key.plain) == 32


def test_the_context_names_clusters_and_instances_differently() -> None:
    assert encryption_context("cluster-A") == {"aws:rds:dbc-id": "cluster-A"}
    assert encryption_context("db-A") == {"aws:rds:db-id": "db-A"}


def test_keys_are_asked_for_under_the_streams_resource_id() -> None:
    keys = Keys()
    record = generate("oracle")[0]
    Sealer(keys).seal(record)
    Sealer(keys, resource_id="cluster-OF-THE-STREAM").seal(record)
    assert keys.asked == [record.resource_id, "cluster-OF-THE-STREAM"]


def kms_client(server: FakeKms) -> object:
    return boto3.client(
        "kms",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def test_kms_makes_the_keys_and_unwraps_them_under_the_right_context_only() -> None:
    with FakeKms() as server:
        client = kms_client(server)
        key = KmsDataKeys(client, server.create_key()).new("cluster-A")  # type: ignore[arg-type]  # typed as object here
        reply = client.decrypt(CiphertextBlob=key.blob, EncryptionContext={"aws:rds:dbc-id": "cluster-A"})  # type: ignore[attr-defined]  # as above
        assert reply["Plaintext"] == key.plain
        with pytest.raises(Exception, match="InvalidCiphertext"):
            client.decrypt(CiphertextBlob=key.blob, EncryptionContext={"aws:rds:db-id": "cluster-A"})  # type: ignore[attr-defined]  # as above


def test_a_missing_kms_key_is_said_with_what_to_do() -> None:
    with FakeKms() as server, pytest.raises(Held) as caught:
        KmsDataKeys(kms_client(server), "alias/none").new("db-A")  # type: ignore[arg-type]  # typed as object here
    assert caught.value.reason == "key_not_found"
    assert "generate" in str(caught.value)
