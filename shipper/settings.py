"""The TOML file as typed tables (docs/configuration.md). How files are found, merged and explained:
``shipper.configuration``.

Every key has a default where one can be right; unknown keys are errors. Sizes are bytes, durations seconds. A field's
description is what docs/configuration.md says about the key, and what an error says where it is missing.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from shipper.paths import LocalPath, LocalPattern
from shipper.secrets import Secret
from shipper.units import Duration, DurationOrNever, Size


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _urls(value: str | dict[str, str] | None) -> str | dict[str, str] | None:
    for url in value.values() if isinstance(value, dict) else filter(None, [value]):
        if not re.match(r"https?://[^/]", url):
            raise PydanticCustomError("url", 'it begins with "https://" or "http://"')
    return value


def _resource_id(value: str) -> str:
    if not re.fullmatch(r"(cluster|db)-[A-Za-z0-9-]+", value):
        raise PydanticCustomError(
            "resource_id",
            'it begins with "cluster-" or "db-" (DbClusterResourceId, DbiResourceId in RDS); '
            "names that people give go into cluster or instance",
        )
    return value


def _start(value: object) -> object:
    """``earliest``, ``latest`` or a time with its offset, as TOML or as text."""
    if isinstance(value, str) and value not in ("earliest", "latest"):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, str) or (isinstance(value, datetime) and value.tzinfo is not None):
        return value
    raise PydanticCustomError(
        "start", 'write "earliest", "latest", or a time with its offset such as 2026-01-31T12:00:00Z'
    )


def _after(value: float) -> float:
    if value <= 0:
        raise PydanticCustomError(
            "spool_after", 'with 0 every event would go through the disk before it is sent; the default is "30s"'
        )
    return value


def _name(value: str | None) -> str | None:
    if value is not None and not NAME.fullmatch(value):
        raise PydanticCustomError("name", "names have letters, digits, _ and -, at most 64")
    return value


def _listen(value: str) -> str:
    if value and not _LISTEN.fullmatch(value):
        raise PydanticCustomError("listen", 'write "127.0.0.1:9686" or "[::1]:9686", or "" to turn it off')
    return value


#: What the user may call a source, a transform or an output: names stand in key paths, metrics and the state file.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

_LISTEN = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
)

#: Text that counts as absent when it is empty, so that ``"${ROLE_ARN:-}"`` means none.
TextOrNone = Annotated[str | None, BeforeValidator(_none_if_empty)]
ResourceId = Annotated[str, AfterValidator(_resource_id)]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class AwsSettings(Table):
    """What everything that talks to AWS takes; a table's own key wins over ``[aws]``, key by key. Empty text is the
    same as leaving a key out, and undoes what it would inherit."""

    region: TextOrNone = Field(None, description="AWS region; default: boto3's environment (`AWS_REGION` …)")
    profile: TextOrNone = Field(None, description="profile of the shared AWS configuration files")
    role_arn: TextOrNone = Field(None, description="role to assume; its credentials are renewed in time")
    external_id: TextOrNone = Field(None, description="external id that the role's trust policy asks for")
    endpoint_url: Annotated[str | dict[str, str] | None, BeforeValidator(_none_if_empty), AfterValidator(_urls)] = (
        Field(None, description="one URL for every service, or a table by service: `kinesis`, `kms`, `rds`, `sts` …")
    )


class KeysSettings(AwsSettings):
    """Who unwraps the data keys: KMS, or a file of keys that are already unwrapped. What `[aws]` takes is inherited
    from the source."""

    provider: Literal["kms", "static"] = Field("kms", description="`kms` asks AWS; `static` reads `path`")
    path: LocalPath | None = Field(None, description="the keys file of `static`: JSON, wrapped key to data key")
    max_entries: int = Field(1000, ge=1, description="data keys kept in memory")
    ttl: Duration = Field(
        600.0, gt=0, description="how long a data key is kept; a lost permission shows at the latest after this"
    )


class SourceSettings(Table):
    """Keys that every source has."""

    type: str = Field(description="`kinesis` or `file`")
    decode: Literal["auto", "das", "events"] = Field(
        "auto",
        description="`das`: activity streams, encrypted or not; `events`: all that is not encrypted; `auto`: both",
    )
    start: Annotated[Literal["earliest", "latest"] | datetime, BeforeValidator(_start)] = Field(
        "earliest", description="where to begin while no position exists: or a time, `2026-01-31T12:00:00Z`"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="added to this source's events, over the labels of the file"
    )
    engine: Literal["aurora-postgresql", "aurora-mysql", "oracle", "sqlserver"] | None = Field(
        None, description="the database's engine, where the bytes do not say"
    )


class KinesisSettings(SourceSettings, AwsSettings):
    """A Database Activity Stream on Kinesis. Exactly one of `cluster`, `instance`, `resource_id` and `stream` names
    it."""

    type: Literal["kinesis"] = Field("kinesis", description="`kinesis`")
    cluster: str | None = Field(None, min_length=1, description="Aurora cluster identifier, such as `orders-prod`")
    instance: str | None = Field(None, min_length=1, description="RDS instance identifier")
    resource_id: ResourceId | None = Field(None, description="resource id: `cluster-…` or `db-…`")
    stream: str | None = Field(None, min_length=1, description="name of the Kinesis stream: `aws-rds-das-…`")
    poll_interval: Duration = Field(
        1.0, gt=0, description="between two reads of a shard that has nothing more; AWS allows five a second"
    )
    keys: KeysSettings = Field(default=KeysSettings(), description="who unwraps the data keys")


class FileSourceSettings(SourceSettings):
    """Captured records, decrypted records, bare engine events or native events in files."""

    type: Literal["file"] = Field("file", description="`file`")
    path: LocalPattern = Field(min_length=1, description="a path or a glob pattern (`captured/**/*.jsonl.gz`)")
    keys: KeysSettings = Field(default=KeysSettings(), description="who unwraps the data keys of encrypted records")
    resource_id: ResourceId | None = Field(
        None, description="where the records came from, `cluster-…` or `db-…`: needed for keys from KMS"
    )
    follow: bool = Field(False, description="go on reading what is added, and files that appear")


class BatchSettings(Table):
    """A batch is sent when the first of these is reached."""

    max_events: int = Field(1000, ge=1, description="events in a batch")
    max_bytes: Size = Field(1_000_000, ge=1, description="encoded bytes in a batch, before compression")
    max_wait: Duration = Field(1.0, description="how long the first event of a batch waits for others")


class RetrySettings(Table):
    """Exponential back-off with full jitter."""

    initial: Duration = Field(0.5, gt=0, description="the first wait is at most this")
    max: Duration = Field(60.0, gt=0, description="no wait is longer than this")
    give_up_after: DurationOrNever = Field(
        None, description="then the events become dead letters, reason `gave_up`; `never` keeps trying"
    )


class SpoolSettings(Table):
    """What an output cannot take yet waits on disk, in the state file, so that it holds up nothing else."""

    max_bytes: Size = Field(10_000_000_000, ge=1, description="what may wait for this output")
    when_full: Literal["block", "dead_letter"] = Field(
        "block",
        description="`block`: the sources of this output stop until there is room, for its neighbours too; "
        "`dead_letter`: what does not fit becomes dead letters, reason `spool_full`",
    )
    after: Annotated[Duration, AfterValidator(_after)] = Field(
        30.0, description="what is not settled for this long goes to disk, so that no position is older"
    )


class FormatSettings(Table):
    """How an event is written: `format = "native"`, or a table with options."""

    type: Literal["native", "raw", "pretty"] = Field(
        "native", description="`native`: the event; `raw`: the decrypted record with this one event; `pretty`: console"
    )
    only: tuple[str, ...] | None = Field(None, description="`native`: only these fields")
    except_: tuple[str, ...] | None = Field(None, alias="except", description="`native`: all but these fields")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given


class OutputSettings(Table):
    """Keys that every output has."""

    type: str = Field(description="an installed output plugin: `file`, `console` …")
    sources: tuple[str, ...] | None = Field(None, description="names of the sources that feed it; default: all")
    transforms: tuple[str, ...] | None = Field(
        None, description="names, applied in this order; default: all, in order of appearance; `[]`: none"
    )
    match: dict[str, Any] | None = Field(None, description="ship only events that match, after the transforms")
    format: FormatSettings = Field(default=FormatSettings(), description="how an event is written")
    labels: dict[str, str] = Field(
        default_factory=dict, description="added to this output's events, over those of source and file"
    )
    batch: BatchSettings = Field(default=BatchSettings(), description="when a batch is sent")
    retry: RetrySettings = Field(default=RetrySettings(), description="what follows a failure that may pass")
    spool: SpoolSettings = Field(
        default=SpoolSettings(), description="what waits on disk while the output is slow or down"
    )
    max_event_bytes: Size | None = Field(
        None, ge=1, description="encoded bytes of one event; default: what the destination itself allows"
    )
    oversize: Literal["dead_letter", "truncate"] = Field(
        "dead_letter",
        description="what becomes of a larger event; `truncate` cuts `statement`, `parameters`, `error`, `native`, "
        "in that order",
    )
    renamed_from: Annotated[str | None, AfterValidator(_name)] = Field(
        None, description="this output's earlier name: it goes on where that one stood, with all that it still owes"
    )
    concurrency: int = Field(1, ge=1, le=256, description="batches sent at the same time; more than 1 gives up order")
    max_targets: int = Field(
        100, ge=1, description="different places (paths …) that templates may make in a day; more become `other`"
    )


class TlsSettings(Table):
    """How a connection is encrypted and who is trusted."""

    ca_file: LocalPath | None = Field(None, description="trusted certificate authorities (PEM); default: the system's")
    cert_file: LocalPath | None = Field(None, description="client certificate (PEM)")
    key_file: LocalPath | None = Field(None, description="the client certificate's key (PEM)")
    key_password: Secret | None = Field(None, description="password of `key_file`")
    fingerprint: str | None = Field(None, description="SHA-256 of the one server certificate that is trusted")
    verify: bool = Field(True, description="verify the server's certificate")
    verify_hostname: bool = Field(True, description="verify that the certificate names this host")


class TimeoutSettings(Table):
    """How long to wait for a destination."""

    connect: Duration = Field(10.0, gt=0, description="for a connection")
    request: Duration = Field(60.0, gt=0, description="for the answer to a request")


class NetworkSettings(OutputSettings):
    """Keys of outputs that ship over the network."""

    timeout: TimeoutSettings = Field(default=TimeoutSettings(), description="how long to wait")
    tls: TlsSettings = Field(default=TlsSettings(), description="encryption and trust")


class TransformSettings(Table):
    """`keep` ships only what matches, `drop` drops it; what is dropped is counted."""

    type: Literal["keep", "drop"] = Field(description="`keep` or `drop`")
    match: dict[str, Any] = Field(description="the condition; `drop` compares exactly, `keep` without regard to case")


class EventSettings(Table):
    """How events are made."""

    id_key: Secret | None = Field(
        None, description="secret that keys the hash in event ids, so that nobody can guess them; keep it for good"
    )


class DeadLetterSettings(Table):
    """What could not be shipped, kept in the state file."""

    max_bytes: Size = Field(5_000_000_000, ge=1, description="when full, the component that would write is held")
    max_age: DurationOrNever = Field(
        None, gt=0, description="older ones are deleted, and counted as expired; `never` keeps them"
    )
    output: TextOrNone = Field(
        None, description="name of an output that gets a copy of each; what it refuses makes no further dead letter"
    )
    storm: int = Field(
        100, ge=2, description="so many in a row, with none that passes between them, hold the component instead"
    )


class StateSettings(Table):
    """Positions, spool, dead letters and the books: one SQLite file on a local disk."""

    path: Annotated[LocalPath, Field(validate_default=True)] = Field(
        default="state/shipper.db",  # type: ignore[assignment]  # validated like what a file says: beside the first file
        description="the state file; its folder is made where it is missing",
    )
    reserve: Size | None = Field(
        None, description="free space of the disk that spooling leaves alone; default: 64 MB, or 5 % of a smaller disk"
    )


class ServerSettings(Table):
    """Health and metrics over HTTP."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        "127.0.0.1:9686", description='address and port; `""` turns it off; default also: `$SHIPPER_LISTEN`'
    )
    drain_timeout: Duration = Field(20.0, description="how long stopping may take; orchestrators kill after 30 s")

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; ``None`` where the server is off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if host else None


class SecretsSettings(AwsSettings):
    """How secrets are read: what `[aws]` takes is for Secrets Manager and the Parameter Store."""

    refresh: Duration = Field(300.0, gt=0, description="secrets given by reference are read again after this")


class LogSettings(Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    format: Literal["json", "text"] | None = Field(None, description="default: `text` on a terminal, `json` elsewhere")


class Configuration(Table):
    """Everything that the files say, with defaults filled in and ``[aws]`` inherited. Sources, transforms and outputs
    keep the order of their first appearance."""

    labels: dict[str, str] = Field(default_factory=dict, description="added to every event")
    aws: AwsSettings = Field(default=AwsSettings(), description="for everything that talks to AWS")
    sources: dict[str, SourceSettings] = Field(default_factory=dict, description="where records come from")
    transforms: dict[str, TransformSettings] = Field(default_factory=dict, description="what is shipped at all")
    outputs: dict[str, OutputSettings] = Field(default_factory=dict, description="where events go")
    event: EventSettings = Field(default=EventSettings(), description="how events are made")
    dead_letters: DeadLetterSettings = Field(default=DeadLetterSettings(), description="what could not be shipped")
    state: StateSettings = Field(default=StateSettings(), description="positions, spool, dead letters, the books")
    server: ServerSettings = Field(default=ServerSettings(), description="health and metrics")
    secrets: SecretsSettings = Field(default=SecretsSettings(), description="how secrets are read")
    log: LogSettings = Field(default=LogSettings(), description="what is logged")


#: ``type`` of a source → its settings; the classes that read are in ``shipper.sources``.
SOURCE_SETTINGS: dict[str, type[SourceSettings]] = {"kinesis": KinesisSettings, "file": FileSourceSettings}
