"""The server's own words without what they repeat of the event: its errors quote values, and a detail is logged."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipper.event import FIELDS
from shipper_opensearch.bulk import Cause

MAX_WORDS = 400

#: What follows is a value of the event, to the end (mapper_parsing_exception).
_PREVIEW = re.compile(r"\s*Preview of field's value:.*", re.DOTALL)
#: The beginning of a term as numbers (immense terms).
_PREFIX = re.compile(r"The prefix of the first immense term is: '\[[-\d, ]*\]?(\.\.\.)?'?,?\s*")
#: The security plugin's portrait of us, in brackets within brackets.
_USER = re.compile(r" and User \[name=.*", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"|\[([^\[\]]*)\]")
_TYPES = frozenset(
    re.findall(
        r"\w+",
        "alias binary boolean byte completion date date_nanos double flat_object float geo_point half_float integer ip "
        "ip_range join keyword long nested object percolator scaled_float search_as_you_type short text token_count "
        "unsigned_long wildcard version constant_keyword _doc _id _index _source _routing",
    )
)
#: Names of settings, of exceptions and of plugins, limits, and formats of dates: no values of events look like these.
_PLAIN = re.compile(
    r"\d{1,6}|\d+/\d+|[a-z_]+_exception|(index|cluster|action|indices|http|plugins)\.[a-z_.]+|true|false"
    r"|[A-Z_]+/\d+/[a-z0-9 ,()-]+|\w+=\d+(, \w+=\d+)*"
    r"|cluster:[a-z/_]+|indices:[a-z/_]+(\[s\]|\[\w\])?|strict_date\w*|yyyy-MM-dd[\w':. -]*"
)


def words(cause: Cause | None, known: frozenset[str] = frozenset()) -> str:
    """What the server says, with its cause. Of what stands in quotes or brackets only what is in ``known`` (names of
    indices, of pipelines), names of fields and types, and numbers are repeated."""
    return ": ".join(_chain(cause, known))[:MAX_WORDS]


def _chain(cause: Cause | None, known: frozenset[str]) -> Iterator[str]:
    for _ in range(4):
        if cause is None:
            return
        # A pipeline's own message is a template: it may hold anything of the event.
        reason = "" if cause.type == "fail_processor_exception" else plain(cause.reason or "", known)
        yield f"{cause.type}: {reason}" if reason else cause.type
        cause = cause.caused_by


def plain(text: str, known: frozenset[str] = frozenset()) -> str:
    """A text of the server without values of events. Where quotes are not what they seem, all between them goes."""
    text = _USER.sub("", _PREFIX.sub("", _PREVIEW.sub("", text)))
    quoted = list(_QUOTED.finditer(text))
    strange = [found for found in quoted if not _is_ours(found[1] or found[2] or found[3] or "", known)]
    if not strange:
        return _one_line(text)
    # A value may have quotes of its own: what lies between the first strange quote and the last one is left out.
    start = strange[0].start() + 1
    end = max(text.rfind(mark) for mark in "'\"]")
    if len(strange) == 1 and strange[0].end() - 1 == end:
        return _one_line(f"{text[:start]}…{text[end:]}")
    return _one_line(f"{text[:start]}…{text[max(start, end) :]}")


def _is_ours(word: str, known: frozenset[str]) -> bool:
    first = word.partition(".")[0]
    named = word.isidentifier() or re.fullmatch(r"(native|labels)\.[a-z0-9_]{1,100}", word)
    return (
        word in known
        or word in _TYPES
        or (first in FIELDS and bool(named))
        or word == "@timestamp"
        or _PLAIN.fullmatch(word) is not None
    )


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip(" ;")
