"""The format ``pretty``: one line for people; nothing that an attacker wrote reaches the terminal's controls."""

from __future__ import annotations

import re

from shipper.event import Event

_MAX_STATEMENT = 160
_MAX_NAME = 64
_SPACE = re.compile(r"\s+")


def readable(event: Event) -> str:
    """``TIME outcome category/action user@client → database rows duration statement``, what is known of it.

    Every character is printable: others are written as escapes such as ``\\x1b``.
    """
    what = event.category if event.action is None else f"{event.category}/{_name(event.action)}"
    parts = [
        _name(event.time).replace("T", " ", 1),
        f"{_name(event.outcome or 'unknown'):<7}",
        what,
        f"{_who(event)} → {_where(event)}",
    ]
    if event.rows is not None:
        parts.append(f"{event.rows} row{'' if event.rows == 1 else 's'}")
    if event.duration_ns is not None:
        parts.append(_duration(event.duration_ns))
    text = event.statement or event.error
    if text is not None:
        parts.append(_printable(_SPACE.sub(" ", _cut(text, _MAX_STATEMENT)).strip()))
    return "  ".join(parts)


def _who(event: Event) -> str:
    client = event.client_ip or event.client_host
    return _name(event.user or "?") + (f"@{_name(client)}" if client else "")


def _where(event: Event) -> str:
    place = event.database or event.cluster or event.instance or event.cluster_id or event.instance_id or "?"
    subject = ".".join(part for part in (event.schema, event.object) if part)
    return _name(place) + (f" {_name(subject)}" if subject else "")


def _duration(nanoseconds: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if abs(nanoseconds) >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}"
                if abs(nanoseconds) < 1000 * size
                else f"{nanoseconds // size} {unit}"
            )
    return f"{nanoseconds} ns"


def _name(text: str) -> str:
    return _printable(_cut(text, _MAX_NAME))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _printable(text: str) -> str:
    """Control characters, escapes, and what turns or hides text (bidirectional controls, zero widths), made visible."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
