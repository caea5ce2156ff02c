"""Finding one's way in JSON text without decoding it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper.decode.json_text import (
    NotJson,
    compact,
    elements,
    exceeds_depth,
    members,
    object_start,
    replace_lone_surrogates,
)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
INDENTS = st.sampled_from([None, 0, 1])


def read_object(text: bytes) -> dict[str, object]:
    found = members(text, object_start(text))
    return {member.name: json.loads(text[member.value : member.end]) for member in found}


@given(st.dictionaries(st.text(), JSON), st.booleans(), INDENTS)
def test_the_members_of_any_object_are_found(value: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    assert read_object(b" \n" + text + b"\t") == json.loads(text)


@given(st.lists(JSON), INDENTS)
def test_the_elements_of_any_list_are_found(value: list[object], indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode()
    assert [json.loads(element) for element in elements(text)] == value


@given(JSON, INDENTS)
def test_compact_text_is_what_msgspec_makes_of_it(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    assert compact(text) == msgspec.json.format(text, indent=-1)


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8 1', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    for read in (read_text_members, lambda text: list(elements(text))):
        try:
            read(text)
        except NotJson:
            continue
    exceeds_depth(text, 3)
    assert len(replace_lone_surrogates(text)) == len(text)
    compact(text)


def read_text_members(text: bytes) -> object:
    return list(members(text, object_start(text)))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1,}', b'{"a":1]', b'{"a":[1}', b'{"a":"x}', b'{"a":1} x'],
)
def test_an_object_that_breaks_is_no_object(text: bytes) -> None:
    with pytest.raises(NotJson):
        read_text_members(text)


@pytest.mark.parametrize("text", [b"", b"{}", b"[", b"[1", b"[1,", b"[,]", b"[1}", b'["x]', b"[1] x", b"[[1]"])
def test_a_list_that_breaks_is_no_list(text: bytes) -> None:
    with pytest.raises(NotJson):
        list(elements(text))


def test_an_element_that_is_damaged_is_found_as_it_is() -> None:
    damaged = b'{"a":NaN,"b":"\xff\\ud800",c}'
    assert list(elements(b'[{"a":1} , ' + damaged + b', "]}," , [[]]]')) == [b'{"a":1}', damaged, b'"]},"', b"[[]]"]


@pytest.mark.parametrize(
    ("text", "depth"), [(b"1", 0), (b"[]", 1), (b'{"a":[{}],"b":[]}', 3), (b'["[[[[[["]', 1), (b"[[],[],[[]]]", 3)]
)
def test_depth_counts_what_is_nested_and_not_what_stands_in_strings(text: bytes, depth: int) -> None:
    assert not exceeds_depth(text, depth)
    assert depth == 0 or exceeds_depth(text, depth - 1)


@given(st.lists(st.sampled_from(["\\ud83d", "\\ude00", "\\u0041", "\\\\", "\\n", "u", "d800", '\\"'])))
def test_only_halves_without_their_other_half_are_replaced(parts: list[str]) -> None:
    text = '"' + "".join(parts) + '"'
    sound = replace_lone_surrogates(text.encode())
    assert len(sound) == len(text)
    expected = json.loads(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert msgspec.json.decode(sound) == expected
