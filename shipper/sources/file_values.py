"""Tells where each JSON value of a file begins and ends: JSON lines, or objects without a separator (Firehose).

A value's extent depends on nothing but the bytes from its beginning on (and whether the byte before it closes an
object), so that reading may begin again at any value and finds the same ones. The rule, at the first byte that is
neither white space nor a byte order mark:

- a line that holds one value is that value;
- an object or array that closes before the line does, or on a later line, ends where it closes;
- anything else (garbage, something cut off) is the rest of its line, for the decoder to refuse. Where several objects
  share the line it ends before the next ``{"``; where the damage shows on a later line, it ends before the first line
  that begins with ``{``, or else before the line of the damage. So bad bytes take no neighbour along.
- more than ``LIMIT`` bytes without an end are cut into pieces of that size.

Time is linear in the size of the file whatever it holds: what a failed scan learned is kept, and nothing recurses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shipper.source import Record

#: Bytes of the longest value; the largest Kinesis record is 10 MiB (Kinesis Data Streams quotas).
LIMIT: Final = 32 * 1024 * 1024
#: Nesting that the scanner follows; decoders refuse far less.
MAX_DEPTH: Final = 1000
#: Bytes before a value that tell whether it follows an object on the same line.
LOOK_BACK: Final = 16

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_STRING = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_SCALAR = rb"[-+.0-9A-Za-z]++"
_WS = rb"[ \t\r\n]*+"
_gap = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*+").match
#: In one JSON value a brace outside strings is followed by a comma, by another closing one, or by nothing.
_joined = re.compile(rb"\}[ \t\r]*+[^,}\] \t\r\n]").search
_OBJECT = re.compile(rb'\{[ \t\r]*+"')
_object = _OBJECT.search
_object_at = _OBJECT.match
_token = re.compile(_WS + rb"(?:([{\[])|([}\]])|(,)|(:)|(" + _STRING + rb")|(" + _SCALAR + rb"))").match


def _whole(depth: int) -> bytes:
    """A pattern for a string, a number, a word, or a container of containers so many levels deep."""
    plain = _STRING + rb"|" + _SCALAR
    if depth == 0:
        return plain
    value = rb"(?:" + _whole(depth - 1) + rb")" + _WS
    members = rb"(?:" + _STRING + _WS + rb":" + _WS + value + rb"(?:," + _WS + rb'(?=")|(?=\})))*+'
    elements = rb"(?:" + value + rb"(?:," + _WS + rb"(?=[^\]])|(?=\])))*+"
    return plain + rb"|\{" + _WS + members + rb"\}|\[" + _WS + elements + rb"\]"


#: Objects and arrays as they come, in one step of the regex engine; what is nested deeper or damaged is scanned.
_shallow = re.compile(_whole(4)).match
_space = re.compile(_WS).match
_open_string = re.compile(rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+\\?').match

_OPEN, _CLOSE, _COMMA, _COLON, _TEXT, _WORD = range(1, 7)
_VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _AFTER_KEY, _AFTER_VALUE = range(6)


def may_begin(before: bytes, here: bytes) -> bool:
    """Whether a value may begin at ``here``, given up to ``LOOK_BACK`` bytes on either side."""
    if not here or here[:1] in b" \t\r\n":
        return False
    return not before or before[-1:] in b" \t\r\n}]" or before.endswith(_BOM) or _object_at(here) is not None


class Splitter:
    """Splits the content of one file into records, block by block; ``arrived`` is given to each (nanoseconds)."""

    def __init__(self, arrived: int = 0, limit: int = LIMIT) -> None:
        self.arrived = arrived
        self._limit = limit
        #: Containers that are known to be cut off, by their place in the content, and where that showed.
        self._cut_off: frozenset[int] = frozenset()
        self._cut_off_at = 0

    def split(self, data: bytes, offset: int, *, before: bytes, final: bool) -> tuple[list[Record], int]:
        """The records of ``data``, which begins at ``offset`` of the content, and how many bytes are done with.

        The rest has to come again, with more bytes behind it. ``before``: the last ``LOOK_BACK`` bytes before
        ``data``. ``final``: nothing follows ``data``; all of it is done with.
        """
        records: list[Record] = []
        append, arrived, limit = records.append, self.arrived, self._limit
        start = resume = 0  # where the line begins; where the next value is looked for
        lines = data.split(b"\n")
        rest = lines.pop()
        for line in lines:
            length = len(line)
            last = length - 1
            if (
                resume <= start
                and line[:1] == b"{"
                and line[-1:] == b"}"
                # The first three closing braces are looked at one by one: the pattern takes longer.
                and (
                    (brace := line.find(b"}")) == last
                    or (line[brace + 1] in b",}]" and (brace := line.find(b"}", brace + 1)) == last)
                    or (line[brace + 1] in b",}]" and line.find(b"}", brace + 1) == last)
                    or not _joined(line)
                )
                and length <= limit
            ):
                append(Record(offset + start, line, arrived))
            elif resume <= start + length:
                content = _Content(data, offset, before, start + length, complete=True, final=final)
                resume, more = self._line(content, max(start, resume), records)
                if more:
                    return records, resume
            start += length + 1
        if rest and resume < len(data):
            content = _Content(data, offset, before, len(data), complete=final, final=final)
            resume, more = self._line(content, max(start, resume), records)
            if more:
                return records, resume
        return records, len(data)

    def _line(self, content: _Content, at: int, records: list[Record]) -> tuple[int, bool]:
        """Appends every value that begins in a line. Returns where to go on, and whether that needs more bytes."""
        while (at := _past_gap(content.data, at)) < content.line_end:
            stop = self._end(content, at)
            if stop is None:
                return at, True
            records.append(Record(content.offset + at, content.data[at:stop].rstrip(_SPACE), self.arrived))
            at = stop
        return at, False

    def _end(self, content: _Content, at: int) -> int | None:
        """Where the value ends that begins at ``at``; ``None``: more bytes are needed to tell."""
        data, line_end = content.data, content.line_end
        too_long = line_end - at > self._limit
        window = at + self._limit if too_long else line_end
        fallback = window if too_long or content.complete else None
        first = data[at]
        if first not in b"{[":
            if not content.after_object(at):
                return fallback
            follower = _object(data, at, window)
            return follower.start() if follower else fallback
        joined = first == 0x7B and content.next_joint(at) < window
        if not joined:
            if fallback is None or too_long:
                return fallback
            if content.last_byte() == (b"}" if first == 0x7B else b"]"):
                return line_end
        scan = self._scan(content, at)
        if scan is None:
            return at + self._limit if len(data) - at > self._limit else None
        if not scan.damaged:
            return scan.end
        if scan.end > line_end:
            return _line_of_damage(data, at, scan)
        if joined or content.after_object(at):
            follower = _before_damage(data, at, scan.end) or _object(data, scan.end, window)
            return follower.start() if follower else fallback
        return fallback

    def _scan(self, content: _Content, at: int) -> _Scan | None:
        """What stands at ``at``; ``None``: neither its end nor any damage is in sight."""
        if content.offset + at in self._cut_off:
            return _Scan(self._cut_off_at - content.offset, damaged=True)
        stop = min(len(content.data), at + self._limit)
        scan = _scan(content.data, at, stop)
        if scan.unfinished and not (content.final and stop == len(content.data)):
            return None
        if scan.damaged:
            self._cut_off = frozenset(content.offset + place for place in scan.open)
            self._cut_off_at = content.offset + scan.end
        return scan


class _Content:
    """A line and the bytes around it; ``complete``: it really ends at ``line_end``. Searches run once per line."""

    def __init__(self, data: bytes, offset: int, before: bytes, line_end: int, *, complete: bool, final: bool) -> None:
        self.data = data
        self.offset = offset
        self.line_end = line_end
        self.complete = complete
        self.final = final
        self._before = before
        self._joint = -1
        self._last: bytes | None = None

    def after_object(self, at: int) -> bool:
        """Whether an object closes right before ``at`` on the same line."""
        seen = self.data[max(0, at - LOOK_BACK) : at]
        if at < LOOK_BACK:
            seen = (self._before + seen)[-LOOK_BACK:]
        return seen.rstrip(b" \t\r")[-1:] == b"}"

    def next_joint(self, at: int) -> int:
        """The first byte from ``at`` on that follows a closed object on its line, if it is one; else the end."""
        if self._joint <= at:
            found = _joined(self.data, at, self.line_end)
            self._joint = found.end() - 1 if found else len(self.data) + 1
        return self._joint

    def last_byte(self) -> bytes:
        """The line's last byte that is not white space."""
        if self._last is None:
            self._last = self.data[self.data.rfind(b"\n", 0, self.line_end) + 1 : self.line_end].rstrip(_SPACE)[-1:]
        return self._last


@dataclass(frozen=True, slots=True)
class _Scan:
    """What a scan found: where the value ends, or else where it is damaged and which containers were open then."""

    end: int
    damaged: bool = False
    unfinished: bool = False
    too_deep: bool = False
    open: tuple[int, ...] = ()


def _scan(data: bytes, at: int, stop: int) -> _Scan:
    """Follows the object or array that begins at ``at`` to its end, its damage, or ``stop``."""
    if shallow := _shallow(data, at, stop):
        return _Scan(shallow.end())
    opened: list[int] = []  # where each open container begins
    objects: list[bool] = []  # whether it is an object
    state = _VALUE
    while True:
        token = _token(data, at, stop)
        if token is None:
            return _no_token(data, at, stop, tuple(opened))
        kind = token.lastindex or 0
        begin = token.start(kind)
        if kind == _OPEN and state in (_VALUE, _FIRST_VALUE):
            if len(opened) == MAX_DEPTH:
                return _Scan(begin, damaged=True, too_deep=True)
            opened.append(begin)
            objects.append(data[begin] == 0x7B)
            state = _FIRST_KEY if objects[-1] else _FIRST_VALUE
        elif kind == _CLOSE and _may_close(state, objects[-1], data[begin] == 0x7D):
            opened.pop()
            objects.pop()
            if not opened:
                return _Scan(begin + 1)
            state = _AFTER_VALUE
        elif kind == _COMMA and state == _AFTER_VALUE:
            state = _KEY if objects[-1] else _VALUE
        elif kind == _COLON and state == _AFTER_KEY:
            state = _VALUE
        elif kind == _TEXT and state in (_KEY, _FIRST_KEY):
            state = _AFTER_KEY
        elif kind in (_TEXT, _WORD) and state in (_VALUE, _FIRST_VALUE):
            state = _AFTER_VALUE
        else:
            return _Scan(begin, damaged=True, open=tuple(opened))
        at = token.end()


def _may_close(state: int, is_object: bool, closes_object: bool) -> bool:
    empty = _FIRST_KEY if is_object else _FIRST_VALUE
    return is_object == closes_object and state in (_AFTER_VALUE, empty)


def _no_token(data: bytes, at: int, stop: int, opened: tuple[int, ...]) -> _Scan:
    gap = _space(data, at, stop)
    place = gap.end() if gap else at
    if place < stop and data[place] == 0x22:
        string = _open_string(data, place, stop)
        place = string.end() if string else place
    if place == stop:
        return _Scan(stop, damaged=True, unfinished=True, open=opened)
    return _Scan(place, damaged=True, open=opened)


def _past_gap(data: bytes, at: int) -> int:
    gap = _gap(data, at)
    return gap.end() if gap else at


def _line_of_damage(data: bytes, at: int, scan: _Scan) -> int:
    """Where a cut-off value of several lines is taken to end: before what may be a neighbour."""
    neighbour = data.find(b"\n{", at, scan.end + 1)
    if neighbour >= 0 and not scan.too_deep:
        return neighbour + 1
    return scan.end if scan.unfinished else data.rfind(b"\n", at, scan.end) + 1


def _before_damage(data: bytes, at: int, damage: int) -> re.Match[bytes] | None:
    """An object whose first quotation mark was taken for the end of a string that was cut off."""
    brace = data.rfind(b"{", at + 1, damage)
    found = _object_at(data, brace) if brace >= 0 else None
    return found if found and found.end() == damage else None
