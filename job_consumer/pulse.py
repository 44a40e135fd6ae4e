"""Decides whether this consumer lives, and gives signs of life as long as it does (see ``alive``).

It lives as long as

* the interpreter runs its threads: a stopped or frozen process gives no sign;
* the consumer's loop comes round within ``_TURN`` while it has no task in hand: each wait of such a turn is bounded;
* a model that runs does so within its own time limit and ``_OVERTIME`` to be killed in: else whoever watches it is
  stuck, while its lease is kept for ever and no other consumer may take the task;
* no thread has died without which tasks would be lost or debris kept.

The other steps with a task in hand (bringing input, collecting and sending output) last as long as their bytes take and
have deadlines of their own on every wait. Nothing here asks whether others work: an orchestrator kills what is not
alive, and a consumer whose private_api, broker or Docker engine is away must not lose its running task for that.
"""

import threading
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts.tasks import Step
from job_consumer.alive import AliveFile
from job_consumer.attempt import Attempt
from service_kit.logging import get_logger

log = get_logger(__name__)

_EVERY = timedelta(seconds=5)
_TURN = timedelta(minutes=15)
"""A turn waits a minute for its own sake; deadlines of engine and private_api, and clearing up, add to it."""
_OVERTIME = timedelta(minutes=10)


class Pulse:
    """What the loop says of itself, and the thread that gives signs of life; use it in a ``with`` statement.

    ``stop`` ends the judging: who leaves is alive until it has left. ``folder`` is where the sign is given.
    """

    def __init__(self, stop: threading.Event, folder: Path | None = None, every: timedelta = _EVERY) -> None:
        self._stop = stop
        self._folder = folder
        self._every = every
        self._file: AliveFile | None = None
        self._needed: frozenset[str] = frozenset()
        self._attempt: Attempt | None = None
        self._turned = time.monotonic()
        self._closed = threading.Event()
        self._reported: str | None = None
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join(timeout=5)
        if self._file is not None:
            self._file.close()

    def needs(self, *threads: str) -> None:
        """From now on, threads of these names must live."""
        self._needed |= frozenset(threads)

    def turn(self) -> None:
        """The loop has come round, with no task in hand."""
        self._turned = time.monotonic()
        self._attempt = None

    def works_on(self, attempt: Attempt) -> None:
        """The loop has a task in hand, until its next turn."""
        self._attempt = attempt

    def trouble(self) -> str | None:
        """Why this consumer does not count as alive; None when it does."""
        if self._stop.is_set():
            return None
        dead = self._needed - {thread.name for thread in threading.enumerate()}
        if dead:
            return f"these threads have died: {', '.join(sorted(dead))}"
        attempt, now = self._attempt, time.monotonic()
        if attempt is None:
            return "the loop is stuck" if now - self._turned > _TURN.total_seconds() else None
        since = attempt.step_since
        if attempt.step is not Step.RUN or since is None:
            return None
        limit = attempt.claim.model.limits.timeout_seconds + _OVERTIME.total_seconds()
        return f"a model runs for {now - since:.0f} s, past its limit" if now - since > limit else None

    def _run(self) -> None:
        while not self._closed.wait(self._every.total_seconds()):
            self._beat()

    def _beat(self) -> None:
        trouble = self.trouble()
        if trouble is None:
            trouble = self._give_sign()
        if trouble is not None and trouble != self._reported:
            log.error("no_sign_of_life", reason=trouble)
        self._reported = trouble

    def _give_sign(self) -> str | None:
        """Write the file; what kept us from it."""
        try:
            if self._file is None:
                self._file = AliveFile(self._folder)
            self._file.write()
        except OSError as error:
            return f"the file for it cannot be written: {error}"
        return None
