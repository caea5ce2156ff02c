"""An RDS on loopback that knows clusters, instances and their activity streams: the Describe calls, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.sax.saxutils import escape

from shipper.clock import Clock
from shipper.testing.aws_json import Disconnect, FakeService, Operation, ServiceError

__all__ = ["FakeRds"]

_NAMESPACE = "http://rds.amazonaws.com/doc/2014-10-31/"


class FakeRds(FakeService):
    """DescribeDBClusters and DescribeDBInstances of Amazon RDS (Query protocol, XML), by identifier or all of them."""

    throttling_code = "Throttling"

    def __init__(self, *, region: str = "us-east-1", account: str = "123456789012", clock: Clock | None = None) -> None:
        super().__init__(region=region, account=account, clock=clock)
        self._clusters: dict[str, dict[str, str]] = {}
        self._instances: dict[str, dict[str, str]] = {}
        self._operations: dict[str, Operation] = {
            "DescribeDBClusters": self._describe_clusters,
            "DescribeDBInstances": self._describe_instances,
        }

    def operations(self) -> Mapping[str, Operation]:
        """The operations of the API that are answered."""
        return self._operations

    def add_cluster(
        self, identifier: str, resource_id: str, *, engine: str = "aurora-postgresql", status: str = "started"
    ) -> None:
        """An Aurora cluster. ``status``: stopped, starting, started or stopping; a stopped one shows no stream."""
        with self._lock:
            self._clusters[identifier] = {
                "DBClusterIdentifier": identifier,
                "DbClusterResourceId": resource_id,
                "DBClusterArn": f"arn:aws:rds:{self.region}:{self.account}:cluster:{identifier}",
                "Engine": engine,
                "Status": "available",
            } | self._activity_stream(resource_id, status)

    def add_instance(
        self,
        identifier: str,
        resource_id: str,
        *,
        engine: str = "oracle-ee",
        status: str = "started",
        cluster: str = "",
    ) -> None:
        """A database instance; ``cluster`` is the identifier of the Aurora cluster that it is a member of."""
        with self._lock:
            self._instances[identifier] = {
                "DBInstanceIdentifier": identifier,
                "DbiResourceId": resource_id,
                "DBInstanceArn": f"arn:aws:rds:{self.region}:{self.account}:db:{identifier}",
                "Engine": engine,
                "DBInstanceStatus": "available",
            } | self._activity_stream(resource_id, status)
            if cluster:
                self._instances[identifier]["DBClusterIdentifier"] = cluster

    def _activity_stream(self, resource_id: str, status: str) -> dict[str, str]:
        if status == "stopped":
            return {"ActivityStreamStatus": status}
        return {
            "ActivityStreamStatus": status,
            "ActivityStreamMode": "async",
            "ActivityStreamKmsKeyId": f"arn:aws:kms:{self.region}:{self.account}:key/{uuid4()}",
            "ActivityStreamKinesisStreamName": f"aws-rds-das-{resource_id}",
        }

    def _describe_clusters(self, request: dict[str, Any]) -> bytes:
        wanted = request.get("DBClusterIdentifier")
        if wanted is not None and wanted not in self._clusters:
            raise ServiceError("DBClusterNotFoundFault", f"DBCluster {wanted[:255]} not found.", 404)
        found = [self._clusters[wanted]] if wanted else list(self._clusters.values())
        return _reply("DescribeDBClusters", "DBClusters", "DBCluster", found)

    def _describe_instances(self, request: dict[str, Any]) -> bytes:
        wanted = request.get("DBInstanceIdentifier")
        if wanted is not None and wanted not in self._instances:
            raise ServiceError("DBInstanceNotFound", f"DBInstance {wanted[:255]} not found.", 404)
        found = [self._instances[wanted]] if wanted else list(self._instances.values())
        return _reply("DescribeDBInstances", "DBInstances", "DBInstance", found)

    def deny(self, operation: str, times: int | None = None) -> None:
        """The next ``times`` calls of ``operation`` are refused for lack of permission, in AWS's words."""
        message = f"User: arn:aws:iam::{self.account}:user/shipper is not authorized to perform: rds:{operation}"
        self.fail(operation, "AccessDenied", message, status=403, times=times)

    def answer(self, target: str, body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body for one request of the Query protocol. Raises ``Disconnect``."""
        try:
            request: dict[str, Any] = dict(parse_qsl(body.decode()))
            operation = str(request.get("Action"))
            self._announce(operation)
            with self._lock:
                result = self.operations()[operation](request)
            assert isinstance(result, bytes)
            return 200, "text/xml", result
        except Disconnect:
            raise
        except ServiceError as error:
            kind = "Sender" if error.status < 500 else "Receiver"
            reply = (
                f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>{kind}</Type><Code>{error.code}</Code>'
                f"<Message>{escape(error.message)}</Message></Error><RequestId>{uuid4()}</RequestId></ErrorResponse>"
            )
            return error.status, "text/xml", reply.encode()


def _reply(operation: str, plural: str, singular: str, found: list[dict[str, str]]) -> bytes:
    items = "".join(
        f"<{singular}>" + "".join(f"<{key}>{escape(value)}</{key}>" for key, value in one.items()) + f"</{singular}>"
        for one in found
    )
    return (
        f'<{operation}Response xmlns="{_NAMESPACE}"><{operation}Result><{plural}>{items}</{plural}></{operation}Result>'
        f"<ResponseMetadata><RequestId>{uuid4()}</RequestId></ResponseMetadata></{operation}Response>"
    ).encode()
