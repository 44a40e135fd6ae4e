"""Waiting on a condition; tests never sleep a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], within: float = 10.0, every: float = 0.02) -> T:
    """The first truthy answer of ``look``; an AssertionError with the last answer when there is none in time (seconds)."""
    end = time.monotonic() + within
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s; the last answer was {answer!r}")
        time.sleep(every)
