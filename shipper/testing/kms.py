"""A KMS on loopback: keys, data keys, encryption contexts enforced to the letter, and every fault on order.

::

    with FakeKms() as server:
        key = server.create_key()
        plaintext, blob = server.generate_data_key(key, {"aws:rds:dbc-id": "cluster-ABC"})
        client = boto3.client("kms", endpoint_url=server.endpoint_url, region_name=server.region)
        client.decrypt(CiphertextBlob=blob, EncryptionContext={"aws:rds:dbc-id": "cluster-ABC"})

It follows the KMS API Reference for symmetric keys. Keys live in memory and die with the object.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shipper.clock import Clock
from shipper.testing.aws_json import FakeService, Operation, ServiceError, required

__all__ = ["FakeKms"]

MAX_PLAINTEXT_BYTES = 4096
MAX_BLOB_BYTES = 6144
ALGORITHM = "SYMMETRIC_DEFAULT"
_DAY = 86_400.0
_KEY_BYTES = {"AES_128": 16, "AES_256": 32}

# A blob looks like AWS's own: five fixed bytes (so that its base64 begins with AQIDAH), what finds the key again, and
# an RFC 5652 EncryptedData with AES-256-GCM. A wrapped 32-byte key makes 184 bytes.
_MAGIC = bytes.fromhex("0102030078")
_HINT = slice(len(_MAGIC), len(_MAGIC) + 32)
_BODY = len(_MAGIC) + 32 + 1 + 16 + 4
_ENCRYPTED_DATA = bytes.fromhex("06092a864886f70d010706")
_DATA = bytes.fromhex("06092a864886f70d010701")
_AES_256_GCM = bytes.fromhex("060960864801650304012e")
_IV_BYTES = 12
_IV_HEADER = bytes.fromhex("3011040c")
_TAG_LENGTH = bytes.fromhex("020110")
#: What AWS adds to the plaintext before it encrypts, judging by the length of real blobs.
_PREFIX = bytes(11)


@dataclass(slots=True)
class _Key:
    arn: str
    material: bytes
    created: float
    description: str
    state: str = "Enabled"
    denied: bool = False
    deletion: float | None = None

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def hint(self) -> bytes:
        return hashlib.sha256(self.arn.encode()).digest()


class FakeKms(FakeService):
    """Symmetric keys of the Key Management Service in this process.

    Beside the ordered faults of ``FakeService`` keys have AWS's own states: disabled, pending deletion, deleted (a
    blob of a deleted or foreign key is refused with AccessDeniedException, as AWS does).
    """

    target = "TrentService"

    def __init__(self, *, region: str = "us-east-1", account: str = "123456789012", clock: Clock | None = None) -> None:
        super().__init__(region=region, account=account, clock=clock)
        self._keys: dict[str, _Key] = {}
        self._operations: dict[str, Operation] = {
            "CancelKeyDeletion": self._cancel_key_deletion,
            "CreateKey": self._create_key,
            "Decrypt": self._decrypt,
            "DescribeKey": self._describe_key,
            "DisableKey": self._disable_key,
            "EnableKey": self._enable_key,
            "Encrypt": self._encrypt,
            "GenerateDataKey": self._generate_data_key,
            "ScheduleKeyDeletion": self._schedule_key_deletion,
        }

    def operations(self) -> Mapping[str, Operation]:
        """The operations of the API that are answered."""
        return self._operations

    # What this process asks directly. Keys are named by id or ARN.

    def create_key(self, description: str = "") -> str:
        """Creates an enabled symmetric key and returns its ARN."""
        with self._lock:
            arn = f"arn:aws:kms:{self.region}:{self.account}:key/{uuid4()}"
            key = _Key(arn, os.urandom(32), self._clock.now(), description)
            self._keys[key.id] = key
            return arn

    def generate_data_key(
        self, key: str, encryption_context: Mapping[str, str] | None = None, size: int = 32
    ) -> tuple[bytes, bytes]:
        """A new data key: its plaintext and its ciphertext blob. Raises ``ServiceError`` as the API does."""
        with self._lock:
            plaintext = os.urandom(size)
            return plaintext, _seal(self._usable(key), plaintext, encryption_context or {})

    def encrypt(self, key: str, plaintext: bytes, encryption_context: Mapping[str, str] | None = None) -> bytes:
        """A ciphertext blob of at most 4096 bytes of plaintext. Raises ``ServiceError`` as the API does."""
        if not 1 <= len(plaintext) <= MAX_PLAINTEXT_BYTES:
            raise ServiceError(
                "ValidationException",
                f"1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have "
                f"length between 1 and {MAX_PLAINTEXT_BYTES}",
            )
        with self._lock:
            return _seal(self._usable(key), plaintext, encryption_context or {})

    def decrypt(self, blob: bytes, encryption_context: Mapping[str, str] | None = None) -> bytes:
        """The plaintext of a ciphertext blob. Raises ``ServiceError`` as the API does."""
        with self._lock:
            return self._open(blob, encryption_context or {}, None)[1]

    def disable_key(self, key: str) -> None:
        """Refuses everything under this key with DisabledException until ``enable_key``."""
        with self._lock:
            self._not_pending(self._key(key)).state = "Disabled"

    def enable_key(self, key: str) -> None:
        """Takes a disabled key into use again."""
        with self._lock:
            self._not_pending(self._key(key)).state = "Enabled"

    def deny_key(self, key: str) -> None:
        """Refuses Decrypt under this key with AccessDeniedException, as for a key that others own, until
        ``permit_key``; whoever owns it goes on encrypting."""
        with self._lock:
            self._key(key).denied = True

    def permit_key(self, key: str) -> None:
        """Grants Decrypt under a key again."""
        with self._lock:
            self._key(key).denied = False

    def schedule_key_deletion(self, key: str, days: int = 30) -> None:
        """Refuses everything under this key with KMSInvalidStateException; it is gone after ``days`` by the clock."""
        with self._lock:
            found = self._not_pending(self._key(key))
            found.state, found.deletion = "PendingDeletion", self._clock.now() + days * _DAY

    def cancel_key_deletion(self, key: str) -> None:
        """Keeps a key that was to be deleted; as in AWS it is disabled afterwards."""
        with self._lock:
            found = self._key(key)
            if found.state != "PendingDeletion":
                raise ServiceError("KMSInvalidStateException", f"{found.arn} is not pending deletion.")
            found.state, found.deletion = "Disabled", None

    # Keys

    def _key(self, name: object) -> _Key:
        """The key of that id or ARN, unless it is gone."""
        key = self._keys.get(str(name).rpartition("/")[2])
        if key is None or (str(name).startswith("arn:") and name != key.arn) or self._gone(key):
            raise ServiceError("NotFoundException", f"Key '{str(name)[:256]}' does not exist")
        return key

    def _gone(self, key: _Key) -> bool:
        return key.deletion is not None and key.deletion <= self._clock.now()

    def _usable(self, name: object) -> _Key:
        key = self._key(name)
        if key.state == "Disabled":
            raise ServiceError("DisabledException", f"{key.arn} is disabled.")
        return self._not_pending(key)

    def _not_pending(self, key: _Key) -> _Key:
        if key.state == "PendingDeletion":
            raise ServiceError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        return key

    def _open(self, blob: bytes, context: Mapping[str, str], expected: object) -> tuple[_Key, bytes]:
        if not blob.startswith(_MAGIC) or len(blob) <= _BODY:
            raise ServiceError("InvalidCiphertextException")
        hint = blob[_HINT]
        key = next((key for key in self._keys.values() if key.hint == hint), None)
        if key is None or key.denied or self._gone(key):
            raise ServiceError(
                "AccessDeniedException",
                "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or "
                "you are not allowed to access.",
            )
        if expected is not None and self._key(expected) is not key:
            raise ServiceError(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
        return self._usable(key.arn), _unseal(key, blob, context)

    # The API

    def _metadata(self, key: _Key) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "AWSAccountId": self.account,
            "KeyId": key.id,
            "Arn": key.arn,
            "CreationDate": key.created,
            "Enabled": key.state == "Enabled",
            "Description": key.description,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": key.state,
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": ALGORITHM,
            "KeySpec": ALGORITHM,
            "EncryptionAlgorithms": [ALGORITHM],
            "MultiRegion": False,
        }
        return shown | ({"DeletionDate": key.deletion} if key.deletion is not None else {})

    def _create_key(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"KeyMetadata": self._metadata(self._key(self.create_key(request.get("Description", ""))))}

    def _describe_key(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"KeyMetadata": self._metadata(self._key(required(request, "KeyId")))}

    def _disable_key(self, request: dict[str, Any]) -> bytes:
        self.disable_key(required(request, "KeyId"))
        return b""

    def _enable_key(self, request: dict[str, Any]) -> bytes:
        self.enable_key(required(request, "KeyId"))
        return b""

    def _schedule_key_deletion(self, request: dict[str, Any]) -> dict[str, Any]:
        days = request.get("PendingWindowInDays", 30)
        if not 7 <= days <= 30:
            raise ServiceError("ValidationException", "PendingWindowInDays must be between 7 and 30")
        key = self._key(required(request, "KeyId"))
        self.schedule_key_deletion(key.arn, days)
        return {
            "KeyId": key.arn,
            "DeletionDate": key.deletion,
            "KeyState": key.state,
            "PendingWindowInDays": days,
        }

    def _cancel_key_deletion(self, request: dict[str, Any]) -> dict[str, Any]:
        key = self._key(required(request, "KeyId"))
        self.cancel_key_deletion(key.arn)
        return {"KeyId": key.arn}

    def _generate_data_key(self, request: dict[str, Any]) -> dict[str, Any]:
        size, spec = request.get("NumberOfBytes"), request.get("KeySpec")
        if (size is None) == (spec is None):
            raise ServiceError("ValidationException", "Please specify either number of bytes or key spec.")
        size = _KEY_BYTES.get(str(spec), 0) if size is None else size
        if not 1 <= size <= 1024:
            raise ServiceError("ValidationException", "NumberOfBytes must be between 1 and 1024")
        key = self._key(required(request, "KeyId"))
        plaintext, blob = self.generate_data_key(key.arn, _context(request), size)
        return {"CiphertextBlob": _text(blob), "Plaintext": _text(plaintext), "KeyId": key.arn}

    def _encrypt(self, request: dict[str, Any]) -> dict[str, Any]:
        key = self._key(required(request, "KeyId"))
        blob = self.encrypt(key.arn, _blob(request, "Plaintext"), _context(request))
        return {"CiphertextBlob": _text(blob), "KeyId": key.arn, "EncryptionAlgorithm": ALGORITHM}

    def _decrypt(self, request: dict[str, Any]) -> dict[str, Any]:
        blob = _blob(request, "CiphertextBlob")
        if not 1 <= len(blob) <= MAX_BLOB_BYTES:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must have "
                f"length between 1 and {MAX_BLOB_BYTES}",
            )
        key, plaintext = self._open(blob, _context(request), request.get("KeyId"))
        return {"KeyId": key.arn, "Plaintext": _text(plaintext), "EncryptionAlgorithm": ALGORITHM}


def _seal(key: _Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    iv = os.urandom(_IV_BYTES)
    return _frame(key, iv, AESGCM(key.material).encrypt(iv, _PREFIX + plaintext, _canonical(context)))


def _unseal(key: _Key, blob: bytes, context: Mapping[str, str]) -> bytes:
    at = blob.find(_AES_256_GCM, _BODY) + len(_AES_256_GCM) + len(_IV_HEADER)
    iv = blob[at : at + _IV_BYTES]
    sealed = _der_content(blob[at + _IV_BYTES + len(_TAG_LENGTH) :])
    try:
        # What the tag does not protect is built again: a changed byte anywhere is damage.
        if _frame(key, iv, sealed) != blob:
            raise ServiceError("InvalidCiphertextException")
        plaintext = AESGCM(key.material).decrypt(iv, sealed, _canonical(context))
    except InvalidTag:
        raise ServiceError("InvalidCiphertextException") from None
    return plaintext[len(_PREFIX) :]


def _frame(key: _Key, iv: bytes, sealed: bytes) -> bytes:
    parameters = _IV_HEADER + iv + _TAG_LENGTH
    content = _der(0x30, _DATA + _der(0x30, _AES_256_GCM + parameters) + _der(0x80, sealed))
    body = _der(0x30, _ENCRYPTED_DATA + _der(0xA0, _der(0x30, b"\x02\x01\x00" + content)))
    material_id = hashlib.sha256(key.material).digest()[:16]
    return _MAGIC + key.hint + b"\1" + material_id + len(body).to_bytes(4, "big") + body


def _der(tag: int, content: bytes) -> bytes:
    """One element of the Distinguished Encoding Rules (ITU-T X.690)."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _der_content(element: bytes) -> bytes:
    if len(element) < 2:
        return b""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def _canonical(context: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(sorted(context.items()))


def _context(request: Mapping[str, Any]) -> dict[str, str]:
    context = request.get("EncryptionContext") or {}
    if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
        raise ServiceError("SerializationException", "EncryptionContext must be a map of strings")
    return context


def _blob(request: Mapping[str, Any], key: str) -> bytes:
    try:
        return b64decode(required(request, key), validate=True)
    except ValueError:
        raise ServiceError("SerializationException", f"{key} is not base64") from None


def _text(blob: bytes) -> str:
    return b64encode(blob).decode()
