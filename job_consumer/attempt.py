"""One claimed attempt on this consumer: its claim, how far it is, and whether it was told to stop."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.tasks import AttemptRef, Claim, Step, short_uid
from job_consumer.outcome import StopReason
from service_kit.logging import get_logger


class Attempt:
    """Shared by the thread that works on it and the one that keeps its lease; the first stop reason counts."""

    def __init__(self, claim: Claim, consumer: str) -> None:
        self.claim = claim
        self.ref = AttemptRef(task_id=claim.task_id, attempt=claim.attempt, consumer=consumer)
        self.step = Step.STAGE
        self.step_since: float | None = None
        """When the current step began, on the monotonic clock; None between two steps."""
        self.step_seconds: dict[Step, float] = {}
        self.stopped = threading.Event()
        """Set as soon as there is a stop reason; whatever the attempt is doing watches it."""
        self.drained = threading.Event()
        """Set when this consumer's own time is up: not even a report may take long any more."""
        self.over = threading.Event()
        """Set when it was reported, or dropped."""
        self.stop_reason: StopReason | None = None
        self._lock = threading.Lock()
        self.log = get_logger(__name__).bind(task=short_uid(claim.uid), attempt=claim.attempt)

    def stop(self, reason: StopReason) -> None:
        """Tell whoever works on it to stop; a lease that is lost outweighs an earlier reason."""
        with self._lock:
            if self.stop_reason is None or reason is StopReason.LOST:
                self.stop_reason = reason
        if reason is StopReason.DRAINED:
            self.drained.set()
        self.stopped.set()

    @contextmanager
    def at(self, step: Step) -> Iterator[None]:
        """Mark the step as current and take its time."""
        self.step = step
        self.step_since = began = time.monotonic()
        try:
            yield
        finally:
            self.step_since = None
            self.step_seconds[step] = round(time.monotonic() - began, 4)
