"""Clients from settings, and what botocore's errors mean to a person."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from shipper import __version__, aws
from shipper.errors import HELD_REASONS, Held
from shipper.settings import AwsSettings
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/s"


def client_error(
    code: str, operation: str = "GetRecords", status: int = 400, message: str = "words of AWS"
) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


def test_region_and_endpoint_come_from_the_settings() -> None:
    client = aws.client("kinesis", AwsSettings(region="eu-west-3", endpoint_url="http://127.0.0.1:9"))
    assert client.meta.region_name == "eu-west-3"
    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert f"shipper/{__version__}" in client.meta.config.user_agent
    client.close()


def test_a_table_of_endpoints_holds_for_its_services_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AwsSettings(region="eu-west-3", endpoint_url={"kinesis": "http://127.0.0.1:9"})
    for service, expected in (("kinesis", "http://127.0.0.1:9"), ("kms", "https://kms.eu-west-3.amazonaws.com")):
        client = aws.client(service, settings)
        assert client.meta.endpoint_url == expected
        client.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:8")
    client = aws.client("kms", settings)
    assert client.meta.endpoint_url == "http://127.0.0.1:8"
    client.close()


@pytest.mark.parametrize("variable", ["AWS_DEFAULT_REGION", "AWS_REGION"])
def test_the_region_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "ap-south-1")
    client = aws.client("kms", AwsSettings())
    assert client.meta.region_name == "ap-south-1"
    client.close()


def test_a_missing_region_is_held_for_credentials() -> None:
    with pytest.raises(Held, match="no AWS region is set; write region") as held:
        aws.client("kinesis", AwsSettings())
    assert held.value.reason == "credentials"


def test_missing_credentials_are_held_for_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Held, match="no AWS credentials were found; give the process a role") as held:
        aws.client("kinesis", AwsSettings(region="eu-west-1"))
    assert held.value.reason == "credentials"


def test_an_unknown_profile_is_held_for_credentials() -> None:
    with pytest.raises(Held, match="nobody") as held:
        aws.client("kinesis", AwsSettings(region="eu-west-1", profile="nobody"))
    assert held.value.reason == "credentials"


def test_an_impossible_region_is_held_instead_of_a_traceback() -> None:
    with pytest.raises(Held, match="eu west 1") as held:
        aws.client("kinesis", AwsSettings(region="eu west 1"))
    assert held.value.reason == "refused"


def test_a_role_is_assumed_with_its_external_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    class FakeSts(FakeKms):
        def answer(self, target: str, body: bytes) -> tuple[int, str, bytes]:
            from urllib.parse import parse_qsl

            asked.append(dict(parse_qsl(body.decode())))
            return (
                200,
                "text/xml",
                b'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
                b"<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
                b"<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>A:shipper"
                b"</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/reader/shipper</Arn></AssumedRoleUser>"
                b"</AssumeRoleResult></AssumeRoleResponse>",
            )

    with FakeSts() as sts, FakeKinesis() as kinesis:
        settings = AwsSettings(
            region="eu-west-1",
            role_arn="arn:aws:iam::123456789012:role/reader",
            external_id="e-1",
            endpoint_url={"sts": sts.endpoint_url, "kinesis": kinesis.endpoint_url},
        )
        client = aws.client("kinesis", settings)
        signed: list[str] = []
        client.meta.events.register(
            "before-send.kinesis.*", lambda request, **_: signed.append(request.headers["Authorization"].decode())
        )
        client.list_streams()
        client.list_streams()
        client.close()
    (request,) = asked
    assert request["Action"] == "AssumeRole"
    assert request["RoleArn"] == "arn:aws:iam::123456789012:role/reader"
    assert request["ExternalId"] == "e-1"
    assert all("Credential=ASIAROLE/" in header for header in signed)


@pytest.mark.parametrize(
    ("error", "reason", "mend"),
    [
        (
            client_error("AccessDeniedException"),
            "access_denied",
            '{"Effect": "Allow", "Action": ["kinesis:GetRecords"], "Resource": ["' + ARN + '"]}',
        ),
        (client_error("KMSAccessDeniedException"), "access_denied", '"kms:Decrypt"'),
        (client_error("AccessDenied", "AssumeRole", 403), "access_denied", "trust policy"),
        (client_error("ExpiredTokenException"), "credentials", "renew the credentials"),
        (client_error("UnrecognizedClientException"), "credentials", "check the profile"),
        (NoCredentialsError(), "credentials", "check the profile"),
        (client_error("ResourceNotFoundException"), "stream_not_found", "check name, region and account"),
        (client_error("DisabledException"), "key_disabled", "enable the KMS key"),
        (client_error("KMSNotFoundException"), "key_not_found", "KMS key"),
        (client_error("KMSInvalidStateException"), "key_unavailable", "cancel its deletion"),
        (client_error("ProvisionedThroughputExceededException"), "unreachable", "other readers use up the limit"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), "unreachable", "endpoint_url"),
        (client_error("InternalFailure", status=500), "unreachable", "endpoint_url"),
        (client_error("InvalidArgumentException"), "refused", "check the configuration"),
    ],
)
def test_an_error_becomes_its_reason_and_what_mends_it(error: Exception, reason: str, mend: str) -> None:
    held = aws.held(error, "source orders", "kinesis", resource=ARN, not_found="stream_not_found")
    assert held.reason == reason
    assert reason in HELD_REASONS
    assert held.detail.startswith("source orders: ")
    assert mend in held.mend


def test_the_words_of_aws_and_the_operation_are_kept() -> None:
    held = aws.held(client_error("InvalidArgumentException"), "source orders", "kinesis")
    assert held.detail == "source orders: GetRecords: InvalidArgumentException: words of AWS"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("ThrottlingException"), True),
        (client_error("KeyUnavailableException"), True),
        (client_error("Odd", status=503), True),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), True),
        (client_error("AccessDeniedException"), False),
        (client_error("InvalidCiphertextException"), False),
        (NoCredentialsError(), False),
    ],
)
def test_what_may_pass_is_told_from_what_may_not(error: Exception, expected: bool) -> None:
    assert aws.transient(error) is expected


def test_errors_are_those_that_a_call_raises() -> None:
    with FakeKms() as server:
        client = aws.client("kms", AwsSettings(region="eu-west-1", endpoint_url=server.endpoint_url))
        with pytest.raises(aws.errors()) as error:
            client.describe_key(KeyId="1234abcd-12ab-34cd-56ef-1234567890ab")
        assert aws.code(error.value) == "NotFoundException"
        client.close()
