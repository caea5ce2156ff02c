"""The embedded RDS, asked by boto3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from shipper.testing.rds import FakeRds


@pytest.fixture
def server() -> Iterator[FakeRds]:
    with FakeRds() as running:
        yield running


@pytest.fixture
def client(server: FakeRds) -> Iterator[Any]:
    made: Any = boto3.client("rds", endpoint_url=server.endpoint_url, region_name=server.region)
    yield made
    made.close()


def test_a_cluster_shows_its_activity_stream(server: FakeRds, client: Any) -> None:
    server.add_cluster("orders", "cluster-ABC", engine="aurora-mysql")
    (cluster,) = client.describe_db_clusters(DBClusterIdentifier="orders")["DBClusters"]
    assert cluster["ActivityStreamKinesisStreamName"] == "aws-rds-das-cluster-ABC"
    assert cluster["ActivityStreamStatus"] == "started"
    assert cluster["DbClusterResourceId"] == "cluster-ABC"
    assert cluster["Engine"] == "aurora-mysql"


def test_a_stopped_activity_stream_has_no_name(server: FakeRds, client: Any) -> None:
    server.add_instance("erp", "db-DEF", status="stopped")
    (instance,) = client.describe_db_instances(DBInstanceIdentifier="erp")["DBInstances"]
    assert instance["ActivityStreamStatus"] == "stopped"
    assert "ActivityStreamKinesisStreamName" not in instance


def test_without_an_identifier_all_are_described(server: FakeRds, client: Any) -> None:
    server.add_cluster("a", "cluster-A")
    server.add_cluster("b<&", "cluster-B")
    found = client.describe_db_clusters()["DBClusters"]
    assert [cluster["DBClusterIdentifier"] for cluster in found] == ["a", "b<&"]


def test_what_does_not_exist_is_a_fault_of_its_own(client: Any) -> None:
    with pytest.raises(client.exceptions.DBClusterNotFoundFault):
        client.describe_db_clusters(DBClusterIdentifier="x")
    with pytest.raises(client.exceptions.DBInstanceNotFoundFault):
        client.describe_db_instances(DBInstanceIdentifier="x")


def test_a_lack_of_permission_is_said_in_the_words_of_aws(server: FakeRds, client: Any) -> None:
    server.deny("DescribeDBClusters", 1)
    with pytest.raises(ClientError, match="not authorized to perform: rds:DescribeDBClusters"):
        client.describe_db_clusters()
    assert client.describe_db_clusters()["DBClusters"] == []
