"""One time budget for several steps, and waiting on a condition within it."""

import time
from collections.abc import Callable
from datetime import timedelta
from threading import Event


class Deadline:
    """A point on the monotonic clock that several steps share."""

    def __init__(self, budget: timedelta) -> None:
        self._budget = budget
        self._end = time.monotonic() + budget.total_seconds()

    @property
    def remaining(self) -> timedelta:
        """What is left, never below zero."""
        return timedelta(seconds=max(0.0, self._end - time.monotonic()))

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self._end

    def at_most(self, bound: timedelta) -> timedelta:
        """What is left, but no more than the bound; for waits that must also look elsewhere."""
        return min(self.remaining, bound)

    def pause(self, length: timedelta) -> None:
        """Sleep so long, but never beyond the deadline."""
        time.sleep(self.at_most(length).total_seconds())

    def __repr__(self) -> str:
        return f"Deadline({self.remaining.total_seconds():.3f} of {self._budget.total_seconds():.3f} s left)"


def wait_until(
    condition: Callable[[], bool],
    deadline: Deadline,
    every: timedelta = timedelta(milliseconds=50),
    stop: Event | None = None,
) -> bool:
    """Look at the condition until it holds, the deadline passes or ``stop`` is set; whether it held."""
    pause = stop or Event()
    while not condition():
        if deadline.expired or pause.wait(deadline.at_most(every).total_seconds()):
            return condition()
    return True
