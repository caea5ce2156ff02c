"""A state file with two lanes and one partition, and what is put into it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from shipper.source import END, Position
from shipper.state import positions
from shipper.state.dead_letters import EVERY_OUTPUT, DeadLetter
from shipper.state.kept_records import KeptRecord
from shipper.state.positions import Move, Stream
from shipper.state.spool import Place, Spooled

#: Larger than any integer that SQLite knows.
RECORD = 49590338271490256608559692538361571095921575989136588898


@dataclass(frozen=True)
class Scene:
    """``a`` and ``b``: ids of lanes that have a row in ``partition``."""

    connection: sqlite3.Connection
    a: int
    b: int
    stream: Stream
    partition: int

    def row(self, row: int, lane: int, lines: Sequence[bytes], time: float = 100.0, raw: bool = False) -> Spooled:
        place = Place(self.stream.id, self.partition, "orders", RECORD + row, f"at {row}", 7, 0, len(lines))
        return Spooled(
            row, lane, time, time - 1, [place], list(lines), [b"raw " + line for line in lines] if raw else None
        )

    def event_letter(self, record: int, output: str = "a", ordinal: int = 0, **more: object) -> DeadLetter:
        data = f'{{"n":{record}}}'.encode()
        return self._letter(record, (ordinal,), output, {"reason": "rejected", "data": data, **more})

    def record_letter(self, record: int, ordinals: tuple[int, ...] = (), **more: object) -> DeadLetter:
        return self._letter(record, ordinals, EVERY_OUTPUT, {"reason": "tampered", "data": b"encrypted", **more})

    def _letter(self, record: int, ordinals: tuple[int, ...], output: str, more: dict[str, object]) -> DeadLetter:
        fields: dict[str, object] = {
            "stream": self.stream.id,
            "partition": self.partition,
            "record": record,
            "reference": f"at {record}",
            "ordinals": ordinals,
            "output": output,
            "source": "orders",
            "detail": "why",
            "time": 1000.0 + record,
            "arrived": 5,
        }
        return DeadLetter(**{**fields, **more})  # type: ignore[arg-type] # a test names what it wants

    def kept_record(self, record: int, data: bytes = b"encrypted", **more: object) -> KeptRecord:
        fields: dict[str, object] = {
            "id": 0,
            "stream": self.stream.id,
            "partition": self.partition,
            "source": "orders",
            "record": record,
            "reference": f"at {record}",
            "resource_id": "cluster-1",
            "arrived": 7,
            "time": 100.0 + record,
            "lanes": (self.a, self.b),
            "ordinals": (),
            "replayed": False,
            "data": data,
        }
        return KeptRecord(**{**fields, **more})  # type: ignore[arg-type] # a test names what it wants

    def settle(self, lane: int, record: int, event: int = END, **tally: int) -> None:
        """Moves a lane behind a record; ``tally`` goes to its books."""
        move = Move(self.partition, Position(record, event), "1", 7)
        for entry, count in tally.items():
            move.tally[entry, "rejected" if entry == "dead_lettered" else ""] = count
        positions.settle(self.connection, lane, [move], None)

    def books(self, name: str) -> dict[str, int]:
        """One lane's books, reasons added up."""
        return {entry: sum(reasons.values()) for entry, reasons in positions.books(self.connection)[name].items()}
