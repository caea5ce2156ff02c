"""The console output: lines on standard output, whole and in order."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest

from shipper.errors import Held
from shipper.output import Batch
from shipper.plugins import output_class
from shipper_console import ConsoleOutput, ConsoleSettings


def batch(*events: bytes) -> Batch:
    return Batch(events, [()] * len(events), sum(map(len, events)))


@contextmanager
def piped() -> Iterator[tuple[BinaryIO, int]]:
    """A pipe in the place of standard output: where it is read, and where it is written."""
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb", buffering=0) as reader,
        os.fdopen(writing, "w") as stdout,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stdout)  # in the test itself: pytest sets it between a fixture and its test
        yield reader, writing


def test_the_configuration_finds_it() -> None:
    assert output_class("console") is ConsoleOutput
    assert ConsoleOutput.ordered


def test_each_event_is_a_line_at_once() -> None:
    with piped() as (reader, _):
        assert ConsoleOutput("screen", ConsoleSettings()).send(batch(b'{"a":1}', b'{"b":2}')).failed == {}
        assert reader.read(100) == b'{"a":1}\n{"b":2}\n'


def test_what_others_printed_before_comes_before() -> None:
    with piped() as (reader, _):
        print("first", end=";", flush=False)
        ConsoleOutput("screen", ConsoleSettings()).send(batch(b"second"))
        assert reader.read(100) == b"first;second\n"


@pytest.mark.parametrize("blocking", [True, False])
def test_large_batches_of_two_outputs_never_mix(blocking: bool) -> None:
    whole = {letter: (letter * 1000 + b"\n") * 200 for letter in (b"a", b"b")}

    def send(letter: bytes) -> None:
        output = ConsoleOutput("screen", ConsoleSettings())
        for _ in range(5):
            output.send(batch(*[letter * 1000] * 200))

    found = b""
    with piped() as (reader, writing):
        os.set_blocking(writing, blocking)
        threads = [threading.Thread(target=send, args=(letter,), daemon=True) for letter in whole]
        for thread in threads:
            thread.start()
        while len(found) < 10 * len(whole[b"a"]):
            assert select.select([reader], [], [], 30)[0], "nothing comes any more"
            found += reader.read(1 << 16)
        for thread in threads:
            thread.join()
    size = len(whole[b"a"])
    pieces = [found[start : start + size] for start in range(0, len(found), size)]
    assert sorted(pieces) == [whole[b"a"]] * 5 + [whole[b"b"]] * 5


def test_a_reader_that_has_gone_holds() -> None:
    with piped() as (reader, _):
        reader.close()
        with pytest.raises(Held) as held:
            ConsoleOutput("screen", ConsoleSettings()).send(batch(b"1"))
    assert held.value.reason == "refused"
    assert held.value.mend


def test_the_real_standard_output_works() -> None:
    program = (
        "from shipper.output import Batch; from shipper_console import ConsoleOutput, ConsoleSettings\n"
        "ConsoleOutput('screen', ConsoleSettings()).send(Batch([b'1', b'2'], [(), ()], 2))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"1\n2\n"
