"""Time as the client spends it: durations, one budget for several steps, growing pauses between tries."""

import random
import time
from datetime import timedelta

Duration = timedelta | float
"""A ``timedelta``, or a number of seconds."""


def as_timedelta(duration: Duration) -> timedelta:
    """The duration, whichever way it was given."""
    return duration if isinstance(duration, timedelta) else timedelta(seconds=duration)


class Deadline:
    """A point on the monotonic clock that several steps share."""

    def __init__(self, budget: timedelta) -> None:
        self.budget = budget
        self._end = time.monotonic() + budget.total_seconds()

    @property
    def remaining(self) -> timedelta:
        """What is left, never below zero."""
        return timedelta(seconds=max(0.0, self._end - time.monotonic()))

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self._end

    def pause(self, wanted: timedelta) -> bool:
        """Sleep so long, or until the deadline; whether there is time for another try."""
        time.sleep(min(wanted, self.remaining).total_seconds())
        return not self.expired


class Backoff:
    """Doubles from ``first`` to ``most``, each pause shortened by up to half at random so that clients spread out."""

    def __init__(self, first: timedelta = timedelta(milliseconds=200), most: timedelta = timedelta(seconds=10)) -> None:
        self._first = first
        self._most = most
        self._next = first

    def reset(self) -> None:
        """Begin again at the first pause, after a success."""
        self._next = self._first

    def pause(self, at_least: timedelta | None = None) -> timedelta:
        """The pause before the next try; a server's Retry-After is its lower bound."""
        current = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
        self._next = min(self._next * 2, self._most)
        return max(current, at_least or timedelta(0))
