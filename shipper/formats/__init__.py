"""Formats: how events become lines of bytes. Compiled at start; an event is encoded once per format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shipper.event import Event
from shipper.formats.native import compile_native
from shipper.formats.pretty import readable
from shipper.formats.raw import compile_raw
from shipper.settings import FormatSettings

__all__ = ["Encode", "compile_format", "readable"]

#: Events, and for each the engine's own JSON of it and the decrypted record up to its list of events → for each one
#: line, no line feed. (Many in one call: a Python function for each costs a sixth of what
#: encoding costs.)
Encode = Callable[[Sequence[Event], Sequence[bytes], Sequence[bytes]], list[bytes]]


def compile_format(settings: FormatSettings, labels: Mapping[str, str] | None = None) -> Encode:
    """A function that writes events in a format.

    ``labels`` are the output's own: in ``native`` they are added to the event's and win over them; ``raw`` is the
    engine's own bytes and ``pretty`` shows none. Raises ``ValueError`` for options that the format does not have, and
    for fields that do not exist.
    """
    if settings.type != "native" and (settings.only is not None or settings.except_ is not None):
        raise ValueError(f"only and except belong to the format native, not to {settings.type}; leave them out")
    match settings.type:
        case "native":
            return compile_native(settings.only, settings.except_, labels or {})
        case "raw":
            return compile_raw()
        case "pretty":
            return lambda events, raws, frames: [readable(event).encode("utf-8", "replace") for event in events]
