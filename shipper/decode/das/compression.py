"""Unpacks what was encrypted: gzip, as every engine writes it, or bare JSON. Bounds what a gzip bomb can take."""

from __future__ import annotations

from isal import igzip_lib, isal_zlib

from shipper.decode import Reason, Undecodable

_MAGIC = b"\x1f\x8b"
#: zlib's ``wbits`` for gzip with the largest window.
_GZIP = 31

# The stubs have instances for the classes.
_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
_ZlibError: type[Exception] = isal_zlib.error  # type: ignore[assignment]

#: How much compressed input is fed at once where there are several members, so that what is left over stays small.
_WINDOW = 64 * 1024

#: An engine writes one member; each costs a set-up, so a record of tiny ones would cost far more than its size.
_MAX_MEMBERS = 1000


def inflate(data: bytes, *, max_bytes: int) -> bytes:
    """The JSON bytes of a decrypted message; several gzip members (RFC 1952) are joined.

    At most ``max_bytes`` + 1 bytes are ever produced. Raises ``Undecodable``: ``too_large`` where there is more than
    ``max_bytes``, ``decompress`` where the gzip is truncated, damaged (checksum, length) or followed by anything else.
    """
    if data[:1] == b"{":
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
        return data
    if data[:2] != _MAGIC:
        raise Undecodable(Reason.DECOMPRESS, "the plaintext is neither gzip nor JSON")
    # For one small member this kind of decompressor costs a fifteenth of the other, which keeps more state.
    decompressor = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        plain: bytes = decompressor.decompress(data, max_bytes + 1)
    except _ZlibError as error:
        raise _damaged(error) from None
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if decompressor.eof and not decompressor.unused_data:
        return plain
    if not decompressor.eof:
        raise Undecodable(Reason.DECOMPRESS, "the gzip data ends too early")
    return _members(data, max_bytes)


def _members(data: bytes, max_bytes: int) -> bytes:
    rest = memoryview(data)
    parts: list[bytes] = []
    size = begin = 0
    for _ in range(_MAX_MEMBERS):
        if rest[begin : begin + 2] != _MAGIC:
            raise Undecodable(Reason.DECOMPRESS, "the gzip data is followed by something that is not gzip")
        decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while not decompressor.eof:
            window = rest[begin : begin + _WINDOW] if decompressor.needs_input else b""
            if decompressor.needs_input and not window:
                raise Undecodable(Reason.DECOMPRESS, "the gzip data ends too early")
            begin += len(window)
            try:
                parts.append(decompressor.decompress(window, max_bytes + 1 - size))
            except _IsalError as error:
                raise _damaged(error) from None
            size += len(parts[-1])
            if size > max_bytes:
                raise _too_large(max_bytes)
        begin -= len(decompressor.unused_data)
        if begin == len(rest):
            return b"".join(parts)
    raise Undecodable(Reason.DECOMPRESS, f"more than {_MAX_MEMBERS} gzip members")


def _too_large(max_bytes: int) -> Undecodable:
    return Undecodable(Reason.TOO_LARGE, f"more than {max_bytes} bytes when unpacked")


def _damaged(error: Exception) -> Undecodable:
    return Undecodable(Reason.DECOMPRESS, f"the gzip data is damaged: {error}")
