"""Growing pauses between tries."""

import random
from datetime import timedelta


class Backoff:
    """Doubles from ``first`` to ``most``, each pause cut by up to half at random, so that many do not march in step."""

    def __init__(self, first: timedelta = timedelta(milliseconds=200), most: timedelta = timedelta(seconds=10)) -> None:
        self._first = first
        self._most = most
        self._next = first

    def reset(self) -> None:
        """Begin again at the first pause, after a success."""
        self._next = self._first

    def pause(self) -> timedelta:
        """The pause before the next try."""
        current = self._next
        self._next = min(self._next * 2, self._most)
        return current * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
