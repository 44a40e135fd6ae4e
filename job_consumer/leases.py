"""Keeps the leases of this consumer's attempts, and hears through the answers that one was cancelled or lost."""

import threading
from datetime import timedelta

from contracts.errors import NotFound, PlatformError, StaleAttempt, Unavailable
from job_consumer.attempt import Attempt
from job_consumer.outcome import StopReason
from job_consumer.private_api import PrivateApi
from service_kit.logging import get_logger

log = get_logger(__name__)

_BEATS_PER_LEASE = 4
_SLOWEST_BEAT = timedelta(seconds=10)


class LeaseKeeper:
    """A thread that sends a heartbeat for each attempt it was given, several times per lease.

    private_api being away is no reason to stop a model: the lease may outlast it, and only an answer that says so means
    that the attempt was lost.
    """

    def __init__(self, private_api: PrivateApi, lease: timedelta) -> None:
        self._private_api = private_api
        self._every = min(lease / _BEATS_PER_LEASE, _SLOWEST_BEAT)
        self._within = lease / 2
        self._attempts: set[Attempt] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; leases are kept no longer."""
        self._closed.set()
        self._thread.join(timeout=5)

    def keep(self, attempt: Attempt) -> None:
        """Keep this attempt's lease from now on."""
        with self._lock:
            self._attempts.add(attempt)

    def release(self, attempt: Attempt) -> None:
        """Keep it no longer."""
        with self._lock:
            self._attempts.discard(attempt)

    def _run(self) -> None:
        while not self._closed.wait(self._every.total_seconds()):
            with self._lock:
                attempts = list(self._attempts)
            for attempt in attempts:
                self._beat(attempt)

    def _beat(self, attempt: Attempt) -> None:
        try:
            answer = self._private_api.heartbeat(attempt.claim, attempt.step, self._within)
        except (StaleAttempt, NotFound):
            if attempt.over.is_set():
                return  # it was reported while this heartbeat was on its way
            attempt.log.warning("lease_lost")
            attempt.stop(StopReason.LOST)
            self.release(attempt)
        except Unavailable as error:
            attempt.log.warning("heartbeat_failed", error=error.message)
        except PlatformError as error:
            attempt.log.warning("heartbeat_refused", error=error.message)
        else:
            if answer.cancel and not attempt.stopped.is_set():
                attempt.log.info("cancel_received")
                attempt.stop(StopReason.CANCELLED)
