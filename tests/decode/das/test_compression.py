"""gzip is unpacked within bounds; whatever is wrong with it is one reason."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.decode import Reason, Undecodable
from shipper.decode.das.compression import inflate

TEXT = b'{"type":"DatabaseActivityMonitoringRecord"}' * 20
PACKED = gzip.compress(TEXT)


def reason_of(data: bytes, max_bytes: int = 1_000_000) -> Reason:
    with pytest.raises(Undecodable) as caught:
        inflate(data, max_bytes=max_bytes)
    return caught.value.reason


def test_gzip_is_unpacked_and_json_passes() -> None:
    assert inflate(PACKED, max_bytes=len(TEXT)) == TEXT
    assert inflate(TEXT, max_bytes=len(TEXT)) == TEXT
    assert inflate(gzip.compress(b""), max_bytes=0) == b""


def test_a_header_with_every_optional_field_is_read() -> None:
    header = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x03\x00abc" + b"name.json\x00" + b"comment\x00"
    assert inflate(header + PACKED[10:], max_bytes=len(TEXT)) == TEXT


def test_members_are_joined() -> None:
    assert inflate(PACKED * 3, max_bytes=3 * len(TEXT)) == TEXT * 3
    large = bytes(range(256)) * 4096
    assert inflate(gzip.compress(large, 0) * 2 + PACKED, max_bytes=10_000_000) == large * 2 + TEXT


def test_more_than_the_bound_is_too_large() -> None:
    assert reason_of(PACKED, len(TEXT) - 1) == Reason.TOO_LARGE
    assert reason_of(TEXT, len(TEXT) - 1) == Reason.TOO_LARGE
    assert reason_of(PACKED * 3, 3 * len(TEXT) - 1) == Reason.TOO_LARGE
    assert reason_of(PACKED, 0) == Reason.TOO_LARGE


def test_a_bomb_never_takes_more_memory_than_the_bound() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    assert len(bomb) < 400_000
    max_bytes = 4_000_000
    for data in (bomb, PACKED + bomb, gzip.compress(b"") * 500 + bomb):
        tracemalloc.start()
        assert reason_of(data, max_bytes) == Reason.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * max_bytes  # buffers double while they grow


def test_many_tiny_members_are_refused() -> None:
    member = gzip.compress(b"")
    assert inflate(member * 1000, max_bytes=10) == b""
    assert reason_of(member * 200_000) == Reason.DECOMPRESS


def test_gzip_that_is_cut_anywhere_is_refused() -> None:
    for size in range(len(PACKED)):
        assert reason_of(PACKED[:size]) == Reason.DECOMPRESS
        if size:
            assert reason_of(PACKED + PACKED[:size]) == Reason.DECOMPRESS


@pytest.mark.parametrize("tail", [b"\0", b"garbage", b"\x1f", b"\x1f\x8b", b"{}"])
def test_anything_after_the_gzip_is_refused(tail: bytes) -> None:
    assert reason_of(PACKED + tail) == Reason.DECOMPRESS


@pytest.mark.parametrize("at", [-1, -5, 0, 1, 2, 12])
def test_damage_is_noticed(at: int) -> None:
    changed = bytearray(PACKED)
    changed[at] ^= 0xFF
    assert reason_of(bytes(changed)) == Reason.DECOMPRESS


@pytest.mark.parametrize("data", [b"", b"[]", b" {}", zlib.compress(TEXT), b"plain text"])
def test_anything_but_gzip_and_an_object_is_refused(data: bytes) -> None:
    assert reason_of(data) == Reason.DECOMPRESS


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(0, 2000), st.binary(max_size=3))
@settings(max_examples=200, deadline=None)
def test_mutations_raise_nothing_else_and_never_more_than_the_bound(
    texts: list[bytes], at: int, replacement: bytes
) -> None:
    data = bytearray(b"".join(map(gzip.compress, texts)))
    at %= len(data)
    data[at : at + len(replacement)] = replacement
    try:
        size = len(inflate(bytes(data), max_bytes=500))
        reason = None
    except Undecodable as error:
        size, reason = 0, error.reason
    assert size <= 500
    assert reason in (None, Reason.DECOMPRESS, Reason.TOO_LARGE)
