"""Decrypts the AWS Encryption SDK message of a record with the key that KMS unwrapped.

The AWS Encryption SDK does the cryptography; its exceptions do not tell a wrong key from tampering, so the message's
structure is read first and what failed is asked again. Source of the settings: the sample code of "Monitoring database
activity streams" in the Amazon Aurora user guide, and the AWS Encryption SDK developer guide (raw AES keyring).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import lru_cache
from typing import Any

from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError, DecryptKeyError
from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKey, RawMasterKeyConfig
from cryptography.exceptions import InvalidSignature, InvalidTag

from shipper.decode import Reason, Undecodable
from shipper.decode.das.structure import (
    KEY_NAME,
    PROVIDER,
    Signature,
    Structure,
    parse_structure,
    verify_signature,
)

KEY_BYTES = 32

#: How much plaintext is asked of the SDK at once, in bytes: it copies its whole buffer each time.
_CHUNK = 8192

# The SDK writes a line for every data key, at level INFO.
logging.getLogger("aws_encryption_sdk").setLevel(logging.WARNING)

# Both kinds of suites must be readable: the engines use those without key commitment. A client holds nothing else.
_client = EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)


def decrypt_message(message: bytes, wrapping_key: bytes, *, max_bytes: int) -> bytes:
    """The whole plaintext; nothing of it is handed out before every frame and the signature are verified.

    ``wrapping_key`` has 32 bytes. Raises ``Undecodable``: ``message_truncated``, ``message_malformed``,
    ``suite_unsupported``, ``too_large`` (more than ``max_bytes`` of plaintext), ``wrong_key`` (no encrypted data key of
    the message can be unwrapped), ``tampered`` (an authentication tag or the key commitment is wrong), ``signature``.
    """
    structure = parse_structure(message)
    if structure.plaintext_bytes > max_bytes:
        raise Undecodable(Reason.TOO_LARGE, f"{structure.plaintext_bytes} bytes, more than {max_bytes}")
    if len(wrapping_key) != KEY_BYTES:
        raise Undecodable(Reason.WRONG_KEY, f"a key of {len(wrapping_key)} bytes instead of {KEY_BYTES}")
    try:
        return _decrypt(message, structure, _master_key(wrapping_key))
    except DecryptKeyError:
        raise _not_unwrapped(message, structure) from None
    except InvalidSignature:
        raise Undecodable(Reason.SIGNATURE, "the signature is not that of this message") from None
    except ValueError:
        # After the data key was unwrapped, the SDK raises it for one thing: a public key that is no point of the curve.
        raise Undecodable(Reason.SIGNATURE, "the public key cannot be used") from None
    except (InvalidTag, AWSEncryptionSDKClientError):
        # The structure is right and the data key was unwrapped: what is left are tags and the key commitment.
        raise Undecodable(Reason.TAMPERED, "header or body do not match their authentication tag") from None


def _decrypt(message: bytes, structure: Structure, key: RawMasterKey) -> bytes:
    stream = _client.stream(mode="decrypt", source=message, key_provider=key)
    chunk = max(_CHUNK, structure.frame_length or structure.plaintext_bytes)
    parts = []
    try:
        # Nothing comes only after the footer was read, which is where the SDK verifies the signature.
        while part := stream.read(chunk):
            parts.append(part)
    finally:
        with suppress(AWSEncryptionSDKClientError):  # it complains of a message that was not read to its end
            stream.close()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _not_unwrapped(message: bytes, structure: Structure) -> Undecodable:
    """A data key that cannot be unwrapped has been altered, or belongs to another key; a signature can tell."""
    if verify_signature(message, structure) is Signature.INVALID:
        return Undecodable(Reason.TAMPERED, "neither the encrypted data keys nor the signature are right")
    if not structure.for_activity_streams:
        return Undecodable(Reason.WRONG_KEY, f"no encrypted data key for {PROVIDER}/{KEY_NAME.decode()}")
    return Undecodable(Reason.WRONG_KEY, "no encrypted data key can be unwrapped with this key")


class _WrappingKey(RawMasterKey):  # type: ignore[misc]  # the SDK has no types
    """The SDK's raw key; where a message has several encrypted data keys, the wrong ones do not hide the right one."""

    def _decrypt_data_key(self, encrypted_data_key: Any, algorithm: Any, encryption_context: Any) -> Any:
        try:
            return super()._decrypt_data_key(encrypted_data_key, algorithm, encryption_context)
        except (InvalidTag, AWSEncryptionSDKClientError) as error:
            raise DecryptKeyError("not this key's") from error


@lru_cache(maxsize=16)
def _master_key(wrapping_key: bytes) -> _WrappingKey:
    """Building one costs as much as a seventh of a small message. It has no state, so threads may share it."""
    return _WrappingKey(
        config=RawMasterKeyConfig(
            key_id=KEY_NAME,
            provider_id=PROVIDER,
            wrapping_key=WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=wrapping_key,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            ),
        )
    )
