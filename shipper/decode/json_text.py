"""Where things stand in JSON text, without decoding it: linear, free of recursion, at home in damaged and hostile text.

msgspec decodes what is sound. This is for the rest: it finds the events of a record of which one is damaged, and the
members of an object with fields that nobody knows, so that they can be kept in the engine's own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

__all__ = [
    "COMPACT_EVENT",
    "Member",
    "NotJson",
    "check",
    "compact",
    "elements",
    "exceeds_depth",
    "laid_out",
    "members",
    "object_start",
    "replace_lone_surrogates",
]


class Member(NamedTuple):
    """Where a member of an object stands: from ``begin``, its value from ``value`` to ``end``."""

    name: str
    begin: int
    value: int
    end: int


class NotJson(ValueError):
    """The text has no JSON structure at the place where one was expected."""


# Possessive quantifiers: each of these patterns reads every byte once, whatever the text is.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_AT = re.compile(_STRING, re.DOTALL)
_NESTING = re.compile(rb"([\[{]++)|([\]}]++)|(" + _STRING + rb')|"', re.DOTALL)
_SCALAR_AT = re.compile(rb'[^\s,:"{}\[\]]++')
_SPACE_AT = re.compile(rb"[ \t\r\n]*+")
# A name, and where the value is a string or a scalar, that and what follows it.
_MEMBER_AT = re.compile(
    rb"[ \t\r\n]*+(" + _STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+"
    rb"(?:(" + _STRING + rb"|[^\s,:\"{}\[\]]++)[ \t\r\n]*+([,}]))?+",
    re.DOTALL,
)
_AFTER_AT = re.compile(rb"[ \t\r\n]*+([,}\]])")
_SPACE_OUTSIDE_STRINGS = re.compile(rb"(" + _STRING + rb")|[ \t\r\n]++", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
#: How the engines' events mostly begin: without white space between their tokens.
COMPACT_EVENT = (b'{"logTime":"', b'{"class":"')
_QUOTE, _OPENERS = 0x22, b"{["
_REPLACEMENT = rb"\ufffd"

_check = msgspec.json.Decoder(msgspec.Raw).decode
_decode_string = msgspec.json.Decoder(str).decode


def check(text: bytes) -> None:
    """Raises ``msgspec.DecodeError`` or ``RecursionError`` unless the text is one JSON value (UTF-8 is not checked)."""
    _check(text)


def object_start(text: bytes) -> int:
    """The index of the ``{`` that the text begins with. Raises ``NotJson`` where it begins otherwise."""
    at = _skip_space(text, 0)
    if text[at : at + 1] != b"{":
        raise NotJson("not an object")
    return at


def members(text: bytes, start: int) -> Iterator[Member]:
    """The members of the object whose ``{`` stands at ``start``. Values are not checked.

    Raises ``NotJson`` where the structure breaks, and for anything but white space after the object.
    """
    at = _skip_space(text, start + 1)
    if text[at : at + 1] == b"}":
        _end(text, at + 1)
        return
    while True:
        member = _MEMBER_AT.match(text, at)
        if member is None:
            raise NotJson("a member was expected")
        closing = member[3]
        if closing is None:
            end = _value_end(text, member.end())
            after = _AFTER_AT.match(text, end)
            if after is None or after[1] == b"]":
                raise NotJson("a comma or the end of an object was expected")
            yield Member(_name(member[1]), member.start(1), member.end(), end)
            at, closing = after.end(), after[1]
        else:
            yield Member(_name(member[1]), member.start(1), member.start(2), member.end(2))
            at = member.end()
        if closing == b"}":
            _end(text, at)
            return


def elements(text: bytes) -> Iterator[bytes]:
    """The elements of the array that the text is, each in its own bytes. Raises ``NotJson`` where it breaks."""
    at = _skip_space(text, 0)
    if text[at : at + 1] != b"[":
        raise NotJson("not a list")
    at = _skip_space(text, at + 1)
    if text[at : at + 1] == b"]":
        _end(text, at + 1)
        return
    while True:
        at = _skip_space(text, at)
        end = _value_end(text, at)
        yield text[at:end]
        after = _AFTER_AT.match(text, end)
        if after is None or after[1] == b"}":
            raise NotJson("a comma or the end of a list was expected")
        at = after.end()
        if after[1] == b"]":
            _end(text, at)
            return


def exceeds_depth(text: bytes, limit: int) -> bool:
    """Whether lists and objects are nested deeper than ``limit``."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    depth = 0
    for token in _NESTING.finditer(text):
        kind = token.lastindex
        if kind == 1:
            depth += len(token[1])
            if depth > limit:
                return True
        elif kind == 2:
            depth -= len(token[2])
    return False


def replace_lone_surrogates(text: bytes) -> bytes:
    r"""The text with every escape of half a character (``\ud800``) as ``\ufffd``: the same length, so places hold.

    Engines cut statements between the two halves, and strict readers refuse the whole text for it.
    """
    if b"\\u" not in text:
        return text
    pieces: list[bytes] = []
    done = 0
    high: re.Match[bytes] | None = None  # a first half that still waits for its second
    for escape in _ESCAPE.finditer(text):
        code = int(escape[1], 16) if escape[1] else 0
        if 0xDC00 <= code <= 0xDFFF:
            if high is not None and high.end() == escape.start():
                high = None
                continue
            lone = [high, escape]
            high = None
        elif 0xD800 <= code <= 0xDBFF:
            lone, high = [high], escape
        else:
            lone, high = [high], None
        for match in lone:
            if match is not None:
                pieces += (text[done : match.start()], _REPLACEMENT)
                done = match.end()
    if high is not None:
        pieces += (text[done : high.start()], _REPLACEMENT)
        done = high.end()
    pieces.append(text[done:])
    return b"".join(pieces)


def laid_out(text: bytes) -> bool:
    """Whether whoever wrote an object put white space between its tokens, by a look at its first member: a writer does
    it everywhere or nowhere. Only a line feed is looked for in all of it. (Making sure costs as much as the id's
    hash.)"""
    if text.startswith(COMPACT_EVENT):
        return b"\n" in text
    end = text.find(b'"', 2)  # of the first name
    return text[1:2] != b'"' or text[end + 1 : end + 2] != b":" or text[end + 2 : end + 3] == b" " or b"\n" in text


def compact(text: bytes) -> bytes:
    """The text without white space between its tokens; strings and numbers as they are, half characters included."""
    return _SPACE_OUTSIDE_STRINGS.sub(rb"\1", text)


def _name(text: bytes) -> str:
    if b"\\" in text:
        try:
            return _decode_string(replace_lone_surrogates(text))
        except msgspec.DecodeError as error:
            raise NotJson("a name is not a string") from error
    return text[1:-1].decode("utf-8", "replace")


def _value_end(text: bytes, at: int) -> int:
    first = text[at : at + 1]
    if first == b'"':
        string = _STRING_AT.match(text, at)
        if string is None:
            raise NotJson("a string does not end")
        return string.end()
    if first and first in _OPENERS:
        return _nested_end(text, at)
    scalar = _SCALAR_AT.match(text, at)
    if scalar is None:
        raise NotJson("a value was expected")
    return scalar.end()


def _nested_end(text: bytes, at: int) -> int:
    depth = 0
    for token in _NESTING.finditer(text, at):
        kind = token.lastindex
        if kind == 1:
            depth += len(token[1])
        elif kind == 2:
            closers = len(token[2])
            if closers >= depth:
                return token.start() + depth
            depth -= closers
        elif kind is None:
            raise NotJson("a string does not end")
    raise NotJson("an object or a list does not end")


def _skip_space(text: bytes, at: int) -> int:
    space = _SPACE_AT.match(text, at)
    return space.end() if space else at


def _end(text: bytes, at: int) -> None:
    if _skip_space(text, at) != len(text):
        raise NotJson("something follows the end")
