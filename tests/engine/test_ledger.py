"""The ledger: positions move only past what is settled without a gap, and the books of the stretch balance."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shipper.engine.chunk import Chunk, Share
from shipper.engine.ledger import Ledger, Tally
from shipper.source import END, Position
from shipper.state.positions import Move


def chunk_of(sizes: list[int], first: int = 100, refused: list[tuple[int, str]] | None = None) -> Chunk:
    """A chunk of complete records with these numbers of events, at positions first, first+10 …"""
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return Chunk(
        records=[first + 10 * number for number in range(len(sizes))],
        starts=starts,
        count=sum(sizes),
        refused=refused or [],
    )


def everything(chunk: Chunk) -> Share:
    return Share([b"x"] * chunk.count, [()] * chunk.count)


def ledger(settled: Position | None = None) -> Ledger:
    return Ledger(partition=1, source="s", stream=1, settled=settled, decoder="1")


def delivered(count: int) -> Tally:
    return Counter({("delivered", ""): count})


def moved(book: Ledger) -> Move | None:
    """The next move, without its dead letters."""
    advanced = book.advance()
    return None if advanced is None else advanced[0]


def test_a_position_does_not_pass_a_gap() -> None:
    book = ledger()
    entry = book.open(chunk_of([2, 2]), everything(chunk_of([2, 2])))
    assert entry is not None
    entry.settle(2, 4, delivered(2))
    move = moved(book)
    assert move is None or move.position == Position(100, 0)
    entry.settle(0, 2, delivered(2))
    move = moved(book)
    assert move is not None
    assert move.position == Position(110, END)
    assert move.tally == {("offered", ""): 4, ("delivered", ""): 4}


def test_a_half_settled_record_is_continued_at_its_next_event() -> None:
    book = ledger()
    chunk = chunk_of([3])
    entry = book.open(chunk, everything(chunk))
    assert entry is not None
    entry.settle(0, 2, delivered(2))
    move = moved(book)
    assert move is not None
    assert move.position == Position(100, 2)

    again = ledger(settled=Position(100, 2))
    entry = again.open(chunk, everything(chunk))
    assert entry is not None
    assert (entry.first, entry.owed) == (2, 1)


def test_filtered_events_are_passed_with_their_neighbours() -> None:
    book = ledger()
    chunk = chunk_of([1] * 5)
    entry = book.open(chunk, Share([b"x"] * 2, [()] * 2, [1, 3], {"quiet": [0, 2], "match": [4]}))
    assert entry is not None
    entry.settle(0, 1, delivered(1))
    move = moved(book)
    assert move is not None
    assert move.position == Position(130, 0)
    assert move.tally == {("offered", ""): 3, ("delivered", ""): 1, ("filtered", "quiet"): 2}
    entry.settle(1, 2, delivered(1))
    move = moved(book)
    assert move is not None
    assert move.position == Position(140, END)
    assert move.tally == {("offered", ""): 2, ("delivered", ""): 1, ("filtered", "match"): 1}


def test_a_chunk_with_nothing_for_the_lane_is_settled_at_once() -> None:
    book = ledger()
    chunk = chunk_of([1, 1])
    entry = book.open(chunk, Share([], [], [], {"match": [0, 1]}))
    assert entry is not None
    assert entry.owed == 0
    move = moved(book)
    assert move is not None
    assert move.position == Position(110, END)
    assert move.tally == {("offered", ""): 2, ("filtered", "match"): 2}


def test_records_without_events_settle_with_end() -> None:
    book = ledger()
    chunk = chunk_of([0, 0])
    book.open(chunk, everything(chunk))
    move = moved(book)
    assert move is not None
    assert move.position == Position(110, END)
    assert not move.tally


def test_undecodable_records_are_offered_and_dead_lettered_once() -> None:
    chunk = chunk_of([1, 0, 1], refused=[(1, "tampered")])
    book = ledger()
    entry = book.open(chunk, everything(chunk))
    assert entry is not None
    entry.settle(0, 1, delivered(1))
    first = moved(book)
    assert first is not None
    assert first.tally == {("offered", ""): 2, ("delivered", ""): 1, ("dead_lettered", "tampered"): 1}

    # After a kill the source reads again at the position; the dead letter is behind it.
    again = ledger(settled=first.position)
    entry = again.open(chunk, everything(chunk))
    assert entry is not None
    entry.settle(0, 1, delivered(1))
    second = moved(again)
    assert second is not None
    assert second.tally == {("offered", ""): 1, ("delivered", ""): 1}


def test_a_chunk_that_a_former_run_settled_is_not_owed_again() -> None:
    chunk = chunk_of([1, 1])
    assert ledger(settled=Position(110, END)).open(chunk, everything(chunk)) is None
    assert ledger(settled=Position(500, 0)).open(chunk, everything(chunk)) is None


def test_the_end_of_a_partition_is_reported_when_all_before_it_is_settled() -> None:
    book = ledger()
    chunk = chunk_of([1])
    entry = book.open(chunk, everything(chunk))
    assert entry is not None
    book.end()
    move = moved(book)
    assert move is None or not move.ended
    entry.settle(0, 1, delivered(1))
    move = moved(book)
    assert move is not None
    assert move.ended


def test_an_empty_partition_ends_without_a_position() -> None:
    book = ledger()
    book.end()
    move = moved(book)
    assert move is not None
    assert move.ended
    assert move.position.record == -1


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    keep=st.integers(0, 2**60),
    cuts=st.randoms(use_true_random=False),
    resume_at=st.integers(0, 60),
    data=st.data(),
)
def test_whatever_the_order_of_settling_and_wherever_a_kill_falls_the_books_balance(
    sizes: list[int], keep: int, cuts: random.Random, resume_at: int, data: st.DataObject
) -> None:
    """A first run settles slices in any order and is killed; a second one settles the rest: all exactly once."""
    refused = [(number, "shape") for number, size in enumerate(sizes) if size % 3 == 0]
    chunk = chunk_of(sizes, refused=refused)
    wanted = [index for index in range(chunk.count) if keep >> index & 1]
    share = Share(
        [b"x"] * len(wanted),
        [()] * len(wanted),
        wanted,
        {"match": [index for index in range(chunk.count) if index not in wanted]},
    )
    settled: Position | None = None
    total: Tally = Counter()
    for run in range(2):
        book = ledger(settled)
        entry = book.open(chunk, share)
        if entry is None:
            break
        bounds = sorted({0, entry.owed, *(cuts.randint(0, entry.owed) for _ in range(3))})
        slices = list(itertools.pairwise(bounds))
        cuts.shuffle(slices)
        if run == 0:
            slices = slices[: resume_at % (len(slices) + 1)]
        for start, stop in slices:
            entry.settle(start, stop, delivered(stop - start))
            if data.draw(st.booleans()):
                move = moved(book)
                if move is not None:
                    settled = move.position
                    total.update(move.tally)
        move = moved(book)
        if move is not None:
            settled = move.position
            total.update(move.tally)
    assert settled == Position(chunk.records[-1], END)
    assert total["delivered", ""] == len(wanted)
    assert total["filtered", "match"] == chunk.count - len(wanted)
    assert total["dead_lettered", "shape"] == len(refused)
    assert total["offered", ""] == chunk.count + len(refused)
