"""MySQL's escaped statements: the quick way gives what reading escape by escape gives."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shipper.decode.das.statements import unescape

_ESCAPED = re.compile(r"\\([btnfr'\"\\])")
_MEANING = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "'": "'", '"': '"', "\\": "\\"}


@given(st.text(alphabet="\\'\"btnfrx é", max_size=40))
def test_every_escape_stands_for_what_it_is(statement: str) -> None:
    assert unescape(statement) == _ESCAPED.sub(lambda escape: _MEANING[escape[1]], statement)
