"""The books as people read them, and whether they balance."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from shipper.observe.books import Book, balances, dead_letters_now, total

Books = Mapping[str, Book]


def show(console: Console, books: Books, owed: Mapping[str, int], spooled: Mapping[str, int]) -> None:
    """Prints one line per output: what it was offered and what became of that. ``spooled``: events on disk; ``owed``:
    read but neither settled nor spooled; they stay behind the position and are read again."""
    figures = {name: _figures(book, spooled.get(name, 0), owed.get(name, 0)) for name, book in books.items()}
    # What hardly ever happens is shown where it did.
    shown = [heading for heading in HEADINGS if heading in ALWAYS or any(line[heading] for line in figures.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("output")
    for heading in shown:
        table.add_column(heading, justify="right")
    table.add_column("books")
    for name, book in books.items():
        table.add_row(
            name,
            *(f"{figures[name][heading]:,}" for heading in shown),
            "[green]balance[/green]" if balances(book, spooled.get(name, 0)) else "[red]do not balance[/red]",
        )
    console.print(table)
    reasons = sorted({reason for book in books.values() for reason in book.get("dead_lettered", {})})
    if any(dead_letters_now(book) for book in books.values()):
        console.print(f"dead letters by reason: {', '.join(reasons)} (see: shipper dead-letters list)")


def _figures(book: Book, spooled: int, owed: int) -> dict[str, int]:
    lines = {heading: total(book, heading.replace(" ", "_")) for heading in HEADINGS}
    return {**lines, "dead letters": dead_letters_now(book), "in the spool": spooled, "not settled": owed}


#: In the order of what happens to an event.
HEADINGS = (
    "offered", "replayed", "delivered", "already stored", "filtered", "dead letters", "replayed out", "purged",
    "expired", "in the spool", "not settled",
)  # fmt: skip
#: Columns that are shown whatever they hold.
ALWAYS = ("offered", "delivered", "already stored", "filtered", "dead letters", "not settled")

__all__ = ["Books", "show"]
