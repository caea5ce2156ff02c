"""``shipper demo``: the whole job on this machine, with no account, and a summary of what happened."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from shipper.commands import books
from shipper.demo import EVERYTHING, Progress, Summary, run_demo
from shipper.formats import readable
from shipper.observe.books import total
from shipper.observe.logging import configure
from shipper.settings import LogSettings


@click.command("demo")
@click.option("--events", type=click.IntRange(min=10), default=10_000, show_default=True, help="How many to generate.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another number is another activity.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put files, configuration and state here; default: a new temporary folder.",
)
def command(events: int, seed: int, keep: Path | None) -> int:
    """Show the whole job on this machine: an embedded Kinesis and KMS, generated activity of two databases, encrypted
    as the engines do, shipped to files by the engine of `shipper run`. No account, no Docker, no network.

    \b
    Example:
      shipper demo
      shipper demo --events 100000 --keep demo-output
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="shipper-demo-"))
    console = Console(highlight=False)
    configure(LogSettings(level="warning"))
    console.print("An embedded Kinesis and KMS; two Aurora clusters at work; their activity goes to files.\n")
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=False) as bars:
        generating = bars.add_task("generated, encrypted", total=events)
        settling = bars.add_task("read, decrypted, settled", total=events)

        def show(progress: Progress) -> None:
            bars.update(generating, completed=progress.generated)
            bars.update(settling, completed=min(progress.settled, events))

        summary = run_demo(folder, events, seed, show)
        bars.update(generating, completed=summary.generated)
        bars.update(settling, completed=min(total(summary.result.books[EVERYTHING], "offered"), events))
    _print(console, summary)
    return 0 if summary.complete else 1


def _print(console: Console, summary: Summary) -> None:
    rate = summary.generated / summary.seconds
    console.print(
        f"\n{summary.generated:,} events in {summary.records:,} records and {summary.heartbeats:,} heartbeats, "
        f"in {summary.seconds:.1f} s: {rate:,.0f} events/s, generating and encrypting included\n"
    )
    books.show(console, summary.result.books, summary.result.owed, summary.result.spooled)
    planted = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.planted.items()))
    console.print(f"\n{summary.planted.total()} damaged records were planted ({planted});")
    console.print(f"they are dead letters now: shipper dead-letters list -c {summary.folder / 'shipper.toml'}")
    console.print("\nThree of the events:")
    for event in summary.samples:
        console.print(f"  {readable(event)}", markup=False, soft_wrap=True)
    console.print("\nThe files:")
    for path in sorted(summary.folder.glob("*/*.jsonl*")):
        console.print(f"  {path}  {path.stat().st_size:,} bytes", markup=False, soft_wrap=True)
    if summary.complete:
        console.print(
            f"\n[green]Complete:[/green] {summary.ids:,} different events in the files, each exactly once; "
            f"{summary.dropped:,} dropped by rule; {summary.dead_letters.total()} dead letters. The books balance."
        )
    else:
        console.print(
            f"\n[red]Not complete:[/red] {summary.generated:,} generated, {summary.ids:,} events in the files "
            f"({summary.duplicates:,} of them twice), {summary.dropped:,} dropped by rule, "
            f"{summary.dead_letters.total()} dead letters for {summary.planted.total()} planted. This is a bug."
        )
