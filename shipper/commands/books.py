"""The books of a run as people read them, and whether they balance."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

Books = Mapping[str, Mapping[str, Mapping[str, int]]]

#: What an offered event can have become (interface.md, Metrics).
SETTLED = ("filtered", "delivered", "already_stored", "dead_lettered")


def total(books: Mapping[str, Mapping[str, int]], entry: str) -> int:
    """One line of one output's books over all reasons."""
    return sum(books.get(entry, {}).values())


def balances(books: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether every event that was offered to the output is accounted for."""
    return total(books, "offered") == sum(total(books, entry) for entry in SETTLED)


def show(console: Console, books: Books, owed: Mapping[str, int]) -> None:
    """Prints one line per output: what it was offered and what became of that. ``owed``: read but not settled; it
    stays behind the position and is read again."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("output")
    for heading in ("offered", "delivered", "already stored", "filtered", "dead letters", "not settled"):
        table.add_column(heading, justify="right")
    table.add_column("books")
    for name, book in books.items():
        table.add_row(
            name,
            *(f"{total(book, entry):,}" for entry in ("offered", "delivered", "already_stored", "filtered")),
            f"{total(book, 'dead_lettered'):,}",
            f"{owed.get(name, 0):,}",
            "[green]balance[/green]" if balances(book) else "[red]do not balance[/red]",
        )
    console.print(table)
    reasons = sorted({reason for book in books.values() for reason in book.get("dead_lettered", {})})
    if reasons:
        console.print(f"dead letters by reason: {', '.join(reasons)} (see: shipper dead-letters list)")


__all__ = ["Books", "balances", "show", "total"]
