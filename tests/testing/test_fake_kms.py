"""The embedded KMS, asked by boto3."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from shipper.testing.aws_json import ServiceError
from shipper.testing.kms import FakeKms

CONTEXT = {"aws:rds:dbc-id": "cluster-ABC"}


@pytest.fixture
def server() -> Iterator[FakeKms]:
    with FakeKms() as running:
        yield running


@pytest.fixture
def client(server: FakeKms) -> Iterator[Any]:
    made: Any = boto3.client(
        "kms",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield made
    made.close()


def refused(client: Any, blob: bytes, **more: Any) -> str:
    with pytest.raises(ClientError) as error:
        client.decrypt(CiphertextBlob=blob, **more)
    return str(error.value.response["Error"]["Code"])


def test_a_data_key_is_unwrapped_again(server: FakeKms, client: Any) -> None:
    key = client.create_key(Description="orders")["KeyMetadata"]
    made = client.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=CONTEXT)
    opened = client.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["Plaintext"]
    assert len(made["Plaintext"]) == 32
    assert opened["KeyId"] == key["Arn"]
    assert server.calls == {"CreateKey": 1, "GenerateDataKey": 1, "Decrypt": 1}


def test_blobs_look_like_those_of_aws(server: FakeKms) -> None:
    _, blob = server.generate_data_key(server.create_key(), CONTEXT)
    assert base64.b64encode(blob).startswith(b"AQIDAH")
    assert len(blob) == 184


@pytest.mark.parametrize(
    "context", [{}, {"aws:rds:dbc-id": "cluster-abc"}, {"aws:rds:db-id": "cluster-ABC"}, {**CONTEXT, "more": "x"}]
)
def test_another_encryption_context_is_refused(server: FakeKms, client: Any, context: dict[str, str]) -> None:
    _, blob = server.generate_data_key(server.create_key(), CONTEXT)
    assert refused(client, blob, EncryptionContext=context) == "InvalidCiphertextException"


def test_the_order_of_the_context_does_not_matter(server: FakeKms) -> None:
    blob = server.encrypt(server.create_key(), b"x", {"a": "1", "b": "2"})
    assert server.decrypt(blob, {"b": "2", "a": "1"}) == b"x"


def test_damage_anywhere_is_refused(server: FakeKms) -> None:
    _, blob = server.generate_data_key(server.create_key(), CONTEXT)
    for at in range(len(blob)):
        damaged = bytearray(blob)
        damaged[at] ^= 1
        with pytest.raises(ServiceError) as error:
            server.decrypt(bytes(damaged), CONTEXT)
        # Where the damage hits what names the key, AWS says that there is no such key for us.
        assert error.value.code in {"InvalidCiphertextException", "AccessDeniedException"}
    for length in (1, 5, 54, 58, 100, 183):
        with pytest.raises(ServiceError, match=r"^$"):
            server.decrypt(blob[:length], CONTEXT)


@pytest.mark.parametrize("size", [1, 100, 200, 4096])
def test_plaintexts_of_any_size_come_back(server: FakeKms, client: Any, size: int) -> None:
    key = server.create_key()
    blob = client.encrypt(KeyId=key, Plaintext=b"z" * size)["CiphertextBlob"]
    assert client.decrypt(CiphertextBlob=blob)["Plaintext"] == b"z" * size


def test_a_disabled_key_opens_nothing_until_it_is_enabled(server: FakeKms, client: Any) -> None:
    key = server.create_key()
    _, blob = server.generate_data_key(key)
    client.disable_key(KeyId=key)
    assert refused(client, blob) == "DisabledException"
    assert client.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    with pytest.raises(ClientError, match="is disabled"):
        client.generate_data_key(KeyId=key, KeySpec="AES_256")
    client.enable_key(KeyId=key)
    client.decrypt(CiphertextBlob=blob)


def test_a_key_pending_deletion_opens_nothing(server: FakeKms, client: Any) -> None:
    key = server.create_key()
    _, blob = server.generate_data_key(key)
    assert client.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["KeyState"] == "PendingDeletion"
    assert refused(client, blob) == "KMSInvalidStateException"
    client.cancel_key_deletion(KeyId=key)
    assert refused(client, blob) == "DisabledException"


def test_a_foreign_blob_and_a_foreign_key_are_refused(server: FakeKms, client: Any) -> None:
    key = server.create_key()
    with FakeKms() as other:
        _, foreign = other.generate_data_key(other.create_key())
    assert refused(client, foreign) == "AccessDeniedException"
    _, blob = server.generate_data_key(key)
    assert refused(client, blob, KeyId=server.create_key()) == "IncorrectKeyException"
    client.decrypt(CiphertextBlob=blob, KeyId=key)


def test_an_unknown_key_is_not_found(client: Any) -> None:
    with pytest.raises(ClientError) as error:
        client.describe_key(KeyId="1234abcd-12ab-34cd-56ef-1234567890ab")
    assert error.value.response["Error"]["Code"] == "NotFoundException"


def test_permission_and_throttling_are_refused_in_the_words_of_aws(server: FakeKms, client: Any) -> None:
    _, blob = server.generate_data_key(server.create_key())
    server.throttle("Decrypt", 1)
    server.deny("Decrypt", 1)
    assert refused(client, blob) == "ThrottlingException"
    assert refused(client, blob) == "AccessDeniedException"
    client.decrypt(CiphertextBlob=blob)


def test_a_paused_call_is_counted_and_answered_when_the_pause_ends(server: FakeKms, client: Any) -> None:
    _, blob = server.generate_data_key(server.create_key())
    opened: list[bytes] = []
    with server.paused("Decrypt"):
        thread = threading.Thread(target=lambda: opened.append(client.decrypt(CiphertextBlob=blob)["Plaintext"]))
        thread.start()
        server.wait_for("Decrypt")
        assert opened == []
    thread.join(10)
    assert len(opened) == 1


def test_latency_delays_every_answer_until_it_is_mended(server: FakeKms, client: Any) -> None:
    _, blob = server.generate_data_key(server.create_key())
    server.latency("Decrypt", 0.05)
    began = time.monotonic()
    client.decrypt(CiphertextBlob=blob)
    assert time.monotonic() - began >= 0.05
    server.mend()
    assert server._latency == {}


def test_waiting_for_calls_that_do_not_come_ends(server: FakeKms) -> None:
    with pytest.raises(TimeoutError, match="0 times"):
        server.wait_for("Decrypt", timeout=0.01)
