"""What turns one record into zero or more events: the contract between decoders, sources and the engine.

A decoder is a pure function of a record's bytes, a key resolver and the settings: no I/O but through the resolver, no
state between records, so that it can run in a worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from shipper.event import Event
from shipper.source import Record


class Reason(StrEnum):
    """Why a record, or some events of it, cannot be decoded: a closed list (contracts.md, Decoding)."""

    ENVELOPE_MALFORMED = "envelope_malformed"
    BASE64 = "base64"
    KEY_REFUSED = "key_refused"
    WRONG_KEY = "wrong_key"
    MESSAGE_TRUNCATED = "message_truncated"
    MESSAGE_MALFORMED = "message_malformed"
    SUITE_UNSUPPORTED = "suite_unsupported"
    TAMPERED = "tampered"
    SIGNATURE = "signature"
    DECOMPRESS = "decompress"
    TOO_LARGE = "too_large"
    JSON_MALFORMED = "json_malformed"
    JSON_ENCODING = "json_encoding"
    JSON_DEPTH = "json_depth"
    SHAPE = "shape"
    DECODER_DIED = "decoder_died"


class Undecodable(Exception):
    """The whole record is refused."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class KeyResolver(Protocol):
    """Unwraps the key that wraps a message's data key."""

    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        """The 32-byte key for an envelope's ``key`` blob (decoded from base64).

        Raises ``Undecodable`` (``key_refused``) where the blob or the context is wrong, ``Held`` where permission or
        configuration is: then the data is fine, and the record is asked for again later.
        """


class Refused(msgspec.Struct, frozen=True, gc=False):
    """What of a record could not be decoded: ``ordinal`` is the index in the record's list of events, ``None`` the
    whole record. ``detail`` quotes no data."""

    ordinal: int | None
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of where records come from, for events and ids; the same for every record of a partition.

    ``facts`` are event fields that hold for the whole source; ``id_key`` keys the hash of event ids.
    """

    source: str
    partition: str
    resource_id: str | None = None
    engine: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    id_key: bytes = b""


class Decoded(msgspec.Struct, gc=False):
    """What one record became.

    ``raw[i]`` is the engine's own JSON of ``events[i]``, compact, one line; ``frame`` is the decrypted record's JSON
    up to and with the ``[`` of its list of events (empty where there was no such record): ``frame + raw + b"]}"`` is
    what the format ``raw`` writes. ``heartbeats`` counts heartbeat events; ``instance`` names the database instance.
    ``ordinals[i]`` is the index of ``events[i]`` in the record's list; ``None``: it is ``i``, for nothing was left out.
    """

    events: list[Event]
    raw: list[bytes]
    frame: bytes = b""
    refused: list[Refused] = []
    heartbeats: int = 0
    instance: str = ""
    ordinals: list[int] | None = None


class Decoder(Protocol):
    """Turns records into events."""

    #: Changes whenever the same record may become other events or another order of them (contracts.md, Position).
    version: str

    def decode(self, record: Record, reference: str) -> Decoded:
        """All events of a record, in the order of its list. ``reference`` becomes ``source_position``.

        What cannot be decoded stands in ``refused``; it raises nothing but ``Held``.
        """

    def events(
        self, records: Sequence[Record], reference: Callable[[int], str]
    ) -> tuple[Sequence[Event], Sequence[bytes]]:
        """The events of the first records that are each one event, sound and outside any other structure, with the
        engine's own JSON of each: what ``decode`` makes of them, sooner. The record after them is for ``decode``,
        whatever it is; a decoder may leave all of them to it. ``reference`` names a position."""
