"""How the process logs: one JSON object per line, or text for a terminal; on stderr; nothing of what it ships.

An exception's own words may quote what it stumbled over, so of exceptions that are not shipper's (or the operating
system's) only the type and the place are written.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from shipper.clock import Clock, SystemClock
from shipper.errors import Held, ShipperError
from shipper.settings import LogSettings

#: Seconds in which a warning or an error that says the same again is only counted.
REPEAT_INTERVAL = 60.0
#: Different messages that are remembered for that.
MAX_REMEMBERED = 1000
#: Characters of one message: an error of a library can drag a whole document along.
MAX_MESSAGE = 4000
MAX_FRAMES = 20
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "repeated", "asked"}
#: ``extra`` of a message that answers what somebody has just asked for.
ASKED = {"asked": True}
#: Modules of errors whose words come from the operating system; libraries derive their own errors from ``OSError``.
_SYSTEM = ("builtins", "socket", "ssl")


def configure(settings: LogSettings, stream: TextIO | None = None, clock: Clock | None = None) -> None:
    """Makes the process log as ``[log]`` says, to ``stream`` (stderr). May be called again.

    The level is shipper's own; others are heard from ``warning`` on, because libraries write down their requests at
    ``debug``, and with them events and credentials.
    """
    stream = stream or sys.stderr
    form = settings.format or ("text" if stream.isatty() else "json")
    sink = logging.StreamHandler(stream)
    sink.setFormatter(JsonLines() if form == "json" else TextLines())
    sink.addFilter(Repeats(clock or SystemClock()))
    level = getattr(logging, settings.level.upper())
    root = logging.getLogger()
    for former in root.handlers[:]:
        if isinstance(former.formatter, JsonLines | TextLines):
            root.removeHandler(former)
            former.close()
    root.addHandler(sink)
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("shipper").setLevel(level)
    logging.captureWarnings(True)


class JsonLines(logging.Formatter):
    """``time`` (RFC 3339 UTC), ``level``, ``logger``, ``message``, then what the caller gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in line}
        if repeated := getattr(record, "repeated", 0):
            line["repeated"] = repeated
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "\n".join(describe(record.exc_info[1]))
        # ASCII: no control sequence for whoever looks at it with ``tail``, and half characters do not break it.
        return json.dumps(line, default=str, separators=(",", ":"))


class TextLines(logging.Formatter):
    """``TIME LEVEL LOGGER: MESSAGE name=value``; an exception on indented lines. Control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and more for an exception."""
        extra = "".join(f" {name}={value}" for name, value in vars(record).items() if name not in _STANDARD)
        if repeated := getattr(record, "repeated", 0):
            extra += f" (and {repeated} more like it before)"
        line = _visible(f"{_time(record)} {record.levelname.lower():<7} {record.name}: {_message(record)}{extra}")
        if record.exc_info and record.exc_info[1] is not None:
            line += "".join(f"\n    {_visible(each)}" for each in describe(record.exc_info[1]))
        return line


class Repeats(logging.Filter):
    """Lets a warning or an error that says the same again pass only every ``REPEAT_INTERVAL``, with how many were
    left out meanwhile (``repeated``). What answers somebody (``extra=ASKED``) always passes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        #: (logger, level, message, exception's type) → when it passed last (monotonic seconds), how many did not since.
        self._seen: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno < logging.WARNING or getattr(record, "asked", False):
            return True
        kind = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.levelno, _message(record), kind)
        now = self._clock.monotonic()
        with self._lock:
            since, left_out = self._seen.get(key, (None, 0))
            if since is not None and now - since < REPEAT_INTERVAL:
                self._seen[key] = (since, left_out + 1)
                return False
            self._seen[key] = (now, 0)
            self._seen.move_to_end(key)
            while len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)
        record.repeated = left_out
        return True


def describe(error: BaseException) -> Iterator[str]:
    """An exception for the log, outermost first: its type, its words where they are known to quote no events, the
    places it came through, and the same of what caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    prefix = ""
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        ours = isinstance(current, ShipperError | Held)
        known = ours or (isinstance(current, OSError) and kind.__module__ in _SYSTEM)
        yield f"{prefix}{kind.__module__}.{kind.__qualname__}" + (f": {current}" if known else "")
        for frame in traceback.extract_tb(current.__traceback__)[-MAX_FRAMES:]:
            yield f"  at {frame.filename}:{frame.lineno} in {frame.name}"
        cause, context = current.__cause__, current.__context__
        current = cause or (None if current.__suppress_context__ else context)
        prefix = "caused by "


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        text = str(record.msg)  # a wrong number of arguments is no reason to say nothing
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
