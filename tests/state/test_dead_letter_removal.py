"""Dead letters that are sent again, purged or too old: one transaction each, and the books balance."""

from __future__ import annotations

import resource
import sqlite3

import pytest

from shipper.source import EARLIEST
from shipper.state import dead_letters, kept_records, positions, spool, stands
from shipper.state.dead_letters import DeadLetter, Filter
from state.samples import RECORD, Scene


def listed(connection: sqlite3.Connection, chosen: Filter | None = None) -> list[int]:
    return [kept.record for kept in dead_letters.listing(connection, chosen or Filter())]


def balance(books: dict[str, int], pending: int) -> None:
    """The equation of the books, at rest."""
    gone = {entry: books.get(entry, 0) for entry in ("replayed_out", "purged", "expired")}
    now = books.get("dead_lettered", 0) - sum(gone.values())
    coming = books.get("offered", 0) + books.get("replayed", 0)
    assert coming == books.get("delivered", 0) + now + sum(gone.values()) + pending


def test_a_replayed_event_stands_at_the_end_of_its_line(scene: Scene) -> None:
    spool.insert(scene.connection, scene.row(4, scene.a, [b"before"]))
    scene.settle(scene.a, RECORD + 9, offered=3, dead_lettered=2)
    letter = scene.event_letter(RECORD + 1, ordinal=3, raw=b"as the engine wrote it")
    dead_letters.keep(scene.connection, [letter])
    replayed = dead_letters.replay(scene.connection, Filter(), 5, now=200.0)
    assert replayed == (1, {scene.a: 1}, 0, 5, 1, letter.size)
    assert listed(scene.connection) == []
    _, row = spool.page(scene.connection, scene.a, 0, 1000)
    assert (row.id, row.native, row.raw, row.time) == (5, [letter.data], [letter.raw], 200.0)
    assert row.places == [(scene.stream.id, scene.partition, "orders", RECORD + 1, f"at {RECORD + 1}", 5, 3, 1)]


def test_the_books_balance_after_a_replay_of_events(scene: Scene) -> None:
    scene.settle(scene.a, 9, offered=5, delivered=2, dead_lettered=3)
    dead_letters.keep(scene.connection, [scene.event_letter(number) for number in (1, 2, 3)])
    dead_letters.replay(scene.connection, Filter(ids=(1, 3)), 1)
    assert scene.books("a") == {"offered": 5, "delivered": 2, "dead_lettered": 3, "replayed_out": 2, "replayed": 2}
    balance(scene.books("a"), pending=2)
    assert listed(scene.connection) == [2]


def test_replayed_events_are_joined_into_rows_of_their_own_lane(scene: Scene) -> None:
    letters = [scene.event_letter(number, "a" if number % 2 else "b") for number in range(1, 7)]
    dead_letters.keep(scene.connection, letters)
    replayed = dead_letters.replay(scene.connection, Filter(), 1)
    assert replayed.events_by_lane == {scene.a: 3, scene.b: 3}
    assert replayed.last_id == 2
    (row,) = spool.page(scene.connection, scene.b, 0, 1000)
    assert row.native == [b'{"n":2}', b'{"n":4}', b'{"n":6}']


def test_events_with_and_without_a_raw_line_do_not_share_a_row(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1), scene.event_letter(2, raw=b"raw")])
    dead_letters.replay(scene.connection, Filter(), 1)
    rows = spool.page(scene.connection, scene.a, 0, 1000)
    assert [row.raw for row in rows] == [None, [b"raw"]]


def test_a_row_of_replayed_events_has_bounds(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(number, data=b"x" * 600_000) for number in (1, 2, 3)])
    assert dead_letters.replay(scene.connection, Filter(), 1).last_id == 3


def test_an_event_with_a_line_feed_gets_a_row_of_its_own(scene: Scene) -> None:
    data = [b"one", b"line\nfeed", b"two"]
    dead_letters.keep(scene.connection, [scene.event_letter(n, data=bytes_) for n, bytes_ in enumerate(data)])
    dead_letters.replay(scene.connection, Filter(), 1)
    assert [row.native for row in spool.page(scene.connection, scene.a, 0, 1000)] == [[one] for one in data]


def test_a_replayed_record_goes_to_its_sources_own_spool_for_whom_it_is_owed(scene: Scene) -> None:
    scene.settle(scene.b, 9, offered=2, dead_lettered=2)
    letter = scene.record_letter(RECORD, (1, 4), lanes=(scene.b,), resource_id="cluster-1")
    dead_letters.keep(scene.connection, [letter])
    replayed = dead_letters.replay(scene.connection, Filter(output="*"), 1, now=200.0)
    assert replayed == (1, {}, 1, 0, 1, letter.size)
    (record,) = kept_records.page(scene.connection, scene.stream.id, None, 0, 10)
    assert record == scene.kept_record(
        RECORD, letter.data, id=1, arrived=5, time=200.0, lanes=(scene.b,), ordinals=(1, 4), replayed=True
    )
    assert kept_records.totals(scene.connection) == {"orders": (1, len(letter.data), 200.0)}
    assert (scene.books("a"), scene.books("b")) == ({}, {"offered": 2, "dead_lettered": 2, "replayed_out": 2})


def test_a_record_that_names_no_lane_is_owed_to_all_that_read_its_partition(scene: Scene) -> None:
    scene.connection.execute("INSERT INTO lanes (name) VALUES ('reads something else')")
    dead_letters.keep(scene.connection, [scene.record_letter(RECORD)])
    dead_letters.replay(scene.connection, Filter(), 1)
    (record,) = kept_records.page(scene.connection, scene.stream.id, None, 0, 10)
    assert record.lanes == (scene.a, scene.b)
    assert scene.books("a") == scene.books("b") == {"replayed_out": 1}


def test_pages_follow_each_other_until_nothing_is_left(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(number) for number in range(5)])
    letters: list[int] = []
    after = None
    while (page := dead_letters.replay(scene.connection, Filter(after=after), 1 + len(letters), limit=2)).letters:
        letters.append(page.letters)
        after = page.last_letter
    assert letters == [2, 2, 1]
    natives = [line for row in spool.page(scene.connection, scene.a, 0, 1000) for line in row.native]
    assert natives == [b'{"n":%d}' % number for number in range(5)]


def test_a_page_of_large_letters_ends_early(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.record_letter(number, data=bytes(5_000_000)) for number in (1, 2, 3)])
    assert dead_letters.replay(scene.connection, Filter(), 1).letters == 1


@pytest.mark.parametrize(
    ("chosen", "records"),
    [
        (Filter(output="b"), [2]),
        (Filter(reason="too_large"), [3]),
        (Filter(since=1003.0), [3, 4]),
        (Filter(id=1), [1]),
        (Filter(ids=(1, 4)), [1, 4]),
        (Filter(ids=()), []),
        (Filter(event_id="e4"), [4]),
        (Filter(source="billing"), [4]),
        (Filter(after=2), [3, 4]),
        (Filter(output="a", reason="rejected", since=1002.0), [4]),
    ],
)
def test_only_what_is_chosen_is_listed_counted_replayed_and_purged(
    scene: Scene, chosen: Filter, records: list[int]
) -> None:
    letters = [
        scene.event_letter(1),
        scene.event_letter(2, "b"),
        scene.event_letter(3, reason="too_large"),
        scene.event_letter(4, event_id="e4", source="billing"),
    ]
    dead_letters.keep(scene.connection, letters)
    rest = [number for number in (1, 2, 3, 4) if number not in records]
    assert listed(scene.connection, chosen) == records
    assert sum(count for *_, count in dead_letters.counts(scene.connection, chosen)) == len(records)
    scene.connection.execute("BEGIN")
    assert dead_letters.replay(scene.connection, chosen, 1).letters == len(records)
    assert listed(scene.connection) == rest
    scene.connection.execute("ROLLBACK")
    assert dead_letters.purge(scene.connection, chosen) == len(records)
    assert listed(scene.connection) == rest


def test_events_of_an_output_that_nobody_serves_are_not_replayed(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1, "b"), scene.event_letter(2), scene.record_letter(3)])
    assert dead_letters.replay(scene.connection, Filter(), 1, lanes=[scene.a]).letters == 2
    assert listed(scene.connection) == [1, 3], "the record is still owed to the other one"


def test_a_record_is_replayed_for_those_that_are_served_and_stays_for_the_others(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.record_letter(1, lanes=(scene.a, scene.b))])
    replayed = dead_letters.replay(scene.connection, Filter(), 1, lanes=[scene.a])
    assert (replayed.letters, replayed.records) == (1, 1)
    (kept,) = kept_records.page(scene.connection, scene.stream.id, None, 0, 10)
    assert kept.lanes == (scene.a,)
    assert sum(count for _, _, count in dead_letters.counts(scene.connection, Filter())) == 1
    again = dead_letters.replay(scene.connection, Filter(), 1, lanes=[scene.a])
    assert (again.letters, again.last_letter) == (0, replayed.last_letter)
    assert positions.books(scene.connection)["a"] == {"replayed_out": {"": 1}}
    assert dead_letters.replay(scene.connection, Filter(), 1, lanes=[scene.b]).records == 1
    assert list(dead_letters.listing(scene.connection, Filter())) == []


def test_purged_letters_are_purged_in_the_books_of_every_lane_that_they_were_owed_to(scene: Scene) -> None:
    scene.settle(scene.a, 9, offered=4, dead_lettered=4)
    scene.settle(scene.b, 9, offered=3, dead_lettered=3)
    dead_letters.keep(scene.connection, [scene.event_letter(1), scene.record_letter(2, (0, 1, 2))])
    assert dead_letters.purge(scene.connection, Filter(), limit=1) == 1
    assert dead_letters.purge(scene.connection, Filter(), limit=10) == 1
    assert (scene.books("a")["purged"], scene.books("b")["purged"]) == (4, 3)
    balance(scene.books("a"), pending=0)
    balance(scene.books("b"), pending=0)


def test_what_was_last_met_long_ago_expires(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(number) for number in (1, 2, 3)])
    dead_letters.keep(scene.connection, [scene.event_letter(1, time=2000.0)])  # met again
    assert dead_letters.expire(scene.connection, 1003.0) == 1
    assert listed(scene.connection) == [1, 3]
    assert scene.books("a") == {"replayed_out": 1, "expired": 1}


@pytest.mark.parametrize("replayed", [True, False])
def test_what_is_gone_does_not_come_back_while_a_lane_may_meet_it_again(scene: Scene, replayed: bool) -> None:
    scene.settle(scene.a, RECORD)
    scene.settle(scene.b, RECORD - 1)
    letter = scene.record_letter(RECORD)
    dead_letters.keep(scene.connection, [letter])
    if replayed:
        dead_letters.replay(scene.connection, Filter(), 1)
    else:
        dead_letters.purge(scene.connection, Filter())
    assert dead_letters.keep(scene.connection, [letter]) == []
    assert dead_letters.forget_tombstones(scene.connection) == 0
    scene.settle(scene.b, RECORD)
    assert dead_letters.forget_tombstones(scene.connection) == 1
    assert dead_letters.keep(scene.connection, [letter]) == [letter]


def test_a_half_settled_record_may_be_met_again(scene: Scene) -> None:
    scene.settle(scene.a, RECORD, event=3)
    scene.settle(scene.b, RECORD)
    dead_letters.keep(scene.connection, [scene.record_letter(RECORD)])
    dead_letters.purge(scene.connection, Filter())
    assert dead_letters.keep(scene.connection, [scene.record_letter(RECORD)]) == []


def test_a_partition_that_a_lane_has_read_to_its_end_is_not_met_again(scene: Scene) -> None:
    scene.connection.execute("UPDATE positions SET ended = 1")
    dead_letters.keep(scene.connection, [scene.record_letter(RECORD)])
    dead_letters.purge(scene.connection, Filter())
    assert scene.connection.execute("SELECT count(*) FROM tombstones").fetchone() == (0,)


def test_an_event_that_is_refused_again_is_kept_again_also_while_its_record_is_half_settled(scene: Scene) -> None:
    """Its lane has passed the event, though not the record: it comes again because it was sent again."""
    scene.settle(scene.a, RECORD, event=3, offered=3, delivered=2, dead_lettered=1)
    letter = scene.event_letter(RECORD, ordinal=1)
    dead_letters.keep(scene.connection, [letter])
    dead_letters.replay(scene.connection, Filter(), 1)
    assert dead_letters.keep(scene.connection, [letter]) == [letter]
    assert listed(scene.connection) == [RECORD]


def test_an_event_that_is_read_again_and_refused_again_is_one_dead_letter_in_the_books(scene: Scene) -> None:
    scene.settle(scene.a, RECORD, offered=1, dead_lettered=1)
    dead_letters.keep(scene.connection, [scene.event_letter(RECORD)])
    stands.begin_again(scene.connection, scene.a, scene.stream.id, EARLIEST, 2.0)
    assert dead_letters.keep(scene.connection, [scene.event_letter(RECORD)]) == []
    scene.settle(scene.a, RECORD, offered=1, dead_lettered=1)
    assert scene.books("a") == {"offered": 2, "dead_lettered": 2, "replayed_out": 1}
    assert listed(scene.connection) == [RECORD]


def test_a_record_met_again_by_a_lane_that_was_behind_is_owed_to_both(scene: Scene) -> None:
    assert dead_letters.keep(scene.connection, [scene.record_letter(1, lanes=(scene.a,))])
    assert dead_letters.keep(scene.connection, [scene.record_letter(1, lanes=(scene.b,))]) == []
    dead_letters.replay(scene.connection, Filter(), 1)
    (record,) = kept_records.page(scene.connection, scene.stream.id, None, 0, 10)
    assert record.lanes == (scene.a, scene.b)


def test_both_kinds_of_bytes_are_counted_and_found(scene: Scene) -> None:
    letter = scene.event_letter(1, raw=b"raw line")
    dead_letters.keep(scene.connection, [letter, scene.event_letter(2)])
    assert dead_letters.stored_bytes(scene.connection) == letter.size + len(b'{"n":2}')
    assert dead_letters.raw_of(scene.connection, 1) == b"raw line"
    assert dead_letters.raw_of(scene.connection, 2) is None


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_very_many_dead_letters_are_listed_replayed_and_purged_page_by_page(scene: Scene, count: int) -> None:
    """A page costs the same at the end as at the beginning, and memory does not grow with their number."""

    def letter(number: int) -> DeadLetter:
        reason = "rejected" if number % 2 else "too_large"
        return scene.event_letter(number, data=b"x" * 1500, reason=reason)

    scene.connection.execute("BEGIN")
    for start in range(0, count, 1000):
        dead_letters.keep(scene.connection, [letter(number) for number in range(start, start + 1000)])
    scene.connection.execute("COMMIT")
    scene.settle(scene.a, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in dead_letters.listing(scene.connection, Filter(since=1.0))) == count
    steps: list[int] = []  # of SQLite's machine, in hundreds: what a page costs, on any computer
    scene.connection.set_progress_handler(lambda: steps.append(1), 100)
    first, costs = 1, []
    while True:
        steps.clear()
        scene.connection.execute("BEGIN IMMEDIATE")
        page = dead_letters.replay(scene.connection, Filter(reason="too_large"), first)
        scene.connection.execute("COMMIT")
        if not page.letters:
            break
        costs.append(len(steps))
        first = page.last_id + 1
    assert max(costs) < 2 * min(costs)
    purged = 0
    steps.clear()
    while letters := dead_letters.purge(scene.connection, Filter(since=1.0)):
        assert len(steps) < 2 * max(costs)
        steps.clear()
        purged += letters
    scene.connection.set_progress_handler(None, 0)
    assert purged == count // 2
    assert listed(scene.connection) == []
    assert spool.totals(scene.connection)[scene.a].events == count // 2
    assert scene.connection.execute("SELECT count(*) FROM tombstones").fetchone() == (0,)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000  # KiB; SQLite's own cache among them
