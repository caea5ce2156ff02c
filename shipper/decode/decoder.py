"""Tells by its bytes what a record is, and decodes it: the decoder of activity streams and of native events.

Five shapes are known: the encrypted envelope as it comes from Kinesis; the same with the decrypted object in place of
the base64 (AWS's documentation, replays); a decrypted record; one engine event alone (AWS's Oracle examples); a native
event of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from shipper.decode import Decoded, KeyResolver, Origin, Reason, Refused, Undecodable
from shipper.decode.das.activity import Reading
from shipper.decode.das.compression import inflate
from shipper.decode.das.envelope import Envelope, parse_envelope
from shipper.decode.das.message import decrypt_message
from shipper.decode.das.record import Records, refusal
from shipper.decode.json_text import NotJson, members, object_start
from shipper.decode.native import NativeEvents
from shipper.event import Event
from shipper.source import Record

__all__ = ["DECODER_VERSION", "MAX_RECORD_BYTES", "Kind", "RecordDecoder"]

#: What a source's ``decode`` setting asks for: ``das`` all but native events, ``events`` all but encrypted ones.
Kind = Literal["auto", "das", "events"]

#: To be raised whenever the same record becomes other events, or the same in another order: positions inside a record
#: count events, so a record that was half settled by another version is begun again. What only adds or corrects a
#: value of an event does not count.
DECODER_VERSION: Final = 1

#: The largest record, unpacked, in bytes: Kinesis carries 10 MiB, which unpack to ten times as much (SQL repeats).
MAX_RECORD_BYTES: Final = 128 << 20

#: How far the first look goes. It only chooses which reading is tried first.
_HEAD = 160
#: With these an engine's event begins, and nothing else does.
_EVENT_BEGINNINGS = frozenset({b'"logTime', b'"startTi', b'"class":'})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Shape = Literal["envelope", "record", "native", "event"]


class RecordDecoder:
    """Decodes the records of one origin (see ``Decoder``). One instance belongs to one thread at a time.

    ``version`` is ``DECODER_VERSION`` and the kind: another kind refuses what this one decodes.
    """

    def __init__(
        self, origin: Origin, keys: KeyResolver, kind: Kind = "auto", *, max_record_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        self.version = f"{DECODER_VERSION}:{kind}"
        self._resource_id = origin.resource_id
        self._keys = keys
        self._encrypted = kind != "events"
        self._native = kind != "das"
        self._max_bytes = max_record_bytes
        self._records = Records(origin)
        self._native_events = NativeEvents(Reading(origin))

    def decode(self, record: Record, reference: str) -> Decoded:
        """All events of a record, in the order of its list. Raises nothing but ``Held``."""
        data = record.data
        if len(data) > self._max_bytes:
            return _refused(Reason.TOO_LARGE, f"{len(data)} bytes, more than {self._max_bytes}")
        try:
            # A file of events is the most work for the least bytes: what is surely one is read at once.
            if data[1:9] in _EVENT_BEGINNINGS:
                return self._records.bare(data, reference, record.arrived)
            if data.startswith(_BYTE_ORDER_MARK):
                data = data[len(_BYTE_ORDER_MARK) :]
            return self._decode(data, reference, record.arrived)
        except Undecodable as error:
            return _refused(error.reason, error.detail)

    def events(
        self, records: Sequence[Record], reference: Callable[[int], str]
    ) -> tuple[Sequence[Event], Sequence[bytes]]:
        """The events of the first records that are each one sound event of an engine, as ``decode`` makes them."""
        return self._records.sound(records, reference, self._max_bytes)

    def _decode(self, data: bytes, position: str, arrived: int) -> Decoded:
        likely = _first_look(data)
        try:
            return self._read(likely, data, position, arrived)
        except Undecodable as error:
            try:
                shape = _shape(data)
            except Undecodable:
                if _resembles_envelope(data):  # says more than that it is no whole JSON
                    raise error from None
                raise
            if shape == likely:
                raise
        return self._read(shape, data, position, arrived)

    def _read(self, shape: Shape, data: bytes, position: str, arrived: int) -> Decoded:
        if shape == "native" and not self._native:
            raise _left_out(shape)
        if shape == "envelope":
            envelope = parse_envelope(data)
            if envelope.message is not None and not self._encrypted:
                raise _left_out(shape)
            return self._decrypted(self._open(envelope), position, arrived, envelope.version)
        if shape == "record":
            return self._records.record(data, position, arrived, "")
        if shape == "native":
            return self._native_events.read(data, position, arrived)
        return self._records.bare(data, position, arrived)

    def _decrypted(self, plain: bytes, position: str, arrived: int, version: str) -> Decoded:
        try:
            return self._records.record(plain, position, arrived, version)
        except Undecodable:
            if _shape(plain) != "event":
                raise
        return self._records.bare(plain, position, arrived, version)

    def _open(self, envelope: Envelope) -> bytes:
        if envelope.message is None:
            return envelope.plain or b""
        key = self._keys.data_key(envelope.key_blob, self._resource_id)
        plain = decrypt_message(envelope.message, key, max_bytes=self._max_bytes)
        return inflate(plain, max_bytes=self._max_bytes)


_NAMES: dict[Shape, str] = {
    "envelope": "an activity stream's envelope",
    "record": "an activity stream's record",
    "native": "a native event",
    "event": "an engine's event",
}


def _left_out(shape: Shape) -> Undecodable:
    return Undecodable(Reason.SHAPE, f"{_NAMES[shape]}, which this source's `decode` leaves out")


def _refused(reason: Reason, detail: str) -> Decoded:
    return Decoded(events=[], raw=[], refused=[Refused(None, reason, detail)])


def _first_look(data: bytes) -> Shape:
    head = data[:_HEAD]
    if b"atabaseActivity" in head:  # in every name and type of both wrappers
        if b"databaseActivityEventList" in head or b'DatabaseActivityMonitoringRecord"' in head:
            return "record"
        return "envelope"
    return "native" if b'"schema_version"' in head else "event"


def _resembles_envelope(data: bytes) -> bool:
    head = data[:_HEAD]
    return b'"databaseActivityEvents"' in head or b'"DatabaseActivityMonitoringRecords"' in head


def _shape(data: bytes) -> Shape:
    """What the record is by the names of its members. Raises ``Undecodable`` where it is no object."""
    try:
        names = {member.name for member in members(data, object_start(data))}
    except NotJson as error:
        raise refusal(data, str(error)) from None
    if "databaseActivityEvents" in names:
        return "envelope"
    if "databaseActivityEventList" in names:
        return "record"
    return "native" if "schema_version" in names else "event"
