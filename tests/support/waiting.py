"""Waiting on a condition; tests never sleep a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], within: float = 30.0, every: float = 0.02) -> T:
    """The first truthy answer of ``look``; an AssertionError with the last answer when there is none in time (seconds).

    The last look begins after the end, so that a machine that stood still in between is not taken for a failure.
    """
    end = time.monotonic() + within
    while True:
        late = time.monotonic() > end
        answer = look()
        if answer:
            return answer
        if late:
            raise AssertionError(f"not within {within} s; the last answer was {answer!r}")
        time.sleep(every)
