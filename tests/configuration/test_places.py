"""Every key of a TOML file is found on its line, whatever the file's author writes around it."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shipper.configuration.places import places

EVERYTHING = '''\
top = 1  # a comment with [brackets] and "quotes"
[outputs.siem]
a."b c".'d"e' = """first
[not.a.table] ""quoted""
key = "not a key"
last""""

list = [ 1, # ]
  "]", { inner = 2, deep = [3,
  4] },
]
when = 2026-01-31T12:00:00Z # x = 1
literal = \'\'\'
x = 1
\'\'\'
[[many]]
p = 1
[[many]]
p = 2
[many.below]
q = 'it"s'
'''


def test_all_forms_of_keys_and_values_are_passed_over_correctly() -> None:
    tomllib.loads(EVERYTHING)
    assert places(EVERYTHING) == {
        ("top",): 1,
        ("outputs",): 2,
        ("outputs", "siem"): 2,
        ("outputs", "siem", "a"): 3,
        ("outputs", "siem", "a", "b c"): 3,
        ("outputs", "siem", "a", "b c", 'd"e'): 3,
        ("outputs", "siem", "list"): 8,
        ("outputs", "siem", "list", 0): 8,
        ("outputs", "siem", "list", 1): 9,
        ("outputs", "siem", "list", 2): 9,
        ("outputs", "siem", "list", 2, "inner"): 9,
        ("outputs", "siem", "list", 2, "deep"): 9,
        ("outputs", "siem", "list", 2, "deep", 0): 9,
        ("outputs", "siem", "list", 2, "deep", 1): 10,
        ("outputs", "siem", "when"): 12,
        ("outputs", "siem", "literal"): 13,
        ("many",): 16,
        ("many", 0): 16,
        ("many", 0, "p"): 17,
        ("many", 1): 18,
        ("many", 1, "p"): 19,
        ("many", 1, "below"): 20,
        ("many", 1, "below", "q"): 21,
    }


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found |= _paths(inner, (*path, key))
    return found


_PIECES = st.sampled_from(
    ["a", "b", " ", "=", "1", "[", "]", "[[", "]]", ".", '"', "'", '"""', "'''", "\n", "#", ",", "{", "}", "\\", "é"]
)


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_whatever_is_toml_has_all_its_keys_found(text: str) -> None:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        places(text)  # whatever it finds, it ends
    else:
        assert set(places(text)) == _paths(table)
