"""Takes apart records that the Kinesis Producer Library packed several user records into.

Source: "KPL aggregated record format" of awslabs/amazon-kinesis-producer: four magic bytes, a protocol buffers message,
its MD5. Activity streams are not normally aggregated; a stream that they were copied to may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import md5

_MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES = 16

# Numbers of fields in the format's .proto, with the wire type in the low three bits.
_BYTES = 2
_RECORDS = 3 << 3 | _BYTES
_DATA = 3 << 3 | _BYTES
_FIXED = {1: 8, 5: 4}

#: A protocol buffers integer has 64 bits, 7 to a byte.
_MAX_VARINT_BYTES = 10


class _Malformed(Exception):
    pass


def user_records(data: bytes) -> list[bytes] | None:
    """The data of each user record, in order; ``None`` where ``data`` is not an aggregate: without the magic bytes,
    with another checksum, or not of the format behind both (then it is some other record, to be judged as such)."""
    if data[:4] != _MAGIC or len(data) < len(_MAGIC) + _DIGEST_BYTES:
        return None
    body = data[len(_MAGIC) : -_DIGEST_BYTES]
    if md5(body, usedforsecurity=False).digest() != data[-_DIGEST_BYTES:]:
        return None
    try:
        return [_data(body[begin:end]) for tag, begin, end in _fields(body) if tag == _RECORDS]
    except _Malformed:
        return None


def _data(record: bytes) -> bytes:
    found = None
    for tag, begin, end in _fields(record):
        if tag == _DATA:
            found = record[begin:end]  # of a field that is there twice, the last one counts
    if found is None:
        raise _Malformed
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, beginning and end of each field's value."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == 0:
            end = _varint(message, at)[1]
        elif wire_type == _BYTES:
            size, at = _varint(message, at)
            end = at + size
        elif wire_type in _FIXED:
            end = at + _FIXED[wire_type]
        else:
            raise _Malformed
        if end > len(message):
            raise _Malformed
        yield tag, at, end
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise _Malformed
