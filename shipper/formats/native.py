"""The format ``native``: the event as JSON, in the order of its fields, all of it or a selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from shipper.event import FIELDS, Event
from shipper.fields import UnknownField, field

if TYPE_CHECKING:
    from shipper.formats import Encode


def compile_native(only: Sequence[str] | None, without: Sequence[str] | None, labels: Mapping[str, str]) -> Encode:
    """Encodes events as JSON; line feeds inside values are escaped, as JSON demands. Raises ``ValueError``."""
    encode = msgspec.json.Encoder().encode
    label = _labelling(labels) if labels else None
    if only is None and without is None:
        if label is None:
            return lambda events, raws, frames: list(map(encode, events))
        return lambda events, raws, frames: list(map(encode, map(label, events)))
    select = _selection(_chosen(only, without))
    if label is None:
        return lambda events, raws, frames: list(map(encode, map(select, events)))
    return lambda events, raws, frames: list(map(encode, map(select, map(label, events))))


def _chosen(only: Sequence[str] | None, without: Sequence[str] | None) -> list[str]:
    """Names of the fields to write, in the event's order."""
    if only is not None and without is not None:
        raise ValueError("only and except exclude each other; keep one of them")
    named = only if only is not None else without or ()
    for name in named:
        if name in FIELDS:
            continue
        try:
            field(name)
        except UnknownField as error:
            raise ValueError(str(error)) from None
        raise ValueError(f"{name!r} is not a whole field; write {name.partition('.')[0]!r}")
    chosen = [name for name in FIELDS if (name in named) is (only is not None)]
    if not chosen:
        raise ValueError("no field is left to write; name at least one")
    return chosen


def _selection(names: list[str]) -> Callable[[Event], msgspec.Struct]:
    """Copies the chosen fields to a type that has no others: faster than a dict, and absent stays absent."""
    definition: list[tuple[str, Any, Any]] = [
        (FIELDS[name], Any, msgspec.field(default=None, name=name)) for name in names
    ]
    selected = msgspec.defstruct("Selected", definition, omit_defaults=True, gc=False)
    values = attrgetter(*(FIELDS[name] for name in names))
    if len(names) == 1:
        return lambda event: selected(values(event))
    return lambda event: selected(*values(event))


def _labelling(labels: Mapping[str, str]) -> Callable[[Event], Event]:
    """Gives events more labels without changing them: other outputs see the same event."""
    replace = msgspec.structs.replace
    own = dict(labels)
    # Events of one source share their labels, so the union is nearly always that of the event before.
    last: tuple[dict[str, str] | None, dict[str, str]] = (None, own)

    def label(event: Event) -> Event:
        nonlocal last
        before, union = last
        if event.labels is not before:
            union = {**(event.labels or {}), **own}
            last = (event.labels, union)
        return replace(event, labels=union)

    return label
