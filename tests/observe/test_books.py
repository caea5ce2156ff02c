"""The books of one output: when they balance, and what is a dead letter at present."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shipper.observe.books import balances, dead_letters_now, summary

Book = Mapping[str, Mapping[str, int]]


@pytest.mark.parametrize(
    ("book", "spooled", "letters"),
    [
        ({}, 0, 0),
        (
            {"offered": {"": 5}, "filtered": {"quiet": 1, "match": 1}, "delivered": {"": 2}, "already_stored": {"": 1}},
            0,
            0,
        ),
        ({"offered": {"": 5}, "delivered": {"": 2}, "dead_lettered": {"rejected": 1, "too_large": 1}}, 1, 2),
        ({"offered": {"": 3}, "dead_lettered": {"rejected": 3}, "purged": {"": 1}, "expired": {"": 1}}, 0, 1),
        ({"offered": {"": 2}, "dead_lettered": {"rejected": 2}, "replayed_out": {"": 2}, "replayed": {"": 2}}, 2, 0),
        ({"offered": {"": 4}, "delivered": {"": 1}, "purged": {"spool": 3}}, 0, 0),
        ({"offered": {"": 4}, "dead_lettered": {"rejected": 2}, "purged": {"spool": 2, "": 1}}, 0, 1),
    ],
)
def test_books_in_which_every_event_is_accounted_for_balance(book: Book, spooled: int, letters: int) -> None:
    assert dead_letters_now(book) == letters
    assert balances(book, spooled)
    assert not balances(book, spooled + 1)
    assert not balances({**book, "offered": {"": book.get("offered", {}).get("", 0) + 1}}, spooled)


def test_a_summary_has_every_line_and_the_reasons_of_those_that_have_some() -> None:
    book = {"offered": {"": 5}, "delivered": {"": 2}, "dead_lettered": {"rejected": 2}}
    assert summary(book, spooled=1, kept=3) == {
        "offered": 5,
        "replayed": 0,
        "filtered": 0,
        "delivered": 2,
        "already_stored": 0,
        "dead_lettered": 2,
        "replayed_out": 0,
        "purged": 0,
        "expired": 0,
        "dead_letters": 2,
        "dead_letters_kept": 3,
        "pending": 1,
        "balances": True,
        "reasons": {"dead_lettered": {"rejected": 2}},
    }
