"""The bookmark: how long each file was when the positions beside it in the state file were committed."""

from __future__ import annotations

import hashlib

import msgspec

#: Bytes before a file's end that are remembered as a checksum: they prove that it is the same file.
TAIL = 4096


class Mark(msgspec.Struct, frozen=True):
    """One file. ``target`` is its rendered path and ``path`` what it is really called, both below the folder;
    ``length`` is in bytes on disk, ``born`` in seconds since 1970-01-01 UTC."""

    target: str
    path: str
    number: int
    length: int
    checksum: str
    born: float


class Bookmark(msgspec.Struct, frozen=True):
    """Every file that may still be appended to, below an absolute ``folder``."""

    folder: str
    files: list[Mark]
    version: int = 1

    def encode(self) -> bytes:
        return _encode(self)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Bookmark).decode


def decode(data: bytes) -> Bookmark:
    """Raises ``ValueError`` for what this version did not write."""
    try:
        found = _decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if found.version != 1:
        raise ValueError(f"version {found.version}")
    return found


def checksum(tail: bytes) -> str:
    """Of the last ``TAIL`` bytes of a file."""
    return hashlib.blake2b(tail, digest_size=16).hexdigest()
