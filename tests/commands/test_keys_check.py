"""``shipper check --connect`` finds out whether the data keys of a source can be had."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.commands.keys_check import check_keys
from shipper.errors import Held
from shipper.output import Check
from shipper.settings import FileSourceSettings, KeysSettings, KinesisSettings
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms

STREAM = "aws-rds-das-cluster-ABC"
CONTEXT = {"aws:rds:dbc-id": "cluster-ABC"}


@pytest.fixture
def kinesis() -> Iterator[FakeKinesis]:
    with FakeKinesis() as server:
        server.create_stream(STREAM)
        yield server


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    with FakeKms() as server:
        yield server


def _envelope(blob: bytes) -> bytes:
    text = {"databaseActivityEvents": "AAAA", "key": b64encode(blob).decode()}
    return json.dumps({"type": "DatabaseActivityMonitoringRecords", "version": "1.1"} | text).encode()


def _check(kinesis: FakeKinesis, kms: FakeKms) -> list[Check]:
    region = kinesis.region
    keys = KeysSettings(region=region, endpoint_url=kms.endpoint_url)
    settings = KinesisSettings(stream=STREAM, region=region, endpoint_url=kinesis.endpoint_url, keys=keys)
    return list(check_keys("orders", settings))


def test_a_key_that_kms_unwraps_is_ok_whatever_stands_before_it(kinesis: FakeKinesis, kms: FakeKms) -> None:
    _, blob = kms.generate_data_key(kms.create_key(), CONTEXT)
    kinesis.put_many(STREAM, [b"not an envelope", _envelope(blob)])
    assert _check(kinesis, kms) == [
        Check("kms:Decrypt", True, "unwraps the data key of a record of cluster-ABC"),
    ]


def test_an_empty_stream_leaves_nothing_to_ask(kinesis: FakeKinesis, kms: FakeKms) -> None:
    assert _check(kinesis, kms) == [
        Check("kms:Decrypt", True, "not asked: the source has no encrypted record at present"),
    ]


def test_a_key_of_another_cluster_is_refused_with_what_to_mend(kinesis: FakeKinesis, kms: FakeKms) -> None:
    _, blob = kms.generate_data_key(kms.create_key(), {"aws:rds:dbc-id": "cluster-OTHER"})
    kinesis.put_many(STREAM, [_envelope(blob)])
    (check,) = _check(kinesis, kms)
    assert not check.ok
    assert check.mend.startswith("check resource_id")


def test_a_disabled_key_holds(kinesis: FakeKinesis, kms: FakeKms) -> None:
    key = kms.create_key()
    _, blob = kms.generate_data_key(key, CONTEXT)
    kms.disable_key(key)
    kinesis.put_many(STREAM, [_envelope(blob)])
    with pytest.raises(Held) as caught:
        _check(kinesis, kms)
    assert caught.value.reason == "key_disabled"


@pytest.mark.parametrize(
    ("content", "mode", "detail"),
    [
        (None, 0o600, "the keys file cannot be read: No such file or directory"),
        ("{}", 0o644, "others than its owner have access to the keys file"),
        ("[]", 0o600, "the keys file is not a JSON object of texts"),
    ],
)
def test_an_unusable_keys_file_is_a_bad_answer(tmp_path: Path, content: str | None, mode: int, detail: str) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    settings = FileSourceSettings(path="x", keys=KeysSettings(provider="static", path=path))
    (check,) = check_keys("offline", settings)
    assert (check.ok, check.detail) == (False, f"{path}: {detail}")


def test_a_usable_keys_file_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(0o600)
    settings = FileSourceSettings(path="x", keys=KeysSettings(provider="static", path=path))
    assert list(check_keys("offline", settings)) == [Check("keys file", True, str(path))]
