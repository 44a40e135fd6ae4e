"""Ends the process when a call never ends.

Beside a gateway's own machine nobody else would: the worker goes on to say that it lives, and does nothing more. On it
the supervisor does the same from outside.
"""

import os

from online_worker.work import AtHand, Work
from service_kit.logging import get_logger

log = get_logger(__name__)

CALL_NEVER_ENDS = 70
"""The exit status."""
_LONGEST_STEP = 2.0
"""Seconds: more between two looks means that the whole process, or its machine, stood still."""


class Watchdog:
    """A call may take its limit, and the time after which its gateway gives silence up."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._watched: AtHand | None = None
        self._seconds = 0.0
        self._last_look = 0.0

    def look(self, now: float) -> None:
        """To be called often, with the monotonic clock's seconds; does not return when a call never ends."""
        step, self._last_look = min(now - self._last_look, _LONGEST_STEP), now
        at_hand = self._work.at_hand
        if at_hand is None or at_hand is not self._watched:
            self._watched, self._seconds = at_hand, 0.0
            return
        self._seconds += step
        session, call = at_hand
        if call.limit_seconds and self._seconds > call.limit_seconds + session.silence_seconds:
            log.error("call_never_ends", endpoint=call.endpoint, seconds=round(self._seconds, 1))
            os._exit(CALL_NEVER_ENDS)
