"""The TOML file as typed tables (interface.md, Configuration). How files are found, merged and explained:
``shipper.configuration``.

Every key has a default where one can be right; unknown keys are errors. Sizes are bytes, durations seconds.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shipper.secrets import Secret
from shipper.units import Duration, DurationOrNever, Size


class Table(BaseModel):
    """A TOML table: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class AwsSettings(Table):
    """What everything that talks to AWS takes; a table's own key wins over ``[aws]``, key by key."""

    region: str | None = Field(None, description="AWS region; default: boto3's environment")
    profile: str | None = Field(None, description="profile of the shared AWS configuration files")
    role_arn: str | None = Field(None, description="role to assume, with refreshed credentials")
    external_id: str | None = Field(None, description="external id that the role's trust policy asks for")
    endpoint_url: str | dict[str, str] | None = Field(
        None, description="one URL for every service, or a table by service: kinesis, kms, rds, sts …"
    )


class KeysSettings(AwsSettings):
    """Where the keys that wrap the data keys are unwrapped: by KMS, or from a file of already unwrapped keys."""

    provider: Literal["kms", "static"] = "kms"
    path: Path | None = Field(None, description="keys file, for provider static")
    max_entries: int = Field(1000, ge=1, description="data keys kept in memory")
    ttl: Duration = Field(600.0, description="how long a data key is kept; a lost permission shows after this")


class SourceSettings(Table):
    """Keys that every source has."""

    type: str
    decode: Literal["auto", "das", "events"] = "auto"
    start: Literal["earliest", "latest"] | datetime = Field(
        "earliest", description="where to begin while no position exists"
    )
    labels: dict[str, str] = Field(default_factory=dict)
    engine: Literal["aurora-postgresql", "aurora-mysql", "oracle", "sqlserver"] | None = Field(
        None, description="the engine, where the bytes do not say"
    )


class KinesisSettings(SourceSettings, AwsSettings):
    """A Database Activity Stream on Kinesis; exactly one of the first four keys names it."""

    type: Literal["kinesis"] = "kinesis"
    cluster: str | None = Field(None, description="Aurora cluster identifier")
    instance: str | None = Field(None, description="RDS instance identifier")
    resource_id: str | None = Field(None, description="cluster-… or db-…")
    stream: str | None = Field(None, description="name of the Kinesis stream")
    poll_interval: Duration = Field(1.0, description="between two reads of a shard at its tip; AWS allows 5/s")
    keys: KeysSettings = KeysSettings()


class FileSourceSettings(SourceSettings):
    """Captured records, decrypted records, bare engine events or native events in files."""

    type: Literal["file"] = "file"
    path: str = Field(description="a path or a glob pattern, relative to the first configuration file")
    keys: KeysSettings = KeysSettings()
    resource_id: str | None = Field(None, description="where captured records came from; needed for keys by KMS")
    follow: bool = Field(False, description="go on reading what is added, and files that appear")


class BatchSettings(Table):
    """A batch is sent when the first of these is reached."""

    max_events: int = Field(1000, ge=1)
    max_bytes: Size = Field(1_000_000, ge=1)
    max_wait: Duration = 1.0


class RetrySettings(Table):
    """Exponential back-off with full jitter."""

    initial: Duration = 0.5
    max: Duration = 60.0
    give_up_after: DurationOrNever = Field(None, description='then dead letter, reason gave_up; default "never"')


class FormatSettings(Table):
    """How an event is written: ``format = "native"`` or a table with options."""

    type: Literal["native", "raw", "pretty"] = "native"
    only: tuple[str, ...] | None = Field(None, description="native: only these fields")
    except_: tuple[str, ...] | None = Field(None, alias="except", description="native: all but these fields")


class OutputSettings(Table):
    """Keys that every output has."""

    type: str
    sources: tuple[str, ...] | None = Field(None, description="default: all")
    transforms: tuple[str, ...] | None = Field(None, description="in this order; default: all; [] = none")
    match: dict[str, Any] | None = Field(None, description="ship only events that match")
    format: FormatSettings = FormatSettings()
    labels: dict[str, str] = Field(default_factory=dict)
    batch: BatchSettings = BatchSettings()
    retry: RetrySettings = RetrySettings()
    concurrency: int = Field(1, ge=1, le=256, description="batches sent at the same time")
    max_targets: int = Field(100, ge=1, description="different rendered targets a day; more become `other`")


class TlsSettings(Table):
    """How a connection is encrypted and who is trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: Secret | None = None
    fingerprint: str | None = None
    verify: bool = True
    verify_hostname: bool = True


class TimeoutSettings(Table):
    """How long to wait for a destination."""

    connect: Duration = 10.0
    request: Duration = 60.0


class NetworkSettings(OutputSettings):
    """Keys of outputs that ship over the network."""

    timeout: TimeoutSettings = TimeoutSettings()
    tls: TlsSettings = TlsSettings()


class TransformSettings(Table):
    """``keep`` ships only what matches, ``drop`` drops it."""

    type: Literal["keep", "drop"]
    match: dict[str, Any]


class EventSettings(Table):
    """How events are made."""

    id_key: Secret | None = Field(None, description="keys the hash in event ids, so that they cannot be guessed")


class DeadLetterSettings(Table):
    """What could not be shipped."""

    max_bytes: Size = Field(5_000_000_000, description="full holds the component that would write")


class StateSettings(Table):
    """Positions, dead letters and the books: one SQLite file on a local disk."""

    path: Path = Path("state/shipper.db")


class ServerSettings(Table):
    """Health and metrics over HTTP."""

    listen: str = Field("127.0.0.1:9686", description="address and port; empty turns it off")
    drain_timeout: Duration = 20.0


class SecretsSettings(Table):
    """How secrets are read."""

    refresh: Duration = Field(300.0, description="secrets are read again after this")


class LogSettings(Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] | None = Field(None, description="default: text on a terminal, json elsewhere")


class Configuration(Table):
    """Everything that the files say, with defaults filled in and ``[aws]`` inherited. Sources, transforms and outputs
    keep the order of their first appearance."""

    labels: dict[str, str] = Field(default_factory=dict)
    aws: AwsSettings = AwsSettings()
    sources: dict[str, SourceSettings] = Field(default_factory=dict)
    transforms: dict[str, TransformSettings] = Field(default_factory=dict)
    outputs: dict[str, OutputSettings] = Field(default_factory=dict)
    event: EventSettings = EventSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    state: StateSettings = StateSettings()
    server: ServerSettings = ServerSettings()
    secrets: SecretsSettings = SecretsSettings()
    log: LogSettings = LogSettings()
