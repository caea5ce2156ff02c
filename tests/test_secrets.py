"""Secrets are read when they are needed, renewed in time, and shown to nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from shipper.errors import HELD_REASONS, Held
from shipper.secrets import MAX_FILE_BYTES, RETRY_AFTER, Secret, SecretReader, secrets_in
from shipper.settings import AwsSettings, EventSettings, NetworkSettings, TlsSettings

EVERY = 300.0


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("reading secrets waits for nothing")


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.fixture
def reader(tmp_path: Path, clock: Time) -> SecretReader:
    def client(service: str, settings: AwsSettings) -> Any:
        return boto3.client(service, region_name=settings.region)  # type: ignore[call-overload]  # a literal for it

    return SecretReader(tmp_path, EVERY, AwsSettings(region="eu-west-1"), client=client, clock=clock)


def _secret(reference: str, reader: SecretReader) -> Secret:
    secret = Secret(reference)
    secret.bind(reader, "outputs.siem.token")
    return secret


def _held(secret: Secret) -> Held:
    with pytest.raises(Held) as caught:
        secret.reveal()
    assert caught.value.reason in HELD_REASONS
    return caught.value


@pytest.mark.parametrize("text", ["plain", "${NOT} replaced", "ssh:x", "File:x", "https://x", "aws:sm"])
def test_what_is_no_reference_is_the_secret_itself(text: str) -> None:
    assert Secret(text).reveal() == text
    assert Secret(text).kind == "text"


@pytest.mark.parametrize("reference", ["plain text", "file:/run/token", "aws-sm:name#key", "aws-ssm:/name"])
def test_a_secret_never_shows_itself(reference: str) -> None:
    secret = Secret(reference)
    settings = EventSettings(id_key=secret)
    shown = f"{secret} {secret!r} {settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert reference not in shown
    assert reference.partition(":")[2] not in shown or not reference.partition(":")[2]


# Files


@pytest.mark.parametrize(
    ("content", "secret"), [(b"abc", "abc"), (b"abc\n", "abc"), (b"abc\r\n", "abc"), (b" abc\n\n", " abc\n")]
)
def test_a_file_is_read_beside_the_first_configuration_file_without_its_last_line_end(
    tmp_path: Path, reader: SecretReader, content: bytes, secret: str
) -> None:
    (tmp_path / "token").write_bytes(content)
    assert _secret("file:token", reader).reveal() == secret
    assert _secret(f"file:{tmp_path / 'token'}", reader).reveal() == secret


def test_a_file_is_read_again_when_it_is_due_and_not_before(tmp_path: Path, reader: SecretReader, clock: Time) -> None:
    (tmp_path / "token").write_text("old")
    secret = _secret("file:token", reader)
    assert secret.reveal() == "old"
    (tmp_path / "token").write_text("new")
    clock.seconds = EVERY - 1
    assert secret.reveal() == "old"
    clock.seconds = EVERY
    assert secret.reveal() == "new"


def test_a_refused_secret_is_read_again_at_once(tmp_path: Path, reader: SecretReader) -> None:
    (tmp_path / "token").write_text("old")
    secret = _secret("file:token", reader)
    assert secret.reveal() == "old"
    (tmp_path / "token").write_text("new")
    secret.refresh()
    assert secret.reveal() == "new"


def test_all_secrets_are_read_again_after_a_refresh_of_the_reader(tmp_path: Path, reader: SecretReader) -> None:
    (tmp_path / "token").write_text("old")
    assert _secret("file:token", reader).reveal() == "old"
    (tmp_path / "token").write_text("new")
    reader.refresh()
    assert _secret("file:token", reader).reveal() == "new"


def test_a_value_that_cannot_be_renewed_stays_in_use_and_the_log_says_so(
    tmp_path: Path, reader: SecretReader, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    secret = _secret("file:token", reader)
    assert secret.reveal() == "old"
    token.unlink()
    clock.seconds = EVERY
    assert secret.reveal() == "old"
    assert secret.reveal() == "old"
    assert [record.message.partition(":")[0] for record in caplog.records] == ["outputs.siem.token"]
    assert "the value read before stays in use" in caplog.text
    token.write_text("new")
    clock.seconds += RETRY_AFTER
    assert secret.reveal() == "new"


def test_after_a_refresh_a_file_that_is_gone_holds(tmp_path: Path, reader: SecretReader) -> None:
    (tmp_path / "token").write_text("old")
    secret = _secret("file:token", reader)
    secret.reveal()
    (tmp_path / "token").unlink()
    secret.refresh()
    assert _held(secret).reason == "credentials"


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "outputs.siem.token: its file cannot be read: No such file or directory"),
        (b"", "outputs.siem.token: its file is empty"),
        (b"\n", "outputs.siem.token: its file is empty"),
        (b"\xff\xfe", "outputs.siem.token: its file is not UTF-8 text"),
        (b"x" * (MAX_FILE_BYTES + 1), f"outputs.siem.token: its file is larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_an_unusable_file_holds_and_is_not_named(
    tmp_path: Path, reader: SecretReader, content: bytes | None, detail: str
) -> None:
    if content is not None:
        (tmp_path / "hunter2").write_bytes(content)
    held = _held(_secret("file:hunter2", reader))
    assert (held.reason, held.detail) == ("credentials", detail)
    assert held.mend
    assert "hunter2" not in str(held)


def test_a_folder_is_no_secret(tmp_path: Path, reader: SecretReader) -> None:
    assert "Is a directory" in _held(_secret(f"file:{tmp_path}", reader)).detail


# AWS


@pytest.mark.usefixtures("aws")
def test_secrets_manager_gives_the_text_or_one_key_of_its_json(reader: SecretReader) -> None:
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    arn = client.create_secret(Name="plain", SecretString="text")["ARN"]
    client.create_secret(Name="json", SecretString=json.dumps({"token": "abc", "n": 5, "deep": {}, "yes": True}))
    client.create_secret(Name="binary", SecretBinary=b"bytes")
    assert _secret("aws-sm:plain", reader).reveal() == "text"
    assert _secret(f"aws-sm:{arn}", reader).reveal() == "text"
    assert _secret("aws-sm:json#token", reader).reveal() == "abc"
    assert _secret("aws-sm:json#n", reader).reveal() == "5"
    assert _secret("aws-sm:binary", reader).reveal() == "bytes"
    for key in ("deep", "yes"):
        assert "has something else than text" in _held(_secret(f"aws-sm:json#{key}", reader)).detail
    assert "has no such key" in _held(_secret("aws-sm:json#other", reader)).detail
    assert "is not JSON" in _held(_secret("aws-sm:plain#token", reader)).detail


@pytest.mark.usefixtures("aws")
def test_the_parameter_store_gives_decrypted_text(reader: SecretReader) -> None:
    client = boto3.client("ssm", region_name="eu-west-1")
    client.put_parameter(Name="/siem/token", Value="abc", Type="SecureString")
    assert _secret("aws-ssm:/siem/token", reader).reveal() == "abc"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("reference", ["aws-sm:hunter2", "aws-ssm:/hunter2"])
def test_what_does_not_exist_holds_and_is_not_named(reader: SecretReader, reference: str) -> None:
    held = _held(_secret(reference, reader))
    assert held.reason == "target_not_found"
    assert held.detail.startswith("outputs.siem.token: its ")
    assert "hunter2" not in str(held)


def test_a_client_that_cannot_be_made_holds_with_its_reason(tmp_path: Path) -> None:
    def client(service: str, settings: AwsSettings) -> Any:
        raise Held("credentials", f"{service}: no AWS region is set", "set AWS_REGION")

    reader = SecretReader(tmp_path, EVERY, AwsSettings(), client=client)
    held = _held(_secret("aws-sm:x", reader))
    assert (held.reason, held.mend) == ("credentials", "set AWS_REGION")
    assert held.detail == "outputs.siem.token: secretsmanager: no AWS region is set"


def test_one_reference_is_read_once_by_threads_that_ask_together(tmp_path: Path) -> None:
    calls: list[str] = []
    together = threading.Barrier(4)
    second_reader = threading.Event()

    class Store:
        def get_parameter(self, *, Name: str, WithDecryption: bool) -> Any:  # boto3's names
            calls.append(Name)
            if len(calls) > 1:
                second_reader.set()
            second_reader.wait(0.3)  # what must not happen gets its chance
            return {"Parameter": {"Value": "abc"}}

    reader = SecretReader(tmp_path, EVERY, AwsSettings(), client=lambda service, settings: Store())

    def ask() -> None:
        together.wait(10)
        _secret("aws-ssm:/x", reader).reveal()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert calls == ["/x"]


def test_every_secret_of_a_table_is_found_with_its_key_path() -> None:
    settings = NetworkSettings(type="x", tls=TlsSettings(key_password=Secret("p")))
    assert list(secrets_in(settings, "outputs.siem")) == [("outputs.siem.tls.key_password", Secret("p"))]
