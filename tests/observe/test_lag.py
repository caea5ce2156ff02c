"""How far reading stands behind."""

import threading

from shipper.observe.lag import Lag


class MovedClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("lag does not wait")


def test_lag_is_what_the_last_read_said_and_grows_with_the_clock() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    lag.read("a", 7.0)
    assert lag.seconds() == 7
    clock.seconds += 60
    assert lag.seconds() == 67
    lag.read("a", 0.0)
    assert lag.seconds() == 0


def test_lag_is_that_of_the_worst_partition() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    lag.read("fails", 1.0)
    clock.seconds += 100
    lag.read("works", 20.0)
    assert lag.seconds() == 101


def test_a_source_that_never_read_anything_lags_since_its_start() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    clock.seconds += 30
    assert lag.seconds() == 30


def test_a_partition_that_was_begun_and_never_read_lags_since_then() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    clock.seconds += 30
    lag.begun("a")
    lag.begun("b")
    clock.seconds += 5
    lag.read("a", 0.0)
    lag.begun("b")
    assert lag.seconds() == 5


def test_an_unknown_lag_leaves_what_was_known_and_counts_as_progress() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    lag.read("a", 9.0)
    clock.seconds += 100
    lag.read("a", None)
    assert lag.seconds() == 9


def test_a_finished_partition_does_not_lag() -> None:
    clock = MovedClock()
    lag = Lag(clock)
    lag.read("a", 9.0)
    lag.finished("a")
    lag.finished("never seen")
    clock.seconds += 100
    assert lag.seconds() == 0


def test_a_lag_is_never_negative() -> None:
    lag = Lag(MovedClock())
    lag.read("a", -5.0)
    assert lag.seconds() == 0
