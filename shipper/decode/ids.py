"""Event ids: the same event has the same id wherever and whenever it is read.

An id is 32 hex digits: 12 of the event's time in milliseconds, so that ids sort by time, then 20 of a keyed BLAKE2b
hash over the database instance, the engine's own bytes of the event (compact JSON) and, from the second on, the number
among equal events of one record. The key keeps outsiders from guessing what an id stands for.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Protocol

__all__ = ["VERSION", "Ids", "valid"]

#: Part of every hash. A change makes all ids new, and every idempotent output store everything twice: don't.
VERSION = 1

_DIGEST_BYTES = 10
_PERSON = b"shipper.event.%d" % VERSION
#: The longest key that BLAKE2b takes; a longer one is hashed first.
_KEY_BYTES = 64
_VALID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KEEP = 256


class _Hash(Protocol):
    def copy(self) -> _Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def valid(id_: str) -> bool:
    """Whether this is an event id."""
    return _VALID.fullmatch(id_) is not None


class Ids:
    """Makes the ids of one origin's events, record by record."""

    __slots__ = ("_begun", "_key", "_of_instance", "_seen")

    def __init__(self, key: bytes) -> None:
        self._key = key if len(key) <= _KEY_BYTES else blake2b(key).digest()
        self._of_instance: dict[str, _Hash] = {}
        self._begun = self._begin("")
        self._seen: dict[str, int] | None = None

    def record(self, instance: str, several: bool) -> None:
        """Begins a record of this instance; ``several``: it may hold equal events, so they are to be counted."""
        begun = self._of_instance.get(instance)
        self._begun = begun if begun is not None else self._begin(instance)
        self._seen = {} if several else None

    def event(self, nanoseconds: int, own: bytes) -> str:
        """The id of the record's next event, from its time and the engine's own bytes."""
        hash_ = self._begun.copy()
        hash_.update(own)
        digest = hash_.hexdigest()
        if self._seen is not None:
            digest = self._distinct(digest, hash_)
        return "%012x" % (nanoseconds // 1_000_000) + digest  # the quickest way: this runs for every event

    def _begin(self, instance: str) -> _Hash:
        if len(self._of_instance) >= _KEEP:
            self._of_instance.clear()
        begun = blake2b(digest_size=_DIGEST_BYTES, key=self._key, person=_PERSON)
        begun.update(
            instance.encode("utf-8", "surrogatepass") + b"\x00"
        )  # NUL is in no JSON text: nothing runs into it
        self._of_instance[instance] = begun
        return begun

    def _distinct(self, digest: str, hash_: _Hash) -> str:
        assert self._seen is not None
        number = self._seen.get(digest, 0)
        self._seen[digest] = number + 1
        if number:
            hash_.update(b"\x00%d" % number)
            return hash_.hexdigest()
        return digest
