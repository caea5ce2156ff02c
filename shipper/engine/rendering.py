"""Renders events for one output, also those that come back from the spool: with the configuration in force now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from shipper.event import Event
from shipper.formats import compile_format
from shipper.settings import OutputSettings
from shipper.templates import compile_rows, is_constant
from shipper.values import Value

Values = Callable[[Sequence[Event]], list[tuple[str | None, ...]]]
Rendered = tuple[Sequence[bytes], Sequence[tuple[str | None, ...]]]

_decode = msgspec.json.Decoder(Event).decode

#: Fields that ``oversize = "truncate"`` cuts, in this order (interface.md).
CUT = ("statement", "parameters", "error", "native")
#: Stands at the end of a text that was cut.
MARK = "…"


def renderer(values: Sequence[Value], labels: Mapping[str, str]) -> Values:
    """Renders what an output asked for of each event; its own labels win over the event's, as in what it writes."""
    render = compile_rows(values)
    if not labels or is_constant(values):
        return render

    def render_with_labels(events: Sequence[Event]) -> list[tuple[str | None, ...]]:
        own = [event.labels for event in events]
        for event in events:
            event.labels = {**(event.labels or {}), **labels}
        rendered = render(events)
        for event, before in zip(events, own, strict=True):
            event.labels = before
        return rendered

    return render_with_labels


class Rendering:
    """Makes of native lines what one output sends."""

    def __init__(self, settings: OutputSettings, values: Sequence[Value]) -> None:
        self._raw = settings.format.type == "raw"
        self._plain = settings.format == type(settings.format)() and not settings.labels
        self._encode = compile_format(settings.format, settings.labels)
        self._values = renderer(values, settings.labels)
        #: What the values are for every event alike: then none has to be decoded for them.
        self._constant = self._values([_NOBODY])[0] if is_constant(values) else None

    def __call__(self, native: Sequence[bytes], raw: Sequence[bytes] | None) -> Rendered:
        """The encoded events and what the output asked for of each.

        ``raw``: the events as the format ``raw`` writes them, where they were read for that format. Without it that
        format gets the native lines: the engine's own bytes were not kept. A line that is no event (a dead letter of a
        former version) goes out as it is.
        """
        as_they_are = raw if self._raw and raw is not None else native if self._raw or self._plain else None
        if as_they_are is not None and self._constant is not None:
            return as_they_are, [self._constant] * len(native)
        events = [_event(line) for line in native]
        if as_they_are is None:
            known = [event for event in events if event is not None]
            written = iter(self._encode(known, [b""] * len(known), [b""] * len(known)))
            lines = [line if event is None else next(written) for line, event in zip(native, events, strict=True)]
        else:
            lines = list(as_they_are)
        if self._constant is not None:
            return lines, [self._constant] * len(native)
        return lines, self._values([event or _NOBODY for event in events])

    def truncated(self, native: bytes, limit: int) -> bytes | None:
        """The native line of the event, cut so that what is sent has at most ``limit`` bytes; ``None`` where cutting
        does not help."""
        if self._raw:
            return None  # the engine's own bytes are not cut: they would not be its own any more
        event = _event(native)
        if event is None:
            return None
        for field in CUT:
            if self._size(event) <= limit:
                break
            if getattr(event, field) is None:
                continue
            # What says that it was cut takes room too.
            if field == "statement" and event.statement is not None and event.statement_bytes is None:
                event.statement_bytes = len(event.statement.encode("utf-8", "surrogatepass"))
            if field in ("statement", "parameters"):
                event.statement_truncated = True
            _cut(event, field, self._size(event) - limit)
        if self._size(event) > limit:
            return None
        return msgspec.json.encode(event)

    def _size(self, event: Event) -> int:
        (line,) = self._encode([event], [b""], [b""])
        return len(line)


def _event(line: bytes) -> Event | None:
    """The event of a native line; ``None`` for what a former version kept that is none."""
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


_NOBODY = Event(schema_version=1, id="0" * 32, time="1970-01-01T00:00:00.000000Z")


def _cut(event: Event, field: str, excess: int) -> None:
    """Takes at least ``excess`` encoded bytes from a field, or all of it."""
    value = getattr(event, field)
    if value is None:
        return
    if not isinstance(value, str):
        setattr(event, field, None)
    else:
        keep = _prefix(value, len(msgspec.json.encode(value)) - 2 - excess - len(MARK.encode()))
        setattr(event, field, keep + MARK if keep else None)


def _prefix(text: str, budget: int) -> str:
    """The longest beginning of a text whose JSON has at most ``budget`` bytes."""
    low, high = 0, max(0, min(len(text), budget))
    while low < high:
        middle = (low + high + 1) // 2
        if len(msgspec.json.encode(text[:middle])) - 2 <= budget:
            low = middle
        else:
            high = middle - 1
    return text[:low]
