"""Removes what dead attempts left on this host, and the content of models that are no more.

The runner says what is here, private_api says what of it is over. Whatever private_api does not call over stays, and
while it is away everything stays: it alone knows the attempts of the other consumers on the same engine.
"""

from collections.abc import Sequence
from datetime import timedelta
from threading import Event
from typing import Protocol

from contracts.errors import PlatformError
from contracts.tasks import AttemptRef
from job_consumer.runner.base import Runner, RunnerError
from service_kit.logging import get_logger

log = get_logger(__name__)


class Registry(Protocol):
    """What the sweeper asks of private_api."""

    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those of the attempts that are not, and will never again be, the current one of a running task."""

    def model_content_hashes(self) -> frozenset[str]:
        """The SHA-256 of every registered model's content."""


class Sweeper:
    """One per consumer; several on one host only repeat each other's work."""

    def __init__(self, runner: Runner, registry: Registry, every: timedelta) -> None:
        self._runner = runner
        self._registry = registry
        self._every = every

    def run(self, stop: Event) -> None:
        """Sweep at once, and again after each pause, until the event is set."""
        while not stop.is_set():
            self.sweep()
            stop.wait(self._every.total_seconds())

    def sweep(self) -> None:
        """Sweep once; what cannot be asked or removed now is left to the next time."""
        try:
            self._remove_stale_attempts()
            self._forget_models()
        except PlatformError as error:
            log.warning("sweep_put_off", error=error.message)
        except RunnerError as error:
            log.warning("sweep_put_off", error=str(error))

    def _remove_stale_attempts(self) -> None:
        here = self._runner.leftovers()
        if not here:
            return
        stale = set(self._registry.stale_attempts(here))
        for attempt in here:
            if attempt in stale:
                self._remove(attempt)

    def _remove(self, attempt: AttemptRef) -> None:
        if self._runner.remove_leftover(attempt):
            log.info("leftover_removed", task_id=attempt.task_id, attempt=attempt.attempt, of=attempt.consumer)

    def _forget_models(self) -> None:
        self._runner.forget_models(self._registry.model_content_hashes())
