"""From the name that people know (a cluster, an instance) to the stream of its activity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipper import aws
from shipper.errors import Held
from shipper.settings import KinesisSettings

#: "Monitoring database activity streams" of the Aurora and RDS user guides: the stream's name is this and the
#: resource id of the cluster or instance.
STREAM_PREFIX = "aws-rds-das-"
_RESOURCE_PREFIXES = ("cluster-", "db-")


@dataclass(frozen=True, slots=True)
class Named:
    """The stream that the settings name; ``resource_id`` decides the KMS encryption context, ``facts`` go into every
    event."""

    stream: str
    resource_id: str | None
    facts: dict[str, str] = field(default_factory=dict)


def resolve(settings: KinesisSettings, component: str) -> Named:
    """Asks RDS where the settings name a cluster or an instance.

    Raises ``Held``: where it does not exist, has no activity stream, or where asking is not permitted.
    """
    if settings.stream is not None:
        return Named(settings.stream, resource_id_of(settings.stream))
    if settings.resource_id is not None:
        return Named(STREAM_PREFIX + settings.resource_id, settings.resource_id)
    if settings.cluster is not None:
        return _cluster(settings, settings.cluster, component)
    assert settings.instance is not None
    return _instance(settings, settings.instance, component)


def resource_id_of(stream: str) -> str | None:
    """``cluster-…`` or ``db-…`` from the name of a stream that RDS made; ``None`` for any other stream."""
    rest = stream.removeprefix(STREAM_PREFIX)
    return rest if rest != stream and rest.startswith(_RESOURCE_PREFIXES) else None


def _cluster(settings: KinesisSettings, name: str, component: str) -> Named:
    described = _ask(settings, component, "DBClusters", "describe_db_clusters", DBClusterIdentifier=name)
    stream = _stream_name(described, f"{component}: cluster {name}", described.get("DBClusterArn", "ARN"))
    return Named(stream, described["DbClusterResourceId"], {"cluster": described.get("DBClusterIdentifier", name)})


def _instance(settings: KinesisSettings, name: str, component: str) -> Named:
    described = _ask(settings, component, "DBInstances", "describe_db_instances", DBInstanceIdentifier=name)
    cluster = described.get("DBClusterIdentifier")
    if cluster and not described.get("ActivityStreamKinesisStreamName"):
        raise Held(
            "stream_not_found",
            f"{component}: instance {name} is a member of the cluster {cluster}, which has the activity stream",
            f'write cluster = "{cluster}" instead',
        )
    stream = _stream_name(described, f"{component}: instance {name}", described.get("DBInstanceArn", "ARN"))
    return Named(stream, described["DbiResourceId"], {"instance": described.get("DBInstanceIdentifier", name)})


def _ask(settings: KinesisSettings, component: str, plural: str, method: str, **request: str) -> Mapping[str, Any]:
    client = aws.client("rds", settings)
    try:
        found: list[Mapping[str, Any]] = getattr(client, method)(**request)[plural]
    except aws.errors() as error:
        raise aws.held(error, component, "rds", not_found="stream_not_found") from error
    finally:
        client.close()
    if not found:
        raise Held(
            "stream_not_found", f"{component}: RDS knows no {', '.join(request.values())}", "check name and region"
        )
    return found[0]


def _stream_name(described: Mapping[str, Any], what: str, arn: str) -> str:
    name, status = described.get("ActivityStreamKinesisStreamName"), described.get("ActivityStreamStatus", "stopped")
    if not name or status == "stopped":
        raise Held(
            "stream_not_found",
            f"{what} has no activity stream (its status is {status})",
            f"start it: aws rds start-activity-stream --resource-arn {arn} --mode async --kms-key-id KEY "
            "--apply-immediately",
        )
    return str(name)
