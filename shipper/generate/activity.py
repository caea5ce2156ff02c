"""A stream of plaintext records: the workload in stream time, in records per instance, with heartbeats between."""

from __future__ import annotations

import random
import string
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from shipper.generate.aurora_mysql import AuroraMysql
from shipper.generate.aurora_postgresql import AuroraPostgresql
from shipper.generate.engine import Engine, Fields, Instance, Step
from shipper.generate.oracle import Oracle
from shipper.generate.sqlserver import Sqlserver
from shipper.generate.workload import Script, Workload

#: Engine names as users write them → how that engine writes.
ENGINES: dict[str, type[Engine]] = {one.name: one for one in (AuroraPostgresql, AuroraMysql, Oracle, Sqlserver)}

#: A public consumer reports at least one heartbeat about every two seconds.
HEARTBEAT_SECONDS = 2.0
DEFAULT_RATE = 200.0
DEFAULT_EVENTS_PER_RECORD = 10
#: One writer and two readers; an RDS instance's stream has one.
DEFAULT_INSTANCES = 3

_ID_LETTERS = string.ascii_uppercase + "234567"
_VISITS_AT_ONCE = 12
_MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """One record before encryption.

    ``plaintext`` is its JSON, not compressed; ``events`` counts database activities (0 for a heartbeat); ``instance``
    is the resource id of the instance that wrote it, ``resource_id`` that of the stream's cluster or instance;
    ``time`` is the stream's time (UTC).
    """

    engine: str
    plaintext: bytes
    events: int
    instance: str
    resource_id: str
    heartbeat: bool
    time: datetime


class Generator:
    """The activity of one Aurora cluster or RDS instance: the same seed, start and settings make the same records.

    ``start`` is the stream's first moment (with a time zone); ``rate`` is events per second of the stream's time, not
    of this machine's. ``instances``: one writer, the rest readers; RDS for Oracle and SQL Server have one.
    ``resource_id`` (``cluster-…`` or ``db-…``) is made up where it is not given. ``native`` is off for a stream
    started without engine-native audit fields. Raises ``ValueError`` where these do not fit the engine.
    """

    def __init__(
        self,
        engine: str,
        *,
        seed: int,
        start: datetime,
        rate: float = DEFAULT_RATE,
        events_per_record: int = DEFAULT_EVENTS_PER_RECORD,
        instances: int | None = None,
        resource_id: str | None = None,
        native: bool = True,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"{engine!r} is not an engine; those are {', '.join(ENGINES)}")
        kind = ENGINES[engine]
        count = instances if instances is not None else DEFAULT_INSTANCES if kind.clustered else 1
        if count < 1 or (count > 1 and not kind.clustered):
            raise ValueError(f"{engine}: {count} instances are not possible; an RDS instance's stream has one")
        prefix = "cluster-" if kind.clustered else "db-"
        if resource_id is not None and not resource_id.startswith(prefix):
            raise ValueError(f"{engine}: the resource id {resource_id!r} does not begin with {prefix!r}")
        if rate <= 0 or events_per_record < 1:
            raise ValueError("rate and events_per_record must be above 0")
        # A string seeds by its hash of SHA-512: the same in every process, and another activity for each engine.
        self._rng = random.Random(f"{engine} {seed}")
        self._engine = kind(self._rng, native)
        self.resource_id = resource_id or self._made_up_id(prefix)
        self.instances = tuple(self._instance(number) for number in range(count))
        self._workload = Workload(self._engine, self.instances, self._rng)
        self._now = (start - _EPOCH) // timedelta(microseconds=1)
        self._rate = rate
        self._events_per_record = events_per_record
        self._next_heartbeat = self._now + self._rng.randrange(_MICROSECONDS)
        self._waiting: dict[str, deque[Fields]] = {one.id: deque() for one in self.instances}
        self._since: dict[str, int] = {}

    def records(self, events: int) -> Iterator[PlainRecord]:
        """Records with exactly so many events together, and the heartbeats of that time.

        A record has ``events_per_record`` events, or fewer when its oldest has waited for two seconds, and at the end.
        """
        left = events
        steps = self._steps()
        while left > 0:
            self._now += int(self._rng.expovariate(self._rate) * _MICROSECONDS) + 1
            while self._next_heartbeat <= self._now:
                yield from self._beat(self._next_heartbeat)
                self._next_heartbeat += int(HEARTBEAT_SECONDS * _MICROSECONDS)
            step = next(steps)
            instance = step.session.instance.id
            if step.action == "login":
                step.session.opened = self._now
            made = self._engine.events(step, self._now)[:left]
            left -= len(made)
            # A statement may make several events; time goes on for each, so that the rate stays what was asked for.
            self._now += sum(int(self._rng.expovariate(self._rate) * _MICROSECONDS) for _ in made[1:])
            waiting = self._waiting[instance]
            self._since.setdefault(instance, self._now)
            waiting.extend(made)
            while len(waiting) >= self._events_per_record:
                yield self._record(instance)
        for instance, waiting in self._waiting.items():
            if waiting:
                yield self._record(instance)

    def _steps(self) -> Iterator[Step]:
        rng = self._rng
        visits: list[Script] = []
        while True:
            if not visits or (len(visits) < _VISITS_AT_ONCE * len(self.instances) and rng.random() < 0.2):
                visits.append(self._workload.visit(night=self._is_night()))
            place = rng.randrange(len(visits))
            step = next(visits[place], None)
            if step is None:
                visits[place] = visits[-1]
                visits.pop()
            else:
                yield step

    def _is_night(self) -> bool:
        hour = self._now // (3_600 * _MICROSECONDS) % 24
        return hour >= 22 or hour < 6

    def _beat(self, at: int) -> Iterator[PlainRecord]:
        for one in self.instances:
            if self._waiting[one.id] and at - self._since[one.id] >= HEARTBEAT_SECONDS * _MICROSECONDS:
                yield self._record(one.id)
            yield self._plain(one.id, [{"type": "heartbeat"}], at, heartbeat=True)

    def _record(self, instance: str) -> PlainRecord:
        waiting = self._waiting[instance]
        events = [waiting.popleft() for _ in range(min(len(waiting), self._events_per_record))]
        if waiting:
            self._since[instance] = self._now
        else:
            del self._since[instance]
        return self._plain(instance, events, self._now, heartbeat=False)

    def _plain(self, instance: str, events: list[Fields], at: int, *, heartbeat: bool) -> PlainRecord:
        cluster = self.resource_id if self._engine.clustered else ""
        record = {
            "type": "DatabaseActivityMonitoringRecord",
            "clusterId": cluster,
            "instanceId": instance,
            "databaseActivityEventList": events,
        }
        return PlainRecord(
            engine=self._engine.name,
            plaintext=self._engine.encode(msgspec.json.encode(record)),
            events=0 if heartbeat else len(events),
            instance=instance,
            resource_id=self.resource_id,
            heartbeat=heartbeat,
            time=_EPOCH + timedelta(microseconds=at),
        )

    def _made_up_id(self, prefix: str) -> str:
        """26 letters and digits, as the real ones have."""
        return prefix + "".join(self._rng.choices(_ID_LETTERS, k=26))

    def _instance(self, number: int) -> Instance:
        return Instance(
            id=self._made_up_id("db-") if self._engine.clustered else self.resource_id,
            name=f"shop-db-{number + 1}",
            address=f"10.0.9.{8 + number}",
            writer=number == 0,
            pid=self._rng.randint(1_000, 9_999),
        )
