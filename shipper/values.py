"""What an output wants to know of each event beside its bytes: fields, and templates filled from fields.

Event fields are under the influence of attackers (a database user chooses the application name), so there are two
kinds of template. A **target** names a place (path, index, topic) and every value in it is reduced to harmless
characters; a **text** is a value for the destination (key, host, header) and only loses control characters.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A template for a place. It must begin with a literal; each value is reduced to ``[A-Za-z0-9_-]`` and single
    inner dots, at most 100 characters; an absent value is ``none``. ``lower`` folds case (index names)."""

    template: str
    lower: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A template for a value. Control characters are removed; if nothing is left, the value is ``None``."""

    template: str


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the event as text, unchanged; ``None`` where the event has none."""

    name: str


#: What ``Output.values`` returns the list of; what is rendered stands in ``Batch.values`` in the same order.
Value = Target | Text | Field
