"""Keys are asked for once, remembered within bounds, and every error of KMS means one thing for the records."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws

from shipper.decode import Reason, Undecodable
from shipper.decode.das.keys import REFUSAL_TTL, DataKeys, KeysFile, KmsUnwrap
from shipper.errors import HELD_REASONS, ConfigurationError, Held

KEY = bytes(range(32))
BLOB = b"\x01\x02\x02\x00x" + bytes(179)
CLUSTER = "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INSTANCE = "db-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DBC, DB = "aws:rds:dbc-id", "aws:rds:db-id"


class Clock:
    """Time that tests move."""

    seconds = 100.0

    def now(self) -> float:
        raise AssertionError("durations are measured with monotonic time")

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("nothing waits here")


class Unwrap:
    """Answers from a script, one entry per request; the last one stays."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[bytes, str | None]] = []

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        self.asked.append((blob, resource_id))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def cache(unwrap: Any, max_entries: int = 100, ttl: float = 600.0) -> tuple[DataKeys, Clock]:
    clock = Clock()
    return DataKeys(unwrap, max_entries=max_entries, ttl=ttl, clock=clock), clock


class TestCache:
    def test_a_key_is_asked_for_once_per_blob_and_resource(self) -> None:
        unwrap = Unwrap(KEY)
        keys, _ = cache(unwrap)
        for _ in range(3):
            assert keys.data_key(BLOB, CLUSTER) == KEY
        keys.data_key(BLOB, INSTANCE)
        keys.data_key(b"other", CLUSTER)
        assert unwrap.asked == [(BLOB, CLUSTER), (BLOB, INSTANCE), (b"other", CLUSTER)]
        assert (keys.hits, keys.misses) == (2, 3)

    def test_a_key_is_asked_for_again_when_its_time_is_over(self) -> None:
        unwrap = Unwrap(KEY, Held("access_denied", "no longer"))
        keys, clock = cache(unwrap, ttl=60)
        keys.data_key(BLOB, CLUSTER)
        clock.seconds += 59.9
        keys.data_key(BLOB, CLUSTER)
        assert len(unwrap.asked) == 1
        clock.seconds += 0.1  # also where it was used in between
        with pytest.raises(Held):
            keys.data_key(BLOB, CLUSTER)

    def test_the_least_recently_used_key_goes_first(self) -> None:
        unwrap = Unwrap(KEY)
        keys, _ = cache(unwrap, max_entries=2)
        for blob in (b"a", b"b", b"a", b"c", b"a", b"b"):
            keys.data_key(blob, CLUSTER)
        assert [blob for blob, _ in unwrap.asked] == [b"a", b"b", b"c", b"b"]

    @pytest.mark.parametrize(
        "refusal", [Held("access_denied", "detail", "mend"), Undecodable(Reason.KEY_REFUSED, "detail")]
    )
    def test_a_refusal_is_remembered_for_seconds(self, refusal: Exception) -> None:
        unwrap = Unwrap(refusal, KEY)
        keys, clock = cache(unwrap)
        caught = []
        for _ in range(5):
            with pytest.raises(type(refusal)) as error:
                keys.data_key(BLOB, CLUSTER)
            caught.append(error.value)
        assert len(unwrap.asked) == 1
        assert {str(error) for error in caught} == {str(refusal)}
        assert len({id(error) for error in caught}) == 5
        clock.seconds += REFUSAL_TTL
        assert keys.data_key(BLOB, CLUSTER) == KEY

    def test_an_unexpected_error_is_not_remembered(self) -> None:
        unwrap = Unwrap(ZeroDivisionError(), KEY)
        keys, _ = cache(unwrap)
        with pytest.raises(ZeroDivisionError):
            keys.data_key(BLOB, CLUSTER)
        assert keys.data_key(BLOB, CLUSTER) == KEY


class Slow:
    """Holds every request until the test lets it go."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.arrived = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        self.asked.append(blob)
        self.arrived.release()
        assert self.go.acquire(timeout=10)
        return self.answer(blob)


def _fail(error: Exception) -> bytes:
    raise error


class TestThreads:
    THREADS = 8

    def ask(self, threads: ThreadPoolExecutor, keys: DataKeys, blobs: list[bytes]) -> list[Any]:
        barrier = threading.Barrier(len(blobs))

        def one(blob: bytes) -> bytes:
            barrier.wait(10)
            return keys.data_key(blob, CLUSTER)

        return [threads.submit(one, blob) for blob in blobs]

    def test_threads_that_miss_one_key_make_one_request(self) -> None:
        slow = Slow(lambda blob: KEY)
        keys, _ = cache(slow)
        with ThreadPoolExecutor(self.THREADS) as threads:
            futures = self.ask(threads, keys, [BLOB] * self.THREADS)
            assert slow.arrived.acquire(timeout=10)
            assert not slow.arrived.acquire(timeout=0.05)  # nobody else asks meanwhile
            slow.go.release()
            assert [future.result(10) for future in futures] == [KEY] * self.THREADS
        assert slow.asked == [BLOB]
        assert (keys.hits, keys.misses) == (self.THREADS - 1, 1)

    def test_threads_that_miss_different_keys_do_not_wait_for_each_other(self) -> None:
        slow = Slow(lambda blob: blob)
        keys, _ = cache(slow)
        blobs = [bytes([number]) for number in range(self.THREADS)]
        with ThreadPoolExecutor(self.THREADS) as threads:
            futures = self.ask(threads, keys, blobs)
            for _ in blobs:
                assert slow.arrived.acquire(timeout=10)  # all are under way before the first one is answered
            slow.go.release(len(blobs))
            assert [future.result(10) for future in futures] == blobs

    def test_all_that_waited_get_the_refusal(self) -> None:
        slow = Slow(lambda blob: _fail(Held("key_disabled", "disabled")))
        keys, _ = cache(slow)
        with ThreadPoolExecutor(self.THREADS) as threads:
            futures = self.ask(threads, keys, [BLOB] * self.THREADS)
            assert slow.arrived.acquire(timeout=10)
            slow.go.release()
            assert {type(future.exception(10)) for future in futures} == {Held}
        assert slow.asked == [BLOB]

    def test_after_an_unexpected_error_the_next_one_asks(self) -> None:
        outcomes: list[Callable[[], bytes]] = [lambda: _fail(ZeroDivisionError()), lambda: KEY]
        slow = Slow(lambda blob: outcomes.pop(0)())
        keys, _ = cache(slow)
        with ThreadPoolExecutor(self.THREADS) as threads:
            futures = self.ask(threads, keys, [BLOB] * self.THREADS)
            slow.go.release(2)
            errors = [future.exception(10) for future in futures]
        assert [type(error) for error in errors if error] == [ZeroDivisionError]
        assert len(slow.asked) == 2


class KmsStub:
    """A boto3 KMS client that answers from a script by encryption context; ``default`` answers the rest."""

    def __init__(self, script: list[Exception] | None = None, /, **by_context: Any) -> None:
        self.script = script or []
        self.by_context = by_context
        self.asked: list[dict[str, str]] = []

    def decrypt(self, *, CiphertextBlob: bytes, EncryptionContext: dict[str, str]) -> dict[str, Any]:
        assert CiphertextBlob == BLOB
        self.asked.append(EncryptionContext)
        ((context, _),) = EncryptionContext.items()
        answer = self.script.pop(0) if self.script else self.by_context.get(context[8:].replace("-", "_"), KEY)
        if isinstance(answer, Exception):
            raise answer
        return {"Plaintext": answer, "KeyId": "key", "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


def client_error(code: str, status: int = 400, operation: str = "Decrypt") -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "words of the service"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, operation)


INVALID = client_error("InvalidCiphertextException")
PASSING = [
    client_error("ThrottlingException"),
    client_error("KeyUnavailableException", 500),
    client_error("DependencyTimeoutException", 503),
    client_error("KMSInternalException", 500),
    client_error("LimitExceededException"),
    client_error("", 502),
    botocore.exceptions.EndpointConnectionError(endpoint_url="https://kms"),
    botocore.exceptions.ConnectTimeoutError(endpoint_url="https://kms"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="https://kms"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="https://kms"),
]


def kms(stub: KmsStub) -> tuple[KmsUnwrap, list[float]]:
    waits: list[float] = []
    return KmsUnwrap(cast("Any", stub), sleep=waits.append), waits


class TestKms:
    @pytest.mark.parametrize(("resource", "context"), [(CLUSTER, DBC), (INSTANCE, DB), ("ABC", DBC)])
    def test_the_resource_id_decides_the_encryption_context(self, resource: str, context: str) -> None:
        stub = KmsStub()
        unwrap, _ = kms(stub)
        assert unwrap.unwrap(BLOB, resource) == KEY
        assert stub.asked == [{context: resource}]
        assert unwrap.requests == {"ok": 1, "refused": 0, "held": 0, "unavailable": 0}

    @pytest.mark.parametrize(("resource", "order"), [(CLUSTER, [DBC, DB]), (INSTANCE, [DB, DBC]), ("X", [DBC, DB])])
    def test_the_other_context_is_tried_once(self, resource: str, order: list[str]) -> None:
        stub = KmsStub([INVALID])
        unwrap, _ = kms(stub)
        assert unwrap.unwrap(BLOB, resource) == KEY
        assert stub.asked == [{context: resource} for context in order]

    @pytest.mark.parametrize("code", ["InvalidCiphertextException", "ValidationException"])
    def test_a_blob_that_fits_neither_context_is_refused(self, code: str) -> None:
        stub = KmsStub(dbc_id=client_error(code), db_id=client_error(code))
        unwrap, waits = kms(stub)
        with pytest.raises(Undecodable) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert caught.value.reason == Reason.KEY_REFUSED
        assert (len(stub.asked), waits, unwrap.requests["refused"]) == (2, [], 2)

    def test_a_policy_that_forbids_the_other_context_does_not_hold_the_source(self) -> None:
        unwrap, _ = kms(KmsStub(dbc_id=INVALID, db_id=client_error("AccessDeniedException")))
        with pytest.raises(Undecodable) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert caught.value.reason == Reason.KEY_REFUSED

    def test_a_busy_kms_at_the_other_context_makes_the_record_wait(self) -> None:
        unwrap, _ = kms(KmsStub(dbc_id=INVALID, db_id=client_error("ThrottlingException")))
        with pytest.raises(Held, match="ThrottlingException"):
            unwrap.unwrap(BLOB, CLUSTER)

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("AccessDeniedException", "access_denied"),
            ("InvalidGrantTokenException", "access_denied"),
            ("DisabledException", "key_disabled"),
            ("KMSInvalidStateException", "key_disabled"),
            ("NotFoundException", "key_not_found"),
            ("IncorrectKeyException", "key_not_found"),
            ("ExpiredTokenException", "credentials"),
            ("UnrecognizedClientException", "credentials"),
            ("InvalidSignatureException", "credentials"),
            ("MissingAuthenticationTokenException", "credentials"),
            ("SomethingNewException", "refused"),
        ],
    )
    def test_what_a_person_must_mend_holds_at_once(self, code: str, reason: str) -> None:
        stub = KmsStub(dbc_id=client_error(code))
        unwrap, waits = kms(stub)
        with pytest.raises(Held) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert caught.value.reason == reason
        assert reason in HELD_REASONS
        assert code in caught.value.detail
        assert caught.value.mend
        assert (len(stub.asked), waits, unwrap.requests["held"]) == (1, [], 1)

    def test_the_mend_of_a_missing_permission_is_the_statement_to_add(self) -> None:
        unwrap, _ = kms(KmsStub(db_id=client_error("AccessDeniedException")))
        with pytest.raises(Held) as caught:
            unwrap.unwrap(BLOB, INSTANCE)
        assert '"Action": "kms:Decrypt"' in caught.value.mend
        assert f'"kms:EncryptionContext:aws:rds:db-id": "{INSTANCE}"' in caught.value.mend

    def test_a_role_that_cannot_be_assumed_is_not_called_a_missing_kms_permission(self) -> None:
        unwrap, _ = kms(KmsStub(dbc_id=client_error("AccessDenied", operation="AssumeRole")))
        with pytest.raises(Held) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert caught.value.reason == "access_denied"
        assert "sts:AssumeRole" in caught.value.mend

    @pytest.mark.parametrize(
        "error",
        [
            botocore.exceptions.NoCredentialsError(),
            botocore.exceptions.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            botocore.exceptions.CredentialRetrievalError(provider="process", error_msg="exit 1"),
        ],
    )
    def test_missing_credentials_hold_at_once(self, error: Exception) -> None:
        unwrap, waits = kms(KmsStub(dbc_id=error))
        with pytest.raises(Held) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert (caught.value.reason, waits) == ("credentials", [])

    @pytest.mark.parametrize("error", PASSING, ids=repr)
    def test_what_passes_is_tried_again(self, error: Exception) -> None:
        stub = KmsStub([error, error])
        unwrap, waits = kms(stub)
        assert unwrap.unwrap(BLOB, CLUSTER) == KEY
        assert stub.asked == [{DBC: CLUSTER}] * 3
        assert (len(waits), unwrap.requests["unavailable"], unwrap.requests["ok"]) == (2, 2, 1)

    @pytest.mark.parametrize("error", PASSING, ids=repr)
    def test_what_does_not_pass_in_seconds_makes_the_record_wait(self, error: Exception) -> None:
        stub = KmsStub(dbc_id=error)
        unwrap, waits = kms(stub)
        with pytest.raises(Held) as caught:
            unwrap.unwrap(BLOB, CLUSTER)
        assert caught.value.reason == "key_unavailable"
        assert 3 < len(stub.asked) < 10
        assert len(waits) == len(stub.asked) - 1
        assert sum(waits) < 5

    def test_retries_are_spread_with_full_jitter(self) -> None:
        firsts = set()
        for _ in range(8):
            unwrap, waits = kms(KmsStub([PASSING[0]]))
            unwrap.unwrap(BLOB, CLUSTER)
            firsts.add(waits[0])
        assert len(firsts) == 8
        assert max(firsts) <= 0.1

    def test_without_a_resource_id_kms_is_not_asked(self) -> None:
        stub = KmsStub()
        unwrap, _ = kms(stub)
        with pytest.raises(Held, match="resource_id"):
            unwrap.unwrap(BLOB, None)
        assert stub.asked == []

    @pytest.mark.parametrize("blob", [b"", bytes(6145)])
    def test_a_blob_that_kms_could_not_take_is_refused_without_asking(self, blob: bytes) -> None:
        stub = KmsStub()
        unwrap, _ = kms(stub)
        with pytest.raises(Undecodable) as caught:
            unwrap.unwrap(blob, CLUSTER)
        assert (caught.value.reason, stub.asked) == (Reason.KEY_REFUSED, [])

    def test_a_plaintext_that_is_no_key_is_refused(self) -> None:
        unwrap, _ = kms(KmsStub(dbc_id=b"short", db_id=b"short"))
        with pytest.raises(Undecodable, match="5 bytes"):
            unwrap.unwrap(BLOB, CLUSTER)


class TestRealClient:
    @pytest.fixture
    def client(self) -> Iterator[Any]:
        with mock_aws():
            client = boto3.client("kms", region_name="eu-west-1", config=Config(retries={"total_max_attempts": 1}))
            yield client
            client.close()

    @pytest.mark.parametrize(("resource", "context"), [(CLUSTER, DBC), (INSTANCE, DB), (CLUSTER, DB), (INSTANCE, DBC)])
    def test_the_encryption_context_is_enforced(self, client: Any, resource: str, context: str) -> None:
        key_id = client.create_key()["KeyMetadata"]["KeyId"]
        made = client.generate_data_key(KeyId=key_id, KeySpec="AES_256", EncryptionContext={context: resource})
        unwrap = KmsUnwrap(client)
        assert unwrap.unwrap(made["CiphertextBlob"], resource) == made["Plaintext"]
        with pytest.raises(Undecodable) as caught:
            unwrap.unwrap(made["CiphertextBlob"], resource + "x")
        assert caught.value.reason == Reason.KEY_REFUSED
        with pytest.raises(Undecodable):
            unwrap.unwrap(made["CiphertextBlob"][:-1], resource)
        with pytest.raises(Undecodable):
            unwrap.unwrap(os.urandom(184), resource)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class TestKeysFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "keys.json"
        self.write(path, {b64(BLOB): b64(KEY)})
        return path

    @staticmethod
    def write(path: Path, content: Any, mode: int = 0o600) -> None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)

    def test_a_key_is_found_by_its_blob_wherever_the_record_came_from(self, path: Path) -> None:
        keys = KeysFile(path)
        assert keys.data_key(BLOB, None) == keys.data_key(BLOB, CLUSTER) == KEY

    def test_an_unknown_blob_is_refused(self, path: Path) -> None:
        with pytest.raises(Undecodable) as caught:
            KeysFile(path).data_key(b"other", None)
        assert caught.value.reason == Reason.KEY_REFUSED

    def test_a_key_that_is_added_later_is_found(self, path: Path) -> None:
        keys = KeysFile(path)
        self.write(path, {b64(BLOB): b64(KEY), b64(b"later"): b64(bytes(32))})
        assert keys.data_key(b"later", None) == bytes(32)

    def test_a_file_that_is_broken_later_holds_and_keeps_what_is_known(self, path: Path) -> None:
        keys = KeysFile(path)
        self.write(path, "{")
        with pytest.raises(Held) as caught:
            keys.data_key(b"later", None)
        assert caught.value.reason == "refused"
        assert keys.data_key(BLOB, None) == KEY
        path.unlink()
        with pytest.raises(Held):
            keys.data_key(b"later", None)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
    def test_a_file_that_others_have_access_to_is_refused(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=r"chmod 0600"):
            KeysFile(path)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            '{"a": 1}',
            "{" * 5000,
            {"not base64!": b64(KEY)},
            {b64(BLOB): "c2VjcmV0!"},
            {b64(BLOB): b64(b"c2VjcmV0")},
            {b64(BLOB): ""},
        ],
    )
    def test_a_malformed_file_is_an_error_that_names_it_and_quotes_nothing(self, path: Path, content: Any) -> None:
        self.write(path, content)
        with pytest.raises(ConfigurationError) as caught:
            KeysFile(path)
        assert str(path) in str(caught.value)
        assert "c2Vj" not in str(caught.value)

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"absent\.json.*No such file"):
            KeysFile(tmp_path / "absent.json")
