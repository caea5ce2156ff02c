"""Every error that shipper raises on purpose, in one place.

A message says, in this order: which component, what happened, what the program does about it, what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class ShipperError(Exception):
    """Something that a person has to know. ``exit_code`` is what the process ends with (interface.md)."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    ``file``, ``line`` (from 1; 0: unknown) and ``key`` (a dotted path such as ``outputs.siem.batch``) say where;
    ``mend`` says what to write instead.
    """

    message: str
    key: str = ""
    file: str = ""
    mend: str = ""
    line: int = 0

    def __str__(self) -> str:
        file = f"{self.file}:{self.line}" if self.file and self.line else self.file
        where = "".join(f"{part}: " for part in (file, self.key) if part)
        return where + self.message + (f"; {self.mend}" if self.mend else "")


class ConfigurationError(ShipperError):
    """The configuration is wrong; nothing was started. Carries every problem that was found, not only the first."""

    exit_code = 78

    def __init__(self, *problems: Problem) -> None:
        lines = [str(problem) for problem in problems]
        if len(lines) > 1:
            lines = [f"the configuration has {len(lines)} problems:", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))
        self.problems = problems


class StateError(ShipperError):
    """The state file cannot be used: locked by another shipper, damaged, on a network disk, of another version."""


class Held(ShipperError):
    """A source or an output cannot go on until configuration or permission is mended; nothing is lost meanwhile.

    ``reason`` is one word of ``HELD_REASONS``: it labels the metric ``held``. ``detail`` is the destination's own
    words; ``mend`` says what to do. A component that raises it is tried again slowly.
    """

    def __init__(self, reason: str, detail: str, mend: str = "") -> None:
        super().__init__(f"{detail}; {mend}" if mend else detail)
        self.reason = reason
        self.detail = detail
        self.mend = mend


#: Closed list of reasons that a component can be held for (metric label ``reason``; documented in docs/delivery.md).
HELD_REASONS = frozenset(
    {
        "access_denied",
        "credentials",
        "key_disabled",
        "key_not_found",
        "key_unavailable",
        "stream_not_found",
        "target_not_found",
        "unreachable",
        "unwritable",
        "disk_full",
        "dead_letters_full",
        "spool_full",
        "storm",
        "refused",
    }
)
