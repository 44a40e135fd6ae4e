"""The thread that tells every gateway that this worker lives, however long a call takes."""

import math
import threading
import time
from collections.abc import Callable, Sequence

from contracts.worker_protocol import Heartbeat
from online_worker.memory import resident_bytes
from online_worker.session import Session
from online_worker.watchdog import Watchdog

_LONGEST_PAUSE = 1.0
"""Seconds, while no gateway asks for a rhythm."""


class Heart:
    """Beats for each session in the rhythm that its gateway asked for."""

    def __init__(self, sessions: Callable[[], Sequence[Session]], watchdog: Watchdog) -> None:
        """Both are called in the thread of the heart."""
        self._sessions = sessions
        self._watchdog = watchdog
        self._last_beats: dict[Session, float] = {}
        self._changed = threading.Event()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def look(self) -> None:
        """Mind a new session now."""
        self._changed.set()

    def stop(self) -> None:
        """Beat no more."""
        self._is_stopped = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped:
            self._changed.wait(self._beat())
            self._changed.clear()

    def _beat(self) -> float:
        """Beat where it is time; the seconds until it is time again."""
        now = time.monotonic()
        self._watchdog.look(now)
        sessions = self._sessions()
        due = [one for one in sessions if now >= self._last_beats.get(one, -math.inf) + one.heartbeat_seconds]
        memory = resident_bytes() if due else 0
        for session in due:
            session.stream.send(Heartbeat(memory))
        self._last_beats = {one: now if one in due else self._last_beats[one] for one in sessions}
        return min((self._last_beats[one] + one.heartbeat_seconds - now for one in sessions), default=_LONGEST_PAUSE)
