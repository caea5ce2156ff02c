"""What has to be true at the end of a fault test: nothing is lost, and nothing is doubled beyond the promise."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from faults.configuration import SLOW_CATEGORIES
from faults.destination import Storing
from faults.feeds import Fed
from faults.schedule import SIEMS, STORM
from faults.stage import REFUSED, Stage
from shipper.state import positions
from shipper.state.dead_letters import EVERY_OUTPUT
from shipper.state.file import read_state
from shipper.units import parse_duration
from support.oracle import assert_balanced, assert_conserved, assert_in_order, ids_in_files, ids_in_order

#: Seconds until a position moves past what was settled: a look at what is old, a group commit, a busy machine.
COMMITTED = 0.5 + 0.05 + 1.5


class Verdict:
    """The conservation oracle for the stage's outputs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.outputs = stage.schedule.outputs
        fed = [stage.stream.fed(), stage.lines.fed()]
        self.fed = Fed(
            {partition: ids for one in fed for partition, ids in one.order.items()},
            {event: fact for one in fed for event, fact in one.facts.items()},
            sum(one.broken for one in fed),
        )
        noise = {event for event, (user, _) in self.fed.facts.items() if user == "rdsadmin"}
        unwanted = {event for event, (_, category) in self.fed.facts.items() if category not in SLOW_CATEGORIES}
        self.dropped = {"files": set[str](), "quick": noise, "slow": noise | unwanted} | dict.fromkeys(SIEMS, noise)
        self.letters: dict[str, dict[str, str]] = defaultdict(dict)
        self.undecoded = 0
        names = stage.configuration.names
        for letter in stage.letters():
            if letter.output == EVERY_OUTPUT:
                self.undecoded += 1
            else:
                assert letter.event_id is not None
                self.letters[names[letter.output]][letter.event_id] = letter.reason
        self.stored: dict[str, Counter[str]] = {
            "files": ids_in_files(*stage.files()),
            "quick": Counter(stage.quick.stored()),
            "slow": Counter(stage.slow.stored()),
            **{name: siem.stored() for name, siem in stage.siems.items()},
        }
        self.books = self._books()
        #: What quick never takes, and why.
        self.refused = {
            event: reason
            for event in self.fed.facts.keys() - noise
            if (reason := stage.quick.refused(event)) is not None
        }
        self.turned_away = {"quick": stage.quick.turned_away, "slow": stage.slow.turned_away}

    def check(self) -> None:
        """Everything that is promised."""
        for output in self.outputs:
            self.check_conservation(output)
            self.check_dead_letters(output)
            self.check_books(output)
        assert self.undecoded == self.fed.broken, "records that cannot be decoded are not the dead letters"
        self.check_duplicates()
        for path in self.stage.files():
            assert_in_order("files", ids_in_order(path), self.fed.order)

    def check_conservation(self, output: str) -> None:
        """Every event is stored, a dead letter, or was purged as one."""
        stored, letters, dropped = self.stored[output], self.letters[output], self.dropped[output]
        missing = self.fed.facts.keys() - dropped - stored.keys() - letters.keys()
        purgeable = self.turned_away["quick"] | {event for event, why in self.refused.items() if why == "rejected"}
        purged = missing & purgeable if output == "quick" else set[str]()
        assert len(purged) <= self.books[output]["purged"], f"output {output}: {len(purged)} vanished, not purged"
        assert_conserved(output, self.fed.facts, dropped, stored, {*letters, *purged})

    def check_dead_letters(self, output: str) -> None:
        """What a destination takes is no dead letter, and what it does not take is one, with its reason."""
        away, letters = self.turned_away.get(output, set()), self.letters[output]
        refused = self.refused if output == "quick" else {}
        assert set(refused.values()) <= REFUSED.keys()
        buries = "dead_letter" in self.stage.schedule.settings.get(f"{output}_spool", "")
        for event, reason in letters.items():
            excused = reason == refused.get(event)
            excused |= reason == "rejected" and event in away
            excused |= reason == "spool_full" and buries
            assert excused, f"output {output}: {event} is a dead letter: {reason}"
        taken = refused.keys() & self.stored[output].keys()
        assert not taken, f"output {output}: stored what it refuses: {sorted(taken)[:5]}"
        if not any(fault.kind == "strict" for fault in self.stage.schedule.faults):
            # A storm leaves no more than came before it was seen: each time, and once for each process that was killed.
            storms = sum(fault.kind in ("storm", "strict") for fault in self.stage.schedule.faults)
            stormy = sum(reason == "rejected" and event not in refused for event, reason in letters.items())
            assert stormy <= STORM * (storms + len(self.stage.ends)), f"output {output}: {stormy} letters of storms"

    def check_duplicates(self) -> None:
        """A file has none, and no index of OpenSearch. Quick has an event again only where the answer was lost or
        untrue, came while a process was stopping, or was not committed when one was killed: not long before, because no
        position is older than that."""
        doubled = [event for event, count in self.stored["files"].items() if count > 1]
        assert not doubled, f"output files: {len(doubled)} events are doubled: {doubled[:5]}"
        assert max(self.stored["slow"].values(), default=1) == 1
        assert max(self.stored.get("search", Counter()).values(), default=1) == 1
        seen: dict[str, Storing] = {}
        for storing in sorted(self.stage.quick.storings, key=lambda one: one.stored):
            for event in storing.ids:
                before = seen.get(event)
                seen[event] = storing
                if before is None or event not in before.told:
                    continue
                excused = any(begun <= before.begun and before.stored <= done for begun, done in self._broken())
                excused |= any(end.asked <= before.stored and before.begun <= end.gone for end in self.stage.ends)
                excused |= any(self._forgotten(before, storing, *end) for end in self._kills())
                excused |= any(begun <= storing.stored and before.begun <= done for begun, done in self._rereadings())
                assert excused, (
                    f"output quick: {event} came again although it was acknowledged, {before.stored:.2f} and "
                    f"{storing.begun:.2f}; processes were killed at {[end for end, _ in self._kills()]}"
                )

    def _broken(self) -> list[tuple[float, float]]:
        return self.stage.way_to_quick.broken

    def _rereadings(self) -> Iterator[tuple[float, float]]:
        """Reloads while the disk took no spool: what was settled behind a gap is read again."""
        reloads = [(begin, end) for what, begin, end in self.stage.troubles if what == "reload"]
        full = [(begin, end) for what, begin, end in self.stage.troubles if what == "disk"]
        return (one for one in reloads if any(begin <= one[1] and one[0] <= end for begin, end in full))

    def _kills(self) -> Iterator[tuple[float, float]]:
        return ((end.asked, end.gone) for end in self.stage.ends if not end.clean)

    def _forgotten(self, before: Storing, again: Storing, asked: float, gone: float) -> bool:
        """Whether a process that was killed between two storings may not have committed the first of them."""
        if not (before.begun <= gone and asked <= again.stored):
            return False
        if "block" in self.stage.schedule.settings["quick_spool"]:
            return True  # a full spool holds the position
        changed = any(fault.details.get("setting") == "after" for fault in self.stage.schedule.faults)
        after = 1.0 if changed else parse_duration(self.stage.schedule.settings["after"])
        since = asked - after - COMMITTED
        since -= sum(end - begin for _, begin, end in self.stage.troubles if begin <= asked and end >= before.begun)
        return before.stored >= since

    def check_books(self, output: str) -> None:
        """Exact across everything that happened."""
        book = self.books[output]
        assert_balanced(output, {entry: {"": count} for entry, count in book.items()})
        everything, letters = len(self.fed.facts), len(self.letters[output])
        found = {
            "offered": book["offered"],
            "filtered": book["filtered"],
            "letters": book["dead_lettered"] - book["replayed_out"] - book["purged"] - book["expired"],
            "arrived": book["delivered"] + book["already_stored"],
        }
        dropped = len(self.dropped[output])
        assert found == {
            "offered": everything + self.fed.broken,
            "filtered": dropped,
            "letters": letters + self.fed.broken,
            "arrived": everything - dropped - letters - book["purged"],
        }, output

    def _books(self) -> dict[str, dict[str, int]]:
        told: dict[str, dict[str, Any]] = json.loads(self.stage.said("status", "--books", "--json"))["outputs"]
        names = self.stage.configuration.names
        books = {names[name]: book for name, book in told.items()}
        assert books.keys() == set(self.outputs)
        for output, book in books.items():
            assert book["balances"], f"output {output}: {book}"
            assert not book["pending"], f"output {output}: {book}"
            assert book["dead_letters"] == book["dead_letters_kept"], f"output {output}: {book}"
        entries = {output: {entry: book[entry] for entry in _ENTRIES} for output, book in books.items()}
        # The same by another way.
        connection = read_state(self.stage.state)
        kept = positions.books(connection)
        connection.close()
        assert entries == {
            names[name]: {entry: sum(book.get(entry, {}).values()) for entry in _ENTRIES} for name, book in kept.items()
        }
        return entries


_ENTRIES = (
    "offered", "replayed", "filtered", "delivered", "already_stored", "dead_lettered", "replayed_out", "purged",
    "expired",
)  # fmt: skip
