"""Breaks records on purpose, each in one way, with the dead-letter reason that a decoder should give."""

from __future__ import annotations

import base64
import json
import os
import random
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from shipper.decode import Reason
from shipper.generate.activity import ENGINES, PlainRecord
from shipper.generate.sealer import DataKey, Sealer
from shipper.generate.sealing import ENVELOPE_TYPE, encrypt, envelope, squeeze

#: Inflated, a bomb has this many bytes; its record has some hundred thousand.
BOMB_BYTES = 128 * 1024 * 1024
_DEPTH = 5_000
#: A footer of a signed message: its length in two bytes, then a DER signature that the SDK makes 103 bytes long.
_FOOTER_BYTES = 105
_SIGNED = 0x0378
_UNSIGNED = 0x0178


def damage(sealer: Sealer, record: PlainRecord, kind: str, rng: random.Random) -> bytes:
    """``record`` as a Kinesis record that is broken in the way ``kind`` says; ``DAMAGES[kind]`` is the reason for it.

    The key is the instance's current one, except where the key itself is what is wrong. Raises ``KeyError`` for an
    unknown kind.
    """
    _reason, breaks = _KINDS[kind]
    key = sealer.key(record)
    version = ENGINES[record.engine].version
    return breaks(_Parts(squeeze(record.plaintext), key, version, rng))


class _Parts:
    """What a record is made of, and how it is put together."""

    def __init__(self, body: bytes, key: DataKey, version: str, rng: random.Random) -> None:
        self.body = body
        self.key = key
        self.version = version
        self.rng = rng

    def message(self, body: bytes | None = None, *, suite: int = _UNSIGNED, wrapping_key: bytes | None = None) -> bytes:
        return encrypt(self.body if body is None else body, wrapping_key or self.key.plain, suite)

    def record(self, message: bytes, blob: bytes | None = None) -> bytes:
        return envelope(message, self.key.blob if blob is None else blob, version=self.version)

    def whole(self) -> bytes:
        return self.record(self.message())

    def of(self, body: bytes) -> bytes:
        return self.record(self.message(body))


def _flip(message: bytes, place: int, rng: random.Random) -> bytes:
    """One bit of one byte; ``place`` counts from the end where it is below 0."""
    changed = bytearray(message)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _patch(message: bytes, place: int, new: bytes) -> bytes:
    return message[:place] + new + message[place + len(new) :]


def _fields(parts: _Parts, **changes: Any) -> bytes:
    return json.dumps(json.loads(parts.whole()) | changes).encode()


def _cut_base64(parts: _Parts) -> bytes:
    text = base64.b64encode(parts.message()).decode()
    # One character more than a whole group of four is no base64, whatever the reader pads.
    return _fields(parts, databaseActivityEvents=text[: parts.rng.randrange(40) * 4 + 4 + 1])


def _tampered(parts: _Parts) -> bytes:
    # The last 16 bytes are the final frame's tag; before them stands its ciphertext.
    return parts.record(_flip(parts.message(), -17 - parts.rng.randrange(len(parts.body)), parts.rng))


def _tampered_signed(parts: _Parts) -> bytes:
    place = -_FOOTER_BYTES - 17 - parts.rng.randrange(len(parts.body))
    return parts.record(_flip(parts.message(suite=_SIGNED), place, parts.rng))


def _bad_signature(parts: _Parts) -> bytes:
    # The last bytes are those of the signature's second number: still DER, another signature.
    return parts.record(_flip(parts.message(suite=_SIGNED), -1 - parts.rng.randrange(8), parts.rng))


def _cut_message(parts: _Parts) -> bytes:
    message = parts.message()
    return parts.record(message[: parts.rng.randrange(20, len(message))])


def _broken_gzip(parts: _Parts) -> bytes:
    # The CRC of the inflated bytes stands in the last eight.
    return parts.of(_flip(parts.body, -8 + parts.rng.randrange(4), parts.rng))


def _deep(opening: bytes, closing: bytes) -> bytes:
    return b'{"databaseActivityEventList":' + opening * _DEPTH + closing * _DEPTH + b"}"


@cache
def _bomb() -> bytes:
    """Squeezed piece by piece: whoever makes a bomb need not hold it."""
    squeezer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    spaces = b" " * (1024 * 1024)
    parts = [squeezer.compress(b'{"databaseActivityEventList":[')]
    parts += [squeezer.compress(spaces) for _ in range(BOMB_BYTES // len(spaces))]
    return b"".join([*parts, squeezer.compress(b"]}"), squeezer.flush()])


_KINDS: dict[str, tuple[Reason, Callable[[_Parts], bytes]]] = {
    "not_json": (
        Reason.ENVELOPE_MALFORMED,
        lambda parts: b'{"type":"DatabaseActivityMonitoringRecords" and then no JSON: ' + parts.body.hex().encode(),
    ),
    "empty": (Reason.ENVELOPE_MALFORMED, lambda _parts: b""),
    "cut_envelope": (Reason.ENVELOPE_MALFORMED, lambda parts: parts.whole()[: parts.rng.randrange(60, 200)]),
    "other_type": (Reason.ENVELOPE_MALFORMED, lambda parts: _fields(parts, type="SomethingElse")),
    "no_message": (
        Reason.ENVELOPE_MALFORMED,
        lambda parts: json.dumps(
            {"type": ENVELOPE_TYPE, "version": parts.version, "databaseActivityEvents": None}
        ).encode(),
    ),
    "envelope_not_utf8": (
        Reason.JSON_ENCODING,
        lambda parts: parts.whole().replace(b'"version"', b'"\xff\xfe":1,"version"'),
    ),
    "deep_envelope": (Reason.JSON_DEPTH, lambda _parts: b'{"x":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}"),
    "cut_base64": (Reason.BASE64, _cut_base64),
    "not_base64": (Reason.BASE64, lambda parts: _fields(parts, databaseActivityEvents="*not base64*")),
    "unknown_key": (
        Reason.KEY_REFUSED,
        lambda parts: parts.record(parts.message(), _flip(parts.key.blob, 90, parts.rng)),
    ),
    "wrong_key": (Reason.WRONG_KEY, lambda parts: parts.record(parts.message(wrapping_key=os.urandom(32)))),
    "cut_message": (Reason.MESSAGE_TRUNCATED, _cut_message),
    "other_message_type": (Reason.MESSAGE_MALFORMED, lambda parts: parts.record(_patch(parts.message(), 1, b"\x81"))),
    "trailing_bytes": (Reason.MESSAGE_MALFORMED, lambda parts: parts.record(parts.message() + b"\0" * 9)),
    "unknown_suite": (Reason.SUITE_UNSUPPORTED, lambda parts: parts.record(_patch(parts.message(), 2, b"\x09\x99"))),
    "tampered": (Reason.TAMPERED, _tampered),
    "tampered_signed": (Reason.TAMPERED, _tampered_signed),
    "bad_signature": (Reason.SIGNATURE, _bad_signature),
    "not_gzip": (Reason.DECOMPRESS, lambda parts: parts.of(b"PK\x03\x04" + parts.body)),
    "broken_gzip": (Reason.DECOMPRESS, _broken_gzip),
    "cut_gzip": (Reason.DECOMPRESS, lambda parts: parts.of(parts.body[:-12])),
    "gzip_bomb": (Reason.TOO_LARGE, lambda parts: parts.of(_bomb())),
    "not_json_inside": (Reason.JSON_MALFORMED, lambda parts: parts.of(squeeze(b'{"databaseActivityEventList":[{]}'))),
    "not_utf8_inside": (
        Reason.JSON_ENCODING,
        lambda parts: parts.of(squeeze(b'{"instanceId":"\xff\xfe","databaseActivityEventList":[]}')),
    ),
    "deep_inside": (Reason.JSON_DEPTH, lambda parts: parts.of(squeeze(_deep(b"[", b"]")))),
    "no_list": (Reason.SHAPE, lambda parts: parts.of(squeeze(b'{"type":"DatabaseActivityMonitoringRecord"}'))),
    "list_is_text": (Reason.SHAPE, lambda parts: parts.of(squeeze(b'{"databaseActivityEventList":"none"}'))),
}


#: Kind of damage → the reason that the record should become a dead letter for.
DAMAGES: dict[str, Reason] = {kind: reason for kind, (reason, _breaks) in _KINDS.items()}
