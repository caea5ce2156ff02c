"""Where JSON values begin and end in a file, whatever the file holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.sources import file_values
from shipper.sources.file_values import LOOK_BACK, MAX_DEPTH, Splitter

Found = list[tuple[int, bytes]]


def split(content: bytes, *, block: int = 1 << 20, begin: int = 0, limit: int = 1 << 20) -> Found:
    """What reading ``content`` from ``begin`` in blocks gives."""
    splitter = Splitter(limit=limit)
    found: Found = []
    pending, offset, before = b"", begin, content[max(0, begin - LOOK_BACK) : begin]
    for start in range(begin, len(content) + block, block):
        data = pending + content[start : start + block]
        records, used = splitter.split(data, offset, before=before, final=start >= len(content))
        found += [(record.position, record.data) for record in records]
        pending, offset, before = data[used:], offset + used, (before + data[:used])[-LOOK_BACK:]
    return found


def values(content: bytes) -> list[bytes]:
    return [data for _, data in split(content)]


def test_each_line_is_a_value_at_its_offset() -> None:
    assert split(b'{"a":1}\n{"b":{"c":2}}\n') == [(0, b'{"a":1}'), (8, b'{"b":{"c":2}}')]


def test_windows_line_ends_and_a_byte_order_mark_are_left_out() -> None:
    assert split(b'\xef\xbb\xbf{"a":1}\r\n{"b":2}\r\n') == [(3, b'{"a":1}'), (12, b'{"b":2}')]


def test_blank_lines_are_no_values() -> None:
    assert values(b'\n\n{"a":1}\n  \t\n\n{"b":2}\n\n') == [b'{"a":1}', b'{"b":2}']


def test_the_last_value_needs_no_line_end() -> None:
    assert values(b'{"a":1}\n{"b":2}') == [b'{"a":1}', b'{"b":2}']


def test_objects_without_a_separator_are_told_apart() -> None:
    assert split(b'{"a":"}{"}{"b":{"c":[1]}} {"d":1}') == [
        (0, b'{"a":"}{"}'),
        (10, b'{"b":{"c":[1]}}'),
        (26, b'{"d":1}'),
    ]


def test_a_brace_in_a_string_does_not_end_a_value() -> None:
    line = rb'{"a":"x} {\"y\":1} z","b":{"c":"\\"}}'
    assert values(line + b"\n" + line) == [line, line]


def test_objects_of_several_lines_are_joined() -> None:
    pretty = b'{\n  "a": [\n    1,\n    {"b": null}\n  ],\n  "c": {}\n}'
    assert values(pretty + b"\n" + pretty + pretty + b'\n{"d":1}\n') == [pretty, pretty, pretty, b'{"d":1}']


def test_values_nested_deeper_than_the_short_way_are_joined_too() -> None:
    deep = b'{"a":\n' * 50 + b"[true]" + b"}" * 50
    assert values(deep + deep) == [deep, deep]


def test_scalars_and_arrays_are_values_of_their_line() -> None:
    assert values(b'1\n"x"\n[1,2]\nnull\n') == [b"1", b'"x"', b"[1,2]", b"null"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json",
        b'{"cut": "off',
        b'{"cut":',
        b'{"cut":{',
        b'{"cut":[1,',
        b"[",
        b"}",
        b"]]",
        b'"',
        b'{"a":1}}',
        b"\x00\x00\x00",
        b"\xff\xfe\xfa",
        b'{"escape":"\\',
        b"{" * 5000,
        b"[" * 5000,
    ],
)
def test_garbage_is_given_and_hurts_no_neighbour(garbage: bytes) -> None:
    neighbours = [b'{"a":1}', b'{"b":{"c":2}}', b'{"d":3}']
    found = values(neighbours[0] + b"\n" + garbage + b"\n" + neighbours[1] + b"\n" + neighbours[2] + b"\n")
    assert [data for data in found if data in neighbours] == neighbours
    assert b"".join(data for data in found if data not in neighbours).startswith(garbage[:7])


@pytest.mark.parametrize("garbage", [b"GARBAGE", b'{"type":"Da', b'{"ty', b'{"a":1,', b"\x00", b'{"a":{"b":1}, !}'])
def test_garbage_between_joined_objects_hurts_no_neighbour(garbage: bytes) -> None:
    found = values(b'{"x":1}' + garbage + b'{"type":2}{"y":{"z":3}}')
    assert found[0] == b'{"x":1}'
    assert found[-2:] == [b'{"type":2}', b'{"y":{"z":3}}']
    assert b"".join(found[1:-2]) == garbage


def test_an_object_of_several_lines_that_is_cut_off_is_one_record() -> None:
    assert values(b'{\n  "a": 1,\n  "b": {\n{"c":1}\n{"d":1}\n') == [b'{\n  "a": 1,\n  "b": {', b'{"c":1}', b'{"d":1}']


def test_a_cut_off_last_value_is_given_as_it_is() -> None:
    assert values(b'{"a":1}\n{\n  "b": [1,') == [b'{"a":1}', b'{\n  "b": [1,']


def test_what_has_no_end_is_cut_into_pieces_of_the_limit() -> None:
    found = split(b'{"a":1}\n"' + b"x" * 250 + b'\n{"b":1}\n', limit=100)
    assert [len(data) for _, data in found] == [7, 100, 100, 51, 7]
    assert found[-1][1] == b'{"b":1}'


def test_a_value_of_several_lines_beyond_the_limit_is_cut_too() -> None:
    found = split(b"[\n" + b'"aaaaaaa",\n' * 30 + b']\n{"b":1}\n', limit=100)
    assert max(len(data) for _, data in found) <= 100
    assert found[-1][1] == b'{"b":1}'


def test_an_unfinished_line_waits_for_its_end() -> None:
    records, used = Splitter().split(b'{"a":1}\n{"b":2}', 0, before=b"", final=False)
    assert [record.data for record in records] == [b'{"a":1}']
    assert used == 8


def test_records_carry_when_they_arrived() -> None:
    records, _ = Splitter(arrived=42).split(b'{"a":1}\n{"b":2}', 0, before=b"", final=True)
    assert [record.arrived for record in records] == [42, 42]


@pytest.mark.parametrize(
    "piece",
    [
        b'{"a":\n',
        b"[\n",
        b"[",
        b'{"b":1},\n  [\n',
        b'{"a":1}{"b":',
        b'{"a":1} x {',
        b"}{",
        b'"\\',
        b'{"a":"\n',
        b'{"a":[1,2,\n',
        b'{"a":1},',
        b'{"a":1}, ',
        b'{"a":1}{"b":2},',
    ],
)
def test_scanning_is_linear_in_what_an_attacker_writes(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = 0

    class Counted:
        """A pattern's method that counts the bytes that it may have looked at."""

        def __init__(self, method: Callable[..., re.Match[bytes] | None]) -> None:
            self.method = method

        def __call__(self, data: bytes, at: int = 0, stop: int | None = None) -> re.Match[bytes] | None:
            nonlocal scanned
            found = self.method(data, at) if stop is None else self.method(data, at, stop)
            scanned += (found.end() if found else len(data) if stop is None else stop) - at
            return found

    def counted_scan(data: bytes, at: int, stop: int) -> Any:
        nonlocal scanned
        result = real_scan(data, at, stop)
        scanned += result.end - at
        return result

    real_scan = file_values._scan
    monkeypatch.setattr(file_values, "_scan", counted_scan)
    for name in ("_joined", "_object"):
        pattern = getattr(file_values, name)
        monkeypatch.setattr(file_values, name, Counted(pattern))
    content = piece * (200_000 // len(piece))
    split(content, block=1 << 20)
    assert scanned < 5 * len(content)


_pieces = [
    *(bytes([byte]) for byte in b'{}[]"\\,:\n\n \r1x\0'),
    *(b'"a"', b'{"a":1}', b'{"a":1},', b'{"a":', b'{"b":{"c":"}"}}', b'{\n  "a": [1,\n2]\n}'),
    *(b"\n{", b"}\n", b"}{", b"\xef\xbb\xbf"),
]
_soup = st.lists(st.sampled_from(_pieces), max_size=40).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(_soup, st.integers(1, 30))
def test_records_do_not_depend_on_the_size_of_the_blocks(content: bytes, block: int) -> None:
    assert split(content, block=block, limit=64) == split(content, limit=64)


@settings(max_examples=400, deadline=None)
@given(_soup)
def test_reading_from_any_record_gives_the_same_ones(content: bytes) -> None:
    found = split(content, limit=64)
    for index, (position, _) in enumerate(found):
        assert split(content, begin=position, limit=64) == found[index:]


@settings(max_examples=400, deadline=None)
@given(_soup)
def test_no_byte_but_white_space_is_lost(content: bytes) -> None:
    found = split(content, limit=64)
    assert all(content[position : position + len(data)] == data for position, data in found)
    left = bytearray(content)
    for position, data in reversed(found):
        del left[position : position + len(data)]
    assert left.replace(b"\xef\xbb\xbf", b"").strip() == b""


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
_objects = st.lists(st.dictionaries(st.text(max_size=4), _json, max_size=4), max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    _objects, st.sampled_from([b"\n", b"", b"\r\n", b" ", b"\n\n"]), st.sampled_from([-1, 0, 2]), st.integers(1, 200)
)
def test_every_object_is_found_however_it_was_written(
    objects: list[dict[str, object]], between: bytes, indent: int, block: int
) -> None:
    written = [msgspec.json.format(msgspec.json.encode(value), indent=indent) for value in objects]
    assert [data for _, data in split(between.join(written), block=block)] == written


def test_nesting_beyond_the_limit_is_given_as_garbage() -> None:
    line = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b","
    assert values(line + b'\n{"a":1}') == [line, b'{"a":1}']
