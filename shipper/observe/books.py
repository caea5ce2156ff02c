"""What the books of one output say: whether every event that it was offered is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipper.state import spool

#: Of one output: entry → reason ('' where there is none) → count.
Book = Mapping[str, Mapping[str, int]]

#: What an event that was offered or replayed can have become for good (docs/delivery.md, The books).
SETTLED = ("filtered", "delivered", "already_stored", "replayed_out", "purged", "expired")
#: What takes a dead letter away again, but for what was purged from the spool.
TAKEN = ("replayed_out", "purged", "expired")
#: Every line of the books.
ENTRIES = ("offered", "replayed", "filtered", "delivered", "already_stored", "dead_lettered", *TAKEN)


def total(book: Book, entry: str) -> int:
    """One line of the books over all reasons."""
    return sum(book.get(entry, {}).values())


def dead_letters_now(book: Book) -> int:
    """How many events and records are among the dead letters at present."""
    taken = sum(total(book, entry) for entry in TAKEN) - book.get("purged", {}).get(spool.PURGED, 0)
    return total(book, "dead_lettered") - taken


def balances(book: Book, spooled: int = 0) -> bool:
    """Whether every event that was offered to the output is accounted for. ``spooled``: those that are on disk."""
    owed = total(book, "offered") + total(book, "replayed")
    return owed == sum(total(book, entry) for entry in SETTLED) + dead_letters_now(book) + spooled


def summary(book: Book, spooled: int, kept: int) -> dict[str, Any]:
    """The books as JSON: every line as a number; ``pending``: on disk; ``dead_letters``: at present, by the books;
    ``dead_letters_kept``: by what is really there; ``reasons`` of the lines that have some."""
    return {
        **{entry: total(book, entry) for entry in ENTRIES},
        "dead_letters": dead_letters_now(book),
        "dead_letters_kept": kept,
        "pending": spooled,
        "balances": balances(book, spooled),
        "reasons": {entry: dict(book[entry]) for entry in ("filtered", "dead_lettered", "purged") if entry in book},
    }
