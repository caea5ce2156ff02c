"""What an output plugin implements, and what it can report.

An output owns one destination's protocol and nothing else: it never retries, sleeps, counts or logs deliveries. The
engine batches, retries, settles and decides what follows from each outcome (docs/writing-an-output.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Generic, TypeVar

from shipper.errors import Held
from shipper.settings import AwsSettings, NetworkSettings, OutputSettings
from shipper.values import Field, Target, Text, Value

__all__ = [
    "AwsSettings",
    "Batch",
    "Check",
    "DeliveryError",
    "Failure",
    "Field",
    "Held",
    "Limits",
    "NetworkSettings",
    "NotTried",
    "Outcome",
    "Output",
    "OutputSettings",
    "Rejected",
    "Report",
    "Target",
    "Text",
    "Throttled",
    "TooLarge",
    "Unknown",
    "Value",
]

S = TypeVar("S", bound=OutputSettings)


class Outcome(StrEnum):
    """Why an event was not delivered by this call."""

    THROTTLED = "throttled"  # known not to be stored: sent again, slower
    NOT_TRIED = "not_tried"  # known not to be stored: sent again at once
    UNKNOWN = "unknown"  # may be stored: sent again, counted as a possible duplicate
    TOO_LARGE = "too_large"  # the batch is split; an event alone becomes a dead letter
    REJECTED = "rejected"  # the destination will never take it: dead letter
    HELD = "held"  # configuration or permission: the output stops, everything is kept


@dataclass(frozen=True, slots=True)
class Failure:
    """One event's outcome. ``detail`` is the destination's own words, without secrets; ``retry_after`` seconds."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch: an event that is not in ``failed`` is delivered, durably.

    ``already_stored`` holds indices that the destination had before (a 409 on our own id). ``bookmark`` is what
    ``connect`` gets after a restart; it is committed together with the positions of exactly this batch.
    ``slow_down`` asks the engine to lower its rate.
    """

    failed: Mapping[int, Failure] = field(default_factory=dict)
    already_stored: Collection[int] = ()
    bookmark: bytes | None = None
    slow_down: bool = False


class DeliveryError(Exception):
    """Raised by ``send`` instead of a report: the same outcome for every event of the batch."""

    outcome: ClassVar[Outcome]

    def __init__(self, detail: str, *, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.failure = Failure(self.outcome, reason, detail, retry_after)


class Throttled(DeliveryError):
    """The destination is busy and stored nothing."""

    outcome = Outcome.THROTTLED


class NotTried(DeliveryError):
    """Nothing was sent, through no fault of the events."""

    outcome = Outcome.NOT_TRIED


class Unknown(DeliveryError):
    """No answer, or one that does not tell: the events may be stored."""

    outcome = Outcome.UNKNOWN


class TooLarge(DeliveryError):
    """The batch is larger than the destination takes."""

    outcome = Outcome.TOO_LARGE


class Rejected(DeliveryError):
    """The destination refuses these events for good."""

    outcome = Outcome.REJECTED


@dataclass(frozen=True, slots=True)
class Batch:
    """Events for one call of ``send``: encoded bytes without a line feed inside, and per event one tuple with what
    ``Output.values`` asked for. ``size`` is the sum of the encoded bytes."""

    events: Sequence[bytes]
    values: Sequence[tuple[str | None, ...]]
    size: int

    def __len__(self) -> int:
        return len(self.events)


@dataclass(frozen=True, slots=True)
class Limits:
    """The destination's hard limits. Bytes are encoded bytes; ``overhead`` is added per event in its arithmetic."""

    max_events: int | None = None
    max_bytes: int | None = None
    max_event_bytes: int | None = None
    overhead: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``shipper check --connect``. ``ok`` is the verdict, ``mend`` what to do where it is bad."""

    subject: str
    ok: bool
    detail: str = ""
    mend: str = ""


class Output(ABC, Generic[S]):
    """Ships batches to one destination. One instance per configured output.

    ``send`` is called by up to ``concurrency`` threads at once; outputs that are ``ordered`` or return bookmarks have
    one. ``requires`` names modules of the plugin's extra: they are imported in ``connect``, never at module level, so
    that ``check``, ``schema`` and ``plugins`` work without them.
    """

    Settings: ClassVar[type[OutputSettings]] = OutputSettings
    requires: ClassVar[tuple[str, ...]] = ()
    ordered: ClassVar[bool] = False
    limits: ClassVar[Limits] = Limits()

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings

    def values(self) -> Sequence[Value]:
        """Fields and templates wanted per event; asked once, at start."""
        return ()

    def connect(self, bookmark: bytes | None) -> None:
        """Opens what ``send`` needs. ``bookmark`` is the last committed one. Raises ``Held`` to be tried again."""
        return

    def check(self) -> Iterator[Check]:
        """Is the destination reachable, and are we permitted? Writes no event."""
        return iter(())

    def prepare(self, batch: Batch) -> bytes | None:
        """A bookmark that must be committed before ``send`` may touch anything new; ``None`` where there is no need."""
        return None

    @abstractmethod
    def send(self, batch: Batch) -> Report:
        """Ships a batch and returns when every event's outcome is known. What is reported delivered is durable.

        Raises ``Held`` or a ``DeliveryError`` for the whole batch; anything else that escapes counts as unknown.
        """

    def close(self) -> None:
        """Releases everything; called once, also after a failed ``connect``."""
        return
