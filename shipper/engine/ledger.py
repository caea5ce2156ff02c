"""What one lane still owes of one partition, and how far the contiguous run of settled events reaches.

Slices settle in any order; the position moves only past what is settled or spooled without a gap, and with it the books
and the dead letters of exactly that stretch (delivery.md, The books): so an event's dead letter is in the state file if
and only if the position has passed the event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from shipper.engine.chunk import Chunk, Share
from shipper.source import END, Position
from shipper.state.dead_letters import DeadLetter
from shipper.state.positions import Move
from shipper.state.spool import Place

#: Lines of the books: (entry, reason).
Tally = Counter[tuple[str, str]]

_NOTHING: Tally = Counter()


class Entry:
    """One chunk as one lane owes it: items ``0 … owed-1``, of which the first ``done`` are settled or spooled."""

    __slots__ = ("_beyond", "_filtered", "_first", "_indices", "_letters", "_moved_to", "_tally", "chunk", "done",
                 "ledger", "owed")  # fmt: skip

    def __init__(self, ledger: Ledger, chunk: Chunk, share: Share, settled: Position | None) -> None:
        """``settled``: where the lane stands; what is before it is not owed again."""
        begin = chunk.index(settled)
        self.ledger = ledger
        self.chunk = chunk
        # Not the share itself: its bytes are let go when they are settled, however long a gap keeps the entry.
        self._indices = share.indices
        self._filtered = share.filtered
        self._first = begin if share.indices is None else bisect_left(share.indices, begin)
        self.owed = (chunk.count if share.indices is None else len(share.indices)) - self._first
        self.done = 0
        self._beyond: dict[int, tuple[int, Mapping[tuple[str, str], int], Sequence[DeadLetter]]] = {}
        self._tally: Tally = Counter()
        self._letters: list[DeadLetter] = []
        self._moved_to = settled

    @property
    def first(self) -> int:
        """The item of the share that is this entry's item 0: what comes before it was settled in an earlier run."""
        return self._first

    def position(self, item: int) -> Position:
        """The position before an item, in the partition; ``item == owed`` is the chunk's end."""
        if item >= self.owed:
            return self.chunk.position(self.chunk.count)
        return self.chunk.position(self._first + item if self._indices is None else self._indices[self._first + item])

    def places(self, start: int, stop: int) -> list[Place]:
        """Where the items ``start … stop-1`` stand, as runs of consecutive events of one record."""
        ledger, runs = self.ledger, []
        record, ordinal, count = -1, 0, 0
        for item in range(start, stop):
            position = self.position(item)
            if position.record == record and position.event == ordinal + count:
                count += 1
                continue
            if count:
                runs.append(ledger.place(record, ordinal, count, self.chunk.arrived))
            record, ordinal, count = position.record, position.event, 1
        if count:
            runs.append(ledger.place(record, ordinal, count, self.chunk.arrived))
        return runs

    def settle(
        self, start: int, stop: int, tally: Mapping[tuple[str, str], int] = _NOTHING, letters: Sequence[DeadLetter] = ()
    ) -> None:
        """Items ``start … stop-1`` are settled, with what became of them; an empty tally: they are in the spool."""
        self._beyond[start] = (stop, tally, letters)
        while (found := self._beyond.pop(self.done, None)) is not None:
            self.done = found[0]
            self._tally.update(found[1])
            self._letters.extend(found[2])

    def moved(self) -> tuple[Position, Tally, list[DeadLetter]] | None:
        """The position now, the books and the dead letters of the stretch since the last call; ``None`` where nothing
        moved."""
        position = self.position(self.done)
        if position == self._moved_to:
            return None
        before, self._moved_to = self._moved_to, position
        tally, self._tally = self._tally, Counter()
        letters, self._letters = self._letters, []
        tally.update(self._between(before, position))
        return position, tally, letters

    def arrival(self) -> Tally:
        """What the lane is offered here and what is settled already: filtered, or not decodable."""
        return self._between(self._moved_to, self.chunk.position(self.chunk.count))

    def _between(self, before: Position | None, position: Position) -> Tally:
        tally: Tally = Counter()
        since, reached = self.chunk.index(before), self.chunk.index(position)
        left, finished = self.chunk.finished(before), self.chunk.finished(position)
        refused = [reason for record, reason in self.chunk.refused if left <= record < finished]
        tally["offered", ""] = reached - since + len(refused)
        for reason in refused:
            tally["dead_lettered", reason] += 1
        for rule, indices in self._filtered.items():
            tally["filtered", rule] = bisect_left(indices, reached) - bisect_left(indices, since)
        return +tally


class Ledger:
    """The entries of one lane in one partition, in reading order. Not thread-safe: the lane's lock guards it."""

    def __init__(
        self,
        partition: int,
        source: str,
        stream: int,
        settled: Position | None,
        decoder: str,
        reference: Callable[[int], str] = str,
    ) -> None:
        self.partition = partition
        self.source = source
        self.stream = stream
        self.settled = settled
        self.decoder = decoder
        self.reference = reference
        self._entries: deque[Entry] = deque()
        self._end = False
        self._abandoned = False

    def open(self, chunk: Chunk, share: Share) -> Entry | None:
        """Enters a chunk; what a former run settled of it is not owed again. ``None`` where that is all of it."""
        if chunk.passed(self.settled):
            return None
        entry = Entry(self, chunk, share, self.settled)
        self._entries.append(entry)
        return entry

    def place(self, record: int, ordinal: int, count: int, arrived: int) -> Place:
        """A run of events of one record of this partition."""
        return Place(self.stream, self.partition, self.source, record, self.reference(record), arrived, ordinal, count)

    @property
    def owes(self) -> bool:
        """Whether anything is unsettled of what was read."""
        return bool(self._entries)

    @property
    def beyond(self) -> int:
        """How many chunks are settled behind the first that is not."""
        return sum(entry.done >= entry.owed for entry in self._entries)

    @property
    def abandoned(self) -> bool:
        """Whether what is unsettled is read again by somebody else: nothing that becomes of it here counts."""
        return self._abandoned

    def abandon(self) -> None:
        """What is unsettled is read again, into another ledger: this one moves no more."""
        self._abandoned = True
        self._entries.clear()

    def pass_over(self, position: Position, arrived: int) -> Move:
        """Goes past records that the source keeps in its own spool, where nothing before them is owed: the move is for
        the caller to commit, with them. ``arrived`` in nanoseconds."""
        assert not self._entries
        if self.settled is None or self.settled < position:
            self.settled = position
        return Move(self.partition, self.settled, self.decoder, arrived)

    def end(self) -> None:
        """Nothing follows in this partition: it is finished when all entries are."""
        self._end = True

    def advance(self) -> tuple[Move, list[DeadLetter]] | None:
        """How far the settled run reaches now, with the dead letters of that stretch, if that is further than at the
        last call."""
        move: Move | None = None
        letters: list[DeadLetter] = []
        if self._abandoned:
            return None
        while self._entries:
            head = self._entries[0]
            moved = head.moved()
            if moved is not None:
                position, tally, stretch = moved
                letters += stretch
                if move is None:
                    move = Move(self.partition, position, self.decoder, head.chunk.arrived, tally)
                else:
                    move.position, move.arrived = position, head.chunk.arrived
                    move.tally.update(tally)
                self.settled = position
            if head.done < head.owed:
                return None if move is None else (move, letters)
            self._entries.popleft()
        if self._end:
            self._end = False
            move = move or Move(self.partition, self.settled or Position(-1, END), self.decoder, 0)
            move.ended = True
        return None if move is None else (move, letters)
