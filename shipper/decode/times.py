"""Reads the engines' timestamps and writes the event's: RFC 3339 in UTC, six to nine fraction digits.

The engines' forms (Aurora and RDS user guides, "Monitoring database activity streams"): a space or ``T`` between date
and time, no to seven fraction digits (SQL Server: 100 ns), an offset of two digits, or none, which is UTC (Oracle).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["from_nanoseconds", "timestamp", "timestamps"]

#: Without a zone, as what is subtracted from it: offsets are taken off before.
_EPOCH = datetime(1970, 1, 1)
_SECOND = 1_000_000_000
#: Nanoseconds fit 64 bits until 2262-04-11.
_LAST = 2**63 - 1
_KEEP = 4096
_AURORA_LENGTH = len("2026-01-05 09:00:00.000006+00")
#: The digits of a fraction, three by three, in nanoseconds; the last ones with the offset that follows them.
_MILLIS = {f"{number:03d}": number * 1_000_000 for number in range(1000)}
_MICROS_UTC = {f"{number:03d}+00": number * 1_000 for number in range(1000)}

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?\s?(?:(Z)|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII | re.IGNORECASE,
)

# Events come in the order of time: the second that one begins with is known from its predecessor.
_seconds: dict[str, tuple[str, int]] = {}
_texts: dict[int, str] = {}


def timestamp(text: str) -> tuple[str, int] | None:
    """RFC 3339 in UTC and nanoseconds since 1970; ``None`` where the text is no time, or outside 1970 to 2262-04-11.

    Digits beyond the ninth are cut, fewer than six filled up with zeros.
    """
    second = _seconds.get(text[:20])
    if second is not None:
        rest = text[26:]
        if rest == "+00" or (not rest and len(text) == 26):
            fraction, unit = text[20:26], 1000
        elif rest[1:] == "+00":
            fraction, unit = text[20:27], 100
        else:
            return _parse(text)
        if fraction.isdigit() and fraction.isascii():
            return second[0] + fraction + "Z", second[1] + int(fraction) * unit
    return _parse(text)


def timestamps(first: str, second: str, third: str) -> tuple[str, int, str, int, str, int] | None:
    """What ``timestamp`` says of three texts, where all are as Aurora writes them (``2026-01-05 09:00:00.000006+00``)
    and of known seconds; else ``None``, which says nothing. (It takes three quarters of the time of three calls: what
    is looked up need be neither checked nor parsed.)"""
    if not len(first) == len(second) == len(third) == _AURORA_LENGTH:
        return None
    try:
        one, nanoseconds = _seconds[first[:20]]
        two, begun = _seconds[second[:20]]
        three, ended = _seconds[third[:20]]
        nanoseconds += _MILLIS[first[20:23]] + _MICROS_UTC[first[23:]]
        begun += _MILLIS[second[20:23]] + _MICROS_UTC[second[23:]]
        ended += _MILLIS[third[20:23]] + _MICROS_UTC[third[23:]]
    except KeyError:
        return None
    return one + first[20:26] + "Z", nanoseconds, two + second[20:26] + "Z", begun, three + third[20:26] + "Z", ended


def _parse(text: str) -> tuple[str, int] | None:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    try:
        moment = datetime(year, month, day, hour, minute, second)
        if match[9]:
            offset = timedelta(hours=int(match[10]), minutes=int(match[11] or 0))
            moment = moment - offset if match[9] == "+" else moment + offset
    except (ValueError, OverflowError):
        return None
    base = (moment - _EPOCH) // timedelta(seconds=1) * _SECOND
    fraction = (match[7] or "")[:9].ljust(6, "0")
    nanoseconds = base + int(fraction.ljust(9, "0"))
    if not 0 <= nanoseconds <= _LAST:
        return None
    prefix = moment.isoformat() + "."
    if text[19:20] == "." and match[10] in (None, "00") and not match[11] and base + _SECOND <= _LAST:
        if len(_seconds) >= _KEEP:
            _seconds.clear()
        _seconds[text[:20]] = (prefix, base)
    return f"{prefix}{fraction}Z", nanoseconds


def from_nanoseconds(nanoseconds: int) -> str:
    """RFC 3339 in UTC of a moment in nanoseconds since 1970: six fraction digits, nine where six do not tell it all."""
    second, fraction = divmod(nanoseconds, _SECOND)
    prefix = _texts.get(second)
    if prefix is None:
        if len(_texts) >= _KEEP:
            _texts.clear()
        prefix = _texts[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    microsecond, rest = divmod(fraction, 1000)
    return f"{prefix}.{fraction:09d}Z" if rest else f"{prefix}.{microsecond:06d}Z"
