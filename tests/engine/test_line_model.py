"""A lane's queue, spool, settling and positions against a simple model: whatever happens in whatever order, every event
that was offered is in exactly one place, and the books balance at every commit."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shipper.engine.parcel import Parcel, Verdict
from shipper.output import Failure, Outcome, OutputSettings
from shipper.state import spool
from shipper.testing.nasty import NastyOutput, OrderedNastyOutput
from support.lane_rig import Idle, Rig, Site, name_of

PARTITIONS = ("p", "q", "r")


class Line(RuleBasedStateMachine):
    """The senders are the test: it takes parcels, and settles, divides and puts back what it likes."""

    @initialize(ordered=st.booleans(), bury=st.booleans(), raw=st.booleans())
    def begin(self, ordered: bool, bury: bool, raw: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shipper-line-"))
        self.site = Site(self.folder)
        self.ordered = ordered
        table = {
            "type": "nasty",
            "concurrency": 4,
            "batch": {"max_events": 7, "max_wait": "1s"},
            "spool": {"max_bytes": 4000, "when_full": "dead_letter" if bury else "block"},
        }
        if raw:
            table["format"] = {"type": "raw"}
        self.settings = OutputSettings.model_validate(table)
        #: What the destination has, and what became a dead letter, as far as that was committed.
        self.ended: Counter[str] = Counter()
        #: The same since the last commit.
        self.ending: Counter[str] = Counter()
        #: Refused, and perhaps not committed yet.
        self.refusing: set[str] = set()
        self.committed: set[str] = set()  # what the position has passed and the spool does not hold
        self.start()

    def start(self) -> None:
        output = (OrderedNastyOutput if self.ordered else NastyOutput)("out", self.settings)
        self.rig = Rig(self.site, output)
        self.flying: list[Parcel] = []
        for name in self.site.partitions:
            self.rig.read(name, at_once=3)

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.kill()
            shutil.rmtree(self.folder)

    # -- what happens ----------------------------------------------------------------------------------------------

    @rule(
        sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
        name=st.sampled_from(PARTITIONS),
        at_once=st.integers(1, 3),
    )
    def offer(self, sizes: list[int], name: str, at_once: int) -> None:
        self.rig.add(*sizes, partition=name, at_once=at_once)

    @rule(name=st.sampled_from(PARTITIONS), size=st.integers(1, 6), chosen=st.randoms(use_true_random=False))
    def offer_filtered(self, name: str, size: int, chosen: random.Random) -> None:
        """Some events are not for this output: they count as settled."""
        partition = self.site.partitions.get(name)
        if partition is None or partition.ledger is None:
            return
        (record,) = self.site.records(size, partition=name)
        indices = [index for index in range(size) if chosen.random() < 0.5]
        events = partition.records[record]
        partition.records[record] = [events[index] for index in indices]
        # The next run's chunk has what was taken alone: the model need not know the others.
        self.rig.read(name)

    @precondition(lambda self: len(self.flying) < (1 if self.ordered else 4))
    @rule()
    def take(self) -> None:
        try:
            parcel = self.rig.lane.take()
        except Idle:
            return
        assert parcel is not None
        self.check_order(parcel)
        self.flying.append(parcel)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """The destination answers for some events of a parcel, which is perhaps divided, and put back."""
        parcel = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        fate = [data.draw(st.sampled_from("sssara.")) for _ in parcel.open]
        if self.ordered:  # an ordered output takes a beginning
            count = data.draw(st.integers(0, len(fate)))
            fate = [one if one != "." else "s" for one in fate[:count]] + ["."] * (len(fate) - count)
        by = {kind: [index for index, one in zip(parcel.open, fate, strict=True) if one == kind] for kind in "sar"}
        refused = {index: ("rejected", Failure(Outcome.REJECTED)) for index in by["r"]}
        verdict = Verdict(by["s"], by["a"], refused)
        self.ending.update(name_of(parcel.native[index]) for index in (*by["s"], *by["a"]))
        self.refusing.update(name_of(parcel.native[index]) for index in by["r"])
        self.settled_once(parcel, by["s"] + by["a"])
        with self.rig.lane.lock():
            self.rig.delivery._settle(parcel, verdict)
            parcel.due = self.rig.clock.monotonic() + data.draw(st.sampled_from([0.0, 0.0, 40.0]))
            halves = len(parcel.open) > 1 and data.draw(st.booleans())
            self.rig.lane.landed(parcel, parcel.halves() if halves else [parcel])

    @rule(seconds=st.sampled_from([0.1, 2.0, 31.0]))
    def tick(self, seconds: float) -> None:
        self.rig.clock.move(seconds)
        self.rig.lane.tick()

    @rule(short=st.booleans())
    def disk(self, short: bool) -> None:
        self.rig.room.low = short

    @rule()
    def commit(self) -> None:
        self.rig.writer.commit()
        self.ended += self.ending
        self.ending.clear()
        assert self.rig.balance() == 0
        self.check_disk()
        passed = {event for name in self.site.partitions for event in self.rig.passed(name)}
        self.committed |= passed - set(self.rig.spooled())

    @rule()
    def leave(self) -> None:
        """A reload: everything unsettled goes to the spool, and reading begins again where the lane stands."""
        self.rig.lane.leave("s")
        self.commit()
        for partition in self.site.partitions.values():
            self.rig.offered.pop(partition.name, None)
            self.rig.begin(partition)
            self.rig.read(partition.name, at_once=2)

    @rule(orderly=st.booleans())
    def end(self, orderly: bool) -> None:
        if orderly:
            self.rig.lane.close()
            self.commit()
        self.ending.clear()
        self.refusing.clear()
        self.rig.kill()
        self.start()
        self.check_disk()

    # -- what must hold --------------------------------------------------------------------------------------------

    def settled_once(self, parcel: Parcel, indices: Sequence[int]) -> None:
        for index in indices:
            assert name_of(parcel.native[index]) not in self.committed, "it was settled and committed before"

    def check_order(self, parcel: Parcel) -> None:
        if not self.ordered:
            return
        number = {name: (partition.name, place)
                  for partition in self.site.partitions.values()
                  for place, name in enumerate(n for names in partition.records.values() for n in names)}  # fmt: skip
        last: dict[str, int] = {}
        gone = self.ended + self.ending
        sent = [name_of(parcel.native[index]) for index in parcel.open]
        for name in sent:
            partition, place = number[name]
            assert place > last.get(partition, -1)
            last[partition] = place
        dead = set(self.rig.dead())
        for name, (partition, place) in number.items():
            if partition in last and place < last[partition] and name not in sent:
                ended = gone[name] or name in dead or name in self.refusing or name in self.buried()
                assert ended, f"{name} was overtaken"

    def buried(self) -> set[str]:
        """What became a dead letter, committed or not."""
        return {one.event_id or "" for one in self.rig.delivery._row} | self.rig_letters

    @property
    def rig_letters(self) -> set[str]:
        found = set()
        for partition in self.site.partitions.values():
            if partition.ledger is not None:
                for entry in partition.ledger._entries:
                    found |= {letter.event_id or "" for letter in entry._letters}
        for row in self.rig.lane._backlog.rows:
            found |= {letter.event_id or "" for letter in row._letters}
        return found

    def check_disk(self) -> None:
        """At a commit: what the position has passed is settled, dead or spooled, each once; the rest is not."""
        spooled, dead = Counter(self.rig.spooled()), Counter(self.rig.dead())
        for name in self.site.partitions:
            for event in self.rig.passed(name):
                gone = self.ended[event] > 0
                assert gone + dead[event] + spooled[event] == 1 or (gone and spooled[event]), event
        ahead = set(spooled) - {event for name in self.site.partitions for event in self.rig.passed(name)}
        assert not ahead, "a row of the spool that the position has not passed would come again"
        totals = spool.totals(self.rig.connection).get(self.rig.id, spool.Totals(0, 0, 0, 0.0))
        known = self.rig.lane.spooled()
        unflushed = sum(row._owed.count(0) for row in self.rig.lane._backlog.rows if row._changed)
        assert (known.rows, known.events + unflushed) == (totals.rows, totals.events)
        if not unflushed:
            assert known.bytes == totals.bytes

    @invariant()
    def figures(self) -> None:
        if not hasattr(self, "rig"):
            return
        queued, out, spooled = self.rig.lane.owed()
        assert min(queued, out, spooled) >= 0
        assert out >= sum(len(parcel.open) for parcel in self.flying)


Line.TestCase.settings = hypothesis_settings(
    max_examples=25, stateful_step_count=30, deadline=None, report_multiple_bugs=False
)
TestLine = Line.TestCase
