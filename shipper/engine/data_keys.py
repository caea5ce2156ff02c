"""The key resolver that a source's settings ask for: KMS behind a cache, or a file of keys."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from shipper.aws import client
from shipper.clock import Clock
from shipper.decode import KeyResolver
from shipper.decode.das.keys import DataKeys, KeysFile
from shipper.decode.das.kms import KmsUnwrap
from shipper.observe.metrics import Metrics
from shipper.settings import FileSourceSettings, KeysSettings, KinesisSettings, SourceSettings

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient


def key_resolver(settings: SourceSettings, clock: Clock, metrics: Metrics, closing: ExitStack) -> KeyResolver:
    """Makes it without asking anybody: credentials that are missing hold the source when the first key is needed.
    ``closing`` ends its connections."""
    assert isinstance(settings, KinesisSettings | FileSourceSettings)
    keys = settings.keys
    if keys.provider == "static":
        assert keys.path is not None
        return KeysFile(keys.path)
    kms = _Kms(keys)
    closing.callback(kms.close)
    data_keys = DataKeys(kms, max_entries=keys.max_entries, ttl=keys.ttl, clock=clock)
    metrics.watch_kms(kms.requests)
    metrics.watch_data_keys(lambda: (data_keys.hits, data_keys.misses))
    return data_keys


class _Kms:
    """Makes the KMS client at the first key. Raises ``Held`` like the client."""

    def __init__(self, settings: KeysSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: KMSClient | None = None
        self._unwrap: KmsUnwrap | None = None

    def close(self) -> None:
        """Ends the connections to KMS."""
        if self._client is not None:
            self._client.close()

    def requests(self) -> Mapping[str, int]:
        """Requests so far, by result."""
        return self._unwrap.requests if self._unwrap else {}

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        with self._lock:
            if self._unwrap is None:
                self._client = client("kms", self._settings)
                self._unwrap = KmsUnwrap(self._client)
        return self._unwrap.unwrap(blob, resource_id)
