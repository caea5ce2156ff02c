"""What the process logs, and what it never does."""

import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from shipper.errors import Held, StateError
from shipper.observe.logging import (
    ASKED,
    MAX_MESSAGE,
    MAX_REMEMBERED,
    REPEAT_INTERVAL,
    JsonLines,
    TextLines,
    configure,
)
from shipper.settings import LogSettings

log = logging.getLogger("shipper.engine")


class StillClock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("logging does not wait")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("shipper")
    before = (root.handlers[:], root.level, own.level)
    yield
    logging.captureWarnings(False)
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def start(
    form: Literal["json", "text"] | None = "json",
    level: Literal["debug", "info", "warning", "error"] = "info",
    clock: StillClock | None = None,
    stream: io.StringIO | None = None,
) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(LogSettings(level=level, format=form), stream, clock or StillClock())
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_per_line() -> None:
    stream = start()
    log.info("output %s goes on", "siem", extra={"output": "siem", "position": 2**200, "where": ("a", 1)})
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "shipper.engine",
        "message": "output siem goes on",
        "output": "siem",
        "position": 2**200,
        "where": ["a", 1],
    }


def test_extra_fields_cannot_replace_what_every_line_has() -> None:
    stream = start()
    log.info("true", extra={"level": "x", "time": "y", "logger": "z"})
    (line,) = lines(stream)
    assert (line["level"], line["logger"]) == ("info", "shipper.engine")


def test_what_is_no_json_is_written_as_text() -> None:
    stream = start()
    log.info("x", extra={"error": ValueError("v")})
    assert lines(stream)[0]["error"] == "v"


@pytest.mark.parametrize("form", [JsonLines(), TextLines()])
def test_nobody_can_break_a_line_or_reach_the_terminal(form: logging.Formatter) -> None:
    hostile = 'a\n{"level":"info"}\r\x1b[2J\u202e\ud800'
    line = form.format(logging.makeLogRecord({"msg": "name %s", "args": (hostile,), "output": hostile}))
    assert line.isprintable()
    assert "\\u202e" in line


def test_a_message_is_bounded() -> None:
    stream = start()
    log.info("x" * 10**6)
    assert len(lines(stream)[0]["message"]) == MAX_MESSAGE


def test_a_wrong_number_of_arguments_loses_no_message() -> None:
    record = logging.makeLogRecord({"msg": "%s and %s", "args": ("one",)})
    assert json.loads(JsonLines().format(record))["message"] == "%s and %s"


def test_text_on_a_terminal_json_elsewhere() -> None:
    elsewhere = start(None)
    log.info("x")
    assert lines(elsewhere)
    terminal = start(None, stream=Terminal())
    log.info("hello", extra={"output": "siem"})
    assert re.fullmatch(r"\S+Z info    shipper\.engine: hello output=siem\n", terminal.getvalue())


def test_configuring_again_replaces_the_former_sink_and_leaves_those_of_others() -> None:
    others = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(others)
    first, second = start(), start()
    log.info("x")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1
    assert others in logging.getLogger().handlers


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: Literal["debug", "info", "warning", "error"], written: int) -> None:
    stream = start(level=level)
    for name in ("debug", "info", "warning", "error"):
        log.log(getattr(logging, name.upper()), name)
    assert len(lines(stream)) == written


def test_libraries_are_not_heard_below_warning_even_at_debug() -> None:
    stream = start(level="debug")
    logging.getLogger("botocore.endpoint").debug("Authorization: secret")
    logging.getLogger("botocore.endpoint").info("Authorization: secret")
    logging.getLogger("urllib3").warning("pool is full")
    assert [line["message"] for line in lines(stream)] == ["pool is full"]


def test_python_warnings_are_logged() -> None:
    stream = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old" in lines(stream)[0]["message"]


# Exceptions


def raised(error: BaseException) -> None:
    try:
        raise error  # noqa: TRY301 - only a raised exception has a place
    except BaseException:
        log.exception("it failed")


def test_an_exception_shows_type_and_place_but_no_words_that_might_quote_an_event() -> None:
    stream = start()
    raised(ValueError("password 'hunter2'"))
    (line,) = lines(stream)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("builtins.ValueError\n  at ")
    assert "in raised" in line["exception"]
    assert "hunter2" not in stream.getvalue()


def test_words_of_shipper_and_the_operating_system_are_shown() -> None:
    stream = start()
    raised(StateError("locked by another shipper"))
    raised(Held("unwritable", "read only"))
    raised(PermissionError(13, "Permission denied"))
    assert [line["exception"].splitlines()[0].partition(": ")[2] for line in lines(stream)] == [
        "locked by another shipper",
        "read only",
        "[Errno 13] Permission denied",
    ]


def test_a_librarys_error_that_only_derives_from_the_systems_has_no_words() -> None:
    class ClientError(OSError):
        pass

    stream = start()
    raised(ClientError("https://user:hunter2@example.com"))
    assert "hunter2" not in stream.getvalue()


def test_causes_are_followed_also_in_circles() -> None:
    stream = start(form="text")
    inner, outer = KeyError("hunter2"), StateError("no state")
    outer.__cause__, inner.__context__ = inner, outer
    raised(outer)
    text = stream.getvalue()
    assert "caused by builtins.KeyError" in text
    assert "hunter2" not in text


# Repetitions


def test_a_warning_that_says_the_same_again_is_counted_instead() -> None:
    clock = StillClock()
    stream = start(clock=clock)
    for _ in range(10):
        log.warning("output %s is busy", "siem")
    log.warning("output %s is busy", "other")
    clock.seconds += REPEAT_INTERVAL
    log.warning("output %s is busy", "siem")
    clock.seconds += REPEAT_INTERVAL
    log.warning("output %s is busy", "siem")
    found = [(line["message"], line.get("repeated")) for line in lines(stream)]
    assert found == [
        ("output siem is busy", None),
        ("output other is busy", None),
        ("output siem is busy", 9),
        ("output siem is busy", None),
    ]


def test_text_says_how_many_were_left_out() -> None:
    clock = StillClock()
    stream = start("text", clock=clock)
    for _ in range(3):
        log.error("x")
    clock.seconds += REPEAT_INTERVAL
    log.error("x")
    assert stream.getvalue().endswith("x (and 2 more like it before)\n")


def test_the_same_words_at_another_level_or_of_another_error_are_not_the_same() -> None:
    stream = start()
    log.warning("it failed")
    log.error("it failed")
    raised(ValueError())
    raised(KeyError())
    assert len(lines(stream)) == 4


def test_information_is_never_left_out() -> None:
    stream = start()
    for _ in range(3):
        log.info("x")
    assert len(lines(stream)) == 3


def test_what_answers_somebody_is_never_left_out() -> None:
    stream = start()
    for _ in range(3):
        log.error("not taken over", extra=ASKED)
    assert [sorted(line) for line in lines(stream)] == [["level", "logger", "message", "time"]] * 3


def test_what_is_remembered_is_bounded() -> None:
    stream = start()
    log.warning("first")
    for number in range(MAX_REMEMBERED):
        log.warning("%d", number)
    log.warning("first")
    assert [line["message"] for line in lines(stream)].count("first") == 2
