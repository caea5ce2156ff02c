"""Seals a plaintext as an engine does: gzip, an AWS Encryption SDK message, base64, the envelope's JSON.

Sources: the AWS Encryption SDK message format reference, and published samples of real activity-stream records
(Aurora PostgreSQL: suite 0x0178, frames of 4 096 bytes; Aurora MySQL: suite 0x0378, frames of 262 144 bytes; both a
raw AES-256 wrapping key of provider ``BC`` and name ``DataKey``, wrapped with a 12-byte IV and a 16-byte tag).
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import lru_cache
from typing import Self

from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.identifiers import AlgorithmSuite, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.base import MasterKeyProviderConfig
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

#: What the engines write as the wrapping key's provider and name.
PROVIDER = "BC"
KEY_NAME = b"DataKey"

ENVELOPE_TYPE = "DatabaseActivityMonitoringRecords"

_GZIP_LEVEL = 6


def seal(
    plaintext: bytes,
    *,
    wrapping_key: bytes,
    key_blob: bytes,
    suite: int = 0x0178,
    frame_length: int = 4096,
    version: str = "1.1",
    compress: bool = True,
    spaced: bool = False,
) -> bytes:
    """The bytes of a Kinesis record that holds ``plaintext``.

    ``wrapping_key`` is the 32-byte key that KMS keeps; ``key_blob`` is its KMS ciphertext, which the envelope carries.
    ``frame_length`` is in bytes, a multiple of 128 (the SDK asks for that); 0 makes a body without frames.
    ``compress`` is off where the plaintext is already gzip, or is wanted bare. Raises ``ValueError`` for a suite that
    does not exist.
    """
    body = squeeze(plaintext) if compress else plaintext
    return envelope(
        encrypt(body, wrapping_key, suite, frame_length),
        key_blob,
        version=version,
        spaced=spaced,
    )


def squeeze(plaintext: bytes) -> bytes:
    """gzip, with no time in its header: the same bytes for the same plaintext."""
    return gzip.compress(plaintext, _GZIP_LEVEL, mtime=0)


def encrypt(body: bytes, wrapping_key: bytes, suite: int = 0x0178, frame_length: int = 4096) -> bytes:
    """An AWS Encryption SDK message of ``body``. Raises ``ValueError`` for a suite that does not exist."""
    if suite not in _SUITES:
        raise ValueError(f"0x{suite:04x} is not an algorithm suite of the AWS Encryption SDK")
    algorithm = _SUITES[suite]
    client = _COMMITTED if algorithm.is_committing() else _UNCOMMITTED
    message, _header = client.encrypt(
        source=body,
        key_provider=_provider(wrapping_key),
        algorithm=algorithm,
        frame_length=frame_length,
    )
    return bytes(message)


def envelope(message: bytes, key_blob: bytes, *, version: str = "1.1", spaced: bool = False) -> bytes:
    """The envelope's JSON; ``spaced`` has the irregular white space of Aurora MySQL's."""
    events = base64.b64encode(message).decode()
    key = base64.b64encode(key_blob).decode()
    label = json.dumps(version)
    if spaced:
        text = f'{{"type": "{ENVELOPE_TYPE}","version":{label},"databaseActivityEvents":"{events}","key" : "{key}"}}'
    else:
        text = f'{{"type":"{ENVELOPE_TYPE}","version":{label},"databaseActivityEvents":"{events}","key":"{key}"}}'
    return text.encode()


class _OneKey(RawMasterKeyProvider):  # type: ignore[misc]  # the SDK has no types
    """Gives out one raw AES-256 key, whatever name is asked for."""

    provider_id = PROVIDER

    def __init__(self, *, key: bytes) -> None:
        self._key = WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=key,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )

    # The SDK makes providers from a configuration object in __new__; this one has no use for it.
    def __new__(cls, *, key: bytes) -> Self:
        provider: Self = super().__new__(cls, config=MasterKeyProviderConfig())
        return provider

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return self._key


_SUITES = {suite.algorithm_id: suite for suite in AlgorithmSuite}

# A client holds nothing but its policy and is shared; which policy admits a suite depends on the suite.
_UNCOMMITTED = EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
_COMMITTED = EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)


@lru_cache(maxsize=64)
def _provider(wrapping_key: bytes) -> _OneKey:
    """Building one costs as much as a seventh of a small message; a stream has few keys."""
    if len(wrapping_key) != 32:
        raise ValueError(f"a wrapping key has 32 bytes, this one has {len(wrapping_key)}")
    provider = _OneKey(key=wrapping_key)
    provider.add_master_key(KEY_NAME)
    return provider
