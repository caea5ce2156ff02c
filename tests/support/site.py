"""A Kinesis and a KMS with a stream of activity on them, a receiver, and a pipeline that connects the two."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from shipper.configuration import load
from shipper.engine.pipeline import Pipeline, Result
from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.sealer import DataKey, Sealer, encryption_context
from shipper.state import dead_letters
from shipper.state.dead_letters import Filter
from shipper.state.file import read_state
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms
from support.receiver import Receiver
from support.waiting import until

CLUSTER = "cluster-AAAABBBBCCCCDDDDEEEEFFFF22"
STREAM = f"aws-rds-das-{CLUSTER}"


class Site:
    """A Kinesis and a KMS, a stream of activity on them, a receiver, and a configuration that connects the two."""

    def __init__(self, folder: Path, kinesis: FakeKinesis, kms: FakeKms, receiver: Receiver) -> None:
        self.folder = folder
        self.kinesis = kinesis
        self.kms = kms
        self.receiver = receiver
        self.key = kms.create_key("activity")
        self.sealer = Sealer(self)
        self.generator = Generator("aurora-postgresql", seed=5, start=datetime.now(UTC), resource_id=CLUSTER)
        self.state = folder / "state" / "shipper.db"

    def new(self, resource_id: str) -> DataKey:
        """A data key of the site's KMS, for the sealer."""
        plain, blob = self.kms.generate_data_key(self.key, encryption_context(resource_id))
        return DataKey(blob, plain)

    def put(self, events: int) -> list[PlainRecord]:
        """Activity onto the stream, with its heartbeats."""
        records = list(self.generator.records(events))
        for record in records:
            self.kinesis.put(STREAM, self.sealer.seal(record))
        return records

    def configure(self, *more: str, source: str = "", output: str = "") -> Pipeline:
        path = self.folder / "shipper.toml"
        path.write_text(
            f"""
            [aws]
            region = "us-east-1"
            endpoint_url = {{ kinesis = "{self.kinesis.endpoint_url}", kms = "{self.kms.endpoint_url}" }}
            [sources.orders]
            type = "kinesis"
            resource_id = "{CLUSTER}"
            poll_interval = "50ms"
            {source}
            [outputs.siem]
            type = "rig"
            url = "{self.receiver.url}"
            batch = {{ max_wait = "10ms" }}
            {output}
            [server]
            listen = ""
            drain_timeout = "10s"
            """
            + "\n".join(more)
        )
        return Pipeline(load([path]), once=True, randomness=random.Random(1))

    def ship(self, *more: str, source: str = "", output: str = "") -> Result:
        """One run to the present end."""
        return self.configure(*more, source=source, output=output).run()

    def letters(self) -> list[tuple[str, bytes | None]]:
        connection = read_state(self.state)
        found = [
            (one.reason, dead_letters.data_of(connection, one.id)) for one in dead_letters.listing(connection, Filter())
        ]
        connection.close()
        return found


def in_background(pipeline: Pipeline) -> Callable[[], Result]:
    """Starts a pipeline; what is returned waits for its result."""
    results: list[Result] = []
    thread = threading.Thread(
        target=lambda: results.append(pipeline.run()), daemon=True
    )  # a failed test ends all the same
    thread.start()

    def wait() -> Result:
        thread.join(30)
        assert results, "the pipeline did not end"
        return results[0]

    return wait


def held(pipeline: Pipeline, reason: str) -> None:
    """Waits until something is held for this reason."""
    until(lambda: any(hold.reason == reason for hold in pipeline.held()), lambda: str(pipeline.held()))
