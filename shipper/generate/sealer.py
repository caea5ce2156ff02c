"""Seals generated records under data keys that it holds per instance and changes now and then, as the engines do.

Real consecutive records carry the same wrapped key, so a reader asks KMS once for many of them. Source of the
encryption contexts: "Monitoring database activity streams" in the Amazon Aurora and Amazon RDS user guides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shipper.aws import errors, held
from shipper.generate.activity import ENGINES, PlainRecord
from shipper.generate.sealing import seal

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

#: After how many records an instance takes a new data key. How long real ones live is not published.
ROTATE_AFTER = 1_000

# A KMS ciphertext blob of an AES-256 data key has 184 bytes and begins so (base64 AQIDAH).
_BLOB_BYTES = 184
_BLOB_START = b"\x01\x02\x03\x00x"


class DataKey(NamedTuple):
    """``blob`` is what the envelope carries; ``plain`` the 32 bytes that it stands for."""

    blob: bytes
    plain: bytes


class DataKeySource(Protocol):
    """Where data keys come from."""

    def new(self, resource_id: str) -> DataKey:
        """A new key for the stream of ``resource_id`` (``cluster-…`` or ``db-…``)."""


def encryption_context(resource_id: str) -> dict[str, str]:
    """What KMS binds a stream's data keys to."""
    name = "aws:rds:dbc-id" if resource_id.startswith("cluster-") else "aws:rds:db-id"
    return {name: resource_id}


class KmsDataKeys:
    """Data keys from KMS GenerateDataKey. Raises ``Held``, with what to do about it, where KMS gives none."""

    def __init__(self, client: KMSClient, key_id: str) -> None:
        self._client = client
        self._key_id = key_id

    def new(self, resource_id: str) -> DataKey:
        try:
            reply = self._client.generate_data_key(
                KeyId=self._key_id, KeySpec="AES_256", EncryptionContext=encryption_context(resource_id)
            )
        except errors() as error:
            raise held(error, "generate", "kms", not_found="key_not_found") from error
        return DataKey(reply["CiphertextBlob"], reply["Plaintext"])


class LocalDataKeys:
    """Random data keys under invented blobs, for a keys file; ``keep`` gets each before any record uses it."""

    def __init__(self, keep: Callable[[DataKey], None]) -> None:
        self._keep = keep

    def new(self, resource_id: str) -> DataKey:
        key = DataKey(_BLOB_START + os.urandom(_BLOB_BYTES - len(_BLOB_START)), os.urandom(32))
        self._keep(key)
        return key


@dataclass(slots=True)
class _Current:
    key: DataKey
    records: int = 0


class Sealer:
    """Turns plaintext records into the bytes of Kinesis records.

    Each instance has a data key of its own, and a new one after ``rotate_after`` records. ``resource_id`` stands in
    the encryption context instead of the records' own where one stream carries several engines.
    """

    def __init__(
        self, keys: DataKeySource, *, rotate_after: int = ROTATE_AFTER, resource_id: str | None = None
    ) -> None:
        self._keys = keys
        self._rotate_after = rotate_after
        self._resource_id = resource_id
        self._current: dict[str, _Current] = {}

    def seal(self, record: PlainRecord) -> bytes:
        """The envelope's JSON. Raises what the key source raises."""
        engine = ENGINES[record.engine]
        key = self.key(record)
        return seal(
            record.plaintext,
            wrapping_key=key.plain,
            key_blob=key.blob,
            suite=engine.suite,
            frame_length=engine.frame_length,
            version=engine.version,
            spaced=engine.spaced,
        )

    def key(self, record: PlainRecord) -> DataKey:
        """The key for one more record of this instance."""
        current = self._current.get(record.instance)
        if current is None or current.records >= self._rotate_after:
            current = _Current(self._keys.new(self._resource_id or record.resource_id))
            self._current[record.instance] = current
        current.records += 1
        return current.key
