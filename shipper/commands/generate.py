"""``shipper generate``: realistic activity-stream records on a Kinesis stream or in a file."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from pathlib import Path

import click

from shipper.aws import client
from shipper.clock import Clock, SystemClock
from shipper.errors import ShipperError
from shipper.generate.activity import (
    DEFAULT_EVENTS_PER_RECORD,
    DEFAULT_RATE,
    ENGINES,
    Generator,
    PlainRecord,
)
from shipper.generate.delivery import Totals, deliver
from shipper.generate.destinations import Destination, FileDestination, StreamDestination
from shipper.generate.keys_file import KeysFileWriter
from shipper.generate.sealer import DataKeySource, KmsDataKeys, LocalDataKeys, Sealer
from shipper.settings import AwsSettings

_STREAM_PREFIX = "aws-rds-das-"


@dataclass(frozen=True, slots=True)
class _Activity:
    """What is to be generated."""

    engines: tuple[str, ...]
    events: int
    rate: float
    events_per_record: int
    seed: int
    instances: int | None
    resource_id: str | None
    start: datetime

    def records(self) -> Iterator[PlainRecord]:
        """Several engines share events and rate, and come in the order of their times."""
        share, rest = divmod(self.events, len(self.engines))
        streams = [
            self._generator(engine).records(share + (number < rest)) for number, engine in enumerate(self.engines)
        ]
        return merge(*streams, key=lambda record: record.time)

    def _generator(self, engine: str) -> Generator:
        kind = ENGINES[engine]
        fits = self.resource_id is not None and self.resource_id.startswith("cluster-" if kind.clustered else "db-")
        mixed = len(self.engines) > 1
        try:
            return Generator(
                engine,
                seed=self.seed,
                start=self.start,
                rate=self.rate / len(self.engines),
                events_per_record=self.events_per_record,
                instances=None if mixed and not kind.clustered else self.instances,
                resource_id=self.resource_id if fits or not mixed else None,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error


@click.command()
@click.option(
    "--engine",
    "engines",
    multiple=True,
    required=True,
    type=click.Choice([*ENGINES, "all"]),
    help="Whose activity; may be repeated.",
)
@click.option("--events", required=True, type=click.IntRange(min=1), help="How many events, heartbeats not counted.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Events per second, from now on. Without it: as fast as possible, with times that lie behind now.",
)
@click.option(
    "--events-per-record",
    type=click.IntRange(1, 1_000),
    default=DEFAULT_EVENTS_PER_RECORD,
    show_default=True,
    help="How many events of an instance share a record.",
)
@click.option("--seed", type=int, help="Makes the same activity again; its times and keys are new.")
@click.option(
    "--instances",
    type=click.IntRange(1, 100),
    help="Aurora: one writer, the rest readers (default: 3). An RDS instance is one.",
)
@click.option(
    "--resource-id",
    metavar="ID",
    help="cluster-… (Aurora) or db-… (RDS). Default: what follows aws-rds-das- in the stream's name, else made up.",
)
@click.option("--stream", metavar="NAME", help="The Kinesis stream to write to.")
@click.option(
    "--file",
    "file_path",
    metavar="OUT",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="A file of captured records to append to, one per line; - is standard output.",
)
@click.option("--kms-key", metavar="ID", help="The KMS key (id, ARN or alias) that makes the data keys.")
@click.option(
    "--keys",
    "keys_path",
    metavar="KEYS.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead of KMS: make random data keys, and add them to this file (mode 0600).",
)
@click.option("-r", "--region", help="The AWS region; default: boto3's environment.")
def command(
    engines: tuple[str, ...],
    events: int,
    rate: float | None,
    events_per_record: int,
    seed: int | None,
    instances: int | None,
    resource_id: str | None,
    stream: str | None,
    file_path: str | None,
    kms_key: str | None,
    keys_path: Path | None,
    region: str | None,
) -> None:
    """Write realistic activity-stream records, encrypted exactly as the engines do.

    Needs --stream or --file for the records, and --kms-key or --keys for their data keys.

    \b
    Example:
      shipper generate --engine all --events 1000 --file records.jsonl --keys keys.json
      shipper generate --engine aurora-mysql --events 100000 --rate 500 \\
        --stream aws-rds-das-cluster-ABC --kms-key alias/das -r eu-west-1
    """
    if (stream is None) == (file_path is None):
        raise click.UsageError("give either --stream or --file: where the records go")
    if (kms_key is None) == (keys_path is None):
        raise click.UsageError("give either --kms-key or --keys: where the data keys come from, or where they go")
    # Without a rate the activity is of the time just past: nothing in it lies in the future.
    behind = timedelta(seconds=0 if rate else events / DEFAULT_RATE)
    if resource_id is None and stream is not None and stream.startswith(_STREAM_PREFIX):
        resource_id = stream.removeprefix(_STREAM_PREFIX)
    activity = _Activity(
        engines=tuple(ENGINES) if "all" in engines else tuple(dict.fromkeys(engines)),
        events=events,
        rate=rate or DEFAULT_RATE,
        events_per_record=events_per_record,
        seed=random.randrange(2**32) if seed is None else seed,  # noqa: S311  # activity, not secrets
        instances=instances,
        resource_id=resource_id,
        start=datetime.now(UTC) - behind,
    )
    records = activity.records()
    aws = AwsSettings(region=region)
    keys: DataKeySource
    if kms_key is not None:
        keys = KmsDataKeys(client("kms", aws), kms_key)
    else:
        assert keys_path is not None
        keys = LocalDataKeys(KeysFileWriter(keys_path).add)
    sealer = Sealer(keys, resource_id=resource_id)
    totals = Totals()
    clock = SystemClock()
    try:
        with (
            _destination(stream, file_path, aws, clock) as destination,
            click.progressbar(length=events, label="events", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
        ):
            deliver(
                records,
                sealer.seal,
                destination,
                clock=clock,
                paced_from=activity.start if rate else None,
                totals=totals,
                progress=bar.update,
            )
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ShipperError(f"generate: {file_path} cannot be written: {error.strerror}; stopped") from error
    except KeyboardInterrupt:
        click.echo(f"stopped: {totals}", err=True)
        raise
    click.echo(f"{totals} → {stream or file_path}", err=file_path == "-")


@contextmanager
def _destination(stream: str | None, file_path: str | None, aws: AwsSettings, clock: Clock) -> Iterator[Destination]:
    if stream is not None:
        yield StreamDestination(client("kinesis", aws), stream, clock)
    elif file_path == "-":
        yield FileDestination(sys.stdout.buffer)
    else:
        assert file_path is not None
        with Path(file_path).open("ab") as file:
            yield FileDestination(file)
