"""The key resolver that a source's settings ask for: KMS behind a cache, or a file of keys."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from shipper.aws import client
from shipper.clock import Clock
from shipper.decode import KeyResolver
from shipper.decode.das.keys import DataKeys, KeysFile
from shipper.decode.das.kms import KmsUnwrap
from shipper.observe.metrics import Metrics
from shipper.settings import FileSourceSettings, KeysSettings, KinesisSettings, SourceSettings


def key_resolver(settings: SourceSettings, clock: Clock, metrics: Metrics) -> KeyResolver:
    """Makes it without asking anybody: credentials that are missing hold the source when the first key is needed."""
    assert isinstance(settings, KinesisSettings | FileSourceSettings)
    keys = settings.keys
    if keys.provider == "static":
        assert keys.path is not None
        return KeysFile(keys.path)
    kms = _Kms(keys)
    data_keys = DataKeys(kms, max_entries=keys.max_entries, ttl=keys.ttl, clock=clock)
    metrics.watch_kms(kms.requests)
    metrics.watch_data_keys(lambda: (data_keys.hits, data_keys.misses))
    return data_keys


class _Kms:
    """Makes the KMS client at the first key. Raises ``Held`` like the client."""

    def __init__(self, settings: KeysSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._unwrap: KmsUnwrap | None = None

    def requests(self) -> Mapping[str, int]:
        """Requests so far, by result."""
        return self._unwrap.requests if self._unwrap else {}

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        with self._lock:
            if self._unwrap is None:
                self._unwrap = KmsUnwrap(client("kms", self._settings))
        return self._unwrap.unwrap(blob, resource_id)
