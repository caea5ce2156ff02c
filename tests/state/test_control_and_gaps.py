"""What commands ask of a running shipper, and what streams have lost."""

from __future__ import annotations

import sqlite3

from shipper.state import control, gaps
from shipper.state.gaps import Gap


def test_requests_are_carried_out_in_order_and_answered_once(connection: sqlite3.Connection) -> None:
    first = control.ask(connection, {"do": "purge", "filter": {"output": "a"}}, 10.0)
    second = control.ask(connection, {"do": "acknowledge_gaps"}, 11.0)
    assert control.waiting(connection) == [
        (first, {"do": "purge", "filter": {"output": "a"}}),
        (second, {"do": "acknowledge_gaps"}),
    ]
    control.answer(connection, first, {"letters": 3})
    control.answer(connection, second, {"message": "no"}, failed=True)
    assert control.waiting(connection) == []
    assert control.result(connection, first) == ("done", {"letters": 3})
    assert control.result(connection, second) == ("failed", {"message": "no"})


def test_who_has_no_answer_yet_waits(connection: sqlite3.Connection) -> None:
    assert control.result(connection, control.ask(connection, {}, 10.0)) == ("waiting", None)


def test_a_request_is_withdrawn_while_nobody_has_carried_it_out(connection: sqlite3.Connection) -> None:
    waiting, answered = (control.ask(connection, {}, 10.0) for _ in "ab")
    control.answer(connection, answered, {})
    assert control.withdraw(connection, waiting)
    assert not control.withdraw(connection, answered)
    assert control.waiting(connection) == []


def test_old_requests_are_cleaned_away(connection: sqlite3.Connection) -> None:
    old, new = control.ask(connection, {}, 10.0), control.ask(connection, {}, 20.0)
    control.answer(connection, old, {})
    assert control.clean(connection, 15.0) == 1
    assert control.result(connection, old) == ("failed", None)
    assert control.result(connection, new) == ("waiting", None)
    control.clean(connection, 30.0)
    assert control.ask(connection, {}, 40.0) > new


def test_a_gap_is_shown_until_it_is_acknowledged(connection: sqlite3.Connection) -> None:
    assert gaps.note(connection, "orders", "shard", 10.0, 20.0, "expired", 30.0)
    assert gaps.open_gaps(connection) == [Gap(1, "orders", "shard", 10.0, 20.0, "expired", 30.0)]
    assert gaps.acknowledge(connection, 40.0) == 1
    assert gaps.open_gaps(connection) == []
    assert gaps.acknowledge(connection, 50.0) == 0


def test_a_gap_that_grows_is_one_gap(connection: sqlite3.Connection) -> None:
    gaps.note(connection, "orders", "shard", 10.0, 20.0, "expired", 30.0)
    assert not gaps.note(connection, "orders", "shard", 10.0, 25.0, "expired", 31.0)
    assert [(gap.since, gap.until) for gap in gaps.open_gaps(connection)] == [(10.0, 25.0)]


def test_a_gap_met_again_after_it_was_acknowledged_is_a_new_one(connection: sqlite3.Connection) -> None:
    gaps.note(connection, "orders", "shard", 10.0, 20.0, "expired", 30.0)
    gaps.acknowledge(connection, 40.0)
    assert gaps.note(connection, "orders", "shard", 10.0, 25.0, "expired", 50.0)
    assert len(gaps.open_gaps(connection)) == 1
