"""What a source implements: where records come from, in which order, and where reading stands."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event as StopSignal
from typing import ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from shipper.errors import Held
from shipper.output import Check
from shipper.settings import SourceSettings

__all__ = [
    "EARLIEST",
    "END",
    "Check",
    "Held",
    "Partition",
    "Position",
    "Read",
    "Record",
    "Source",
    "SourceSettings",
    "Start",
    "StopSignal",
]

S = TypeVar("S", bound=SourceSettings)

#: ``Position.event`` of a record that is finished: larger than any event's number.
END = sys.maxsize


class Position(NamedTuple):
    """Everything before this is settled or spooled. ``record`` grows within a partition and has any size; ``event``
    is the next event inside that record, counted before transforms over all that it decodes to, or ``END``."""

    record: int
    event: int


class _Earliest:
    def __repr__(self) -> str:
        return "EARLIEST"


#: The oldest record that the source still has.
EARLIEST = _Earliest()

#: Where to begin in a partition without a position: the oldest record, or the first that arrived at a time (UTC).
Start = _Earliest | datetime


class Record(msgspec.Struct, frozen=True, gc=False):
    """One raw item. ``position`` grows within the partition; ``arrived`` is when the service took it, in nanoseconds
    since 1970-01-01 UTC (0: unknown)."""

    position: int
    data: bytes
    arrived: int


@dataclass(frozen=True, slots=True)
class Partition:
    """An ordered part of a source. A child is read when its parents have been read to their end."""

    id: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """What one read brought, in order.

    ``lag``: how many seconds the reader stands behind the tip; 0 when nothing more is there at present; ``None``:
    unknown. ``end``: the partition is finished for good (a closed shard); nothing follows.
    """

    records: Sequence[Record]
    lag: float | None
    end: bool = False


class Source(ABC, Generic[S]):
    """Reads one configured source. ``read`` runs in one thread per partition; the rest in the engine's own.

    A source keeps no positions: it is told where to begin. It logs and counts nothing. Waiting ends when ``stop`` is
    set. Every method may raise ``Held``; the engine then shows the reason and tries again slowly.
    """

    Settings: ClassVar[type[SourceSettings]] = SourceSettings
    #: How many partitions are read at the same time; ``None``: all of them.
    max_readers: int | None = None

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings

    @abstractmethod
    def connect(self) -> None:
        """Finds what is to be read; after it ``identity``, ``resource_id`` … are known. May be called again."""

    @abstractmethod
    def identity(self) -> str:
        """What is read, whatever the configuration calls it (stream ARN and creation time): positions' key."""

    def series(self) -> str:
        """``identity`` without what changes when the thing is made anew: a stream that was stopped and started has the
        same ARN and another creation time. The successor of a known one is read from its beginning."""
        return self.identity()

    @abstractmethod
    def partitions(self) -> Sequence[Partition]:
        """Those that exist now; asked again while running."""

    @abstractmethod
    def read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        """Reads on from ``begin``: *at* a half-settled record, *after* a finished one.

        Yields also when nothing came, so that the engine sees progress. Returns when ``stop`` is set, after a read
        with ``end``, or when a source that does not grow has been read.
        """

    def check(self) -> Iterator[Check]:
        """Is the source reachable, and are we permitted to read and decrypt it?"""
        return iter(())

    def reference(self, position: int) -> str:
        """The source's own name for a record's position (a sequence number, an offset), for ``source_position``."""
        return str(position)

    def retention(self) -> float | None:
        """How many seconds the source keeps a record; ``None``: for ever."""
        return None

    @property
    def resource_id(self) -> str | None:
        """``cluster-…`` or ``db-…``, which decides the KMS encryption context; ``None``: unknown."""
        return None

    def facts(self) -> dict[str, str]:
        """Event fields that hold for the whole source: ``cluster`` or ``instance``, ``account``, ``region``."""
        return {}

    def close(self) -> None:
        """Releases everything."""
        return
