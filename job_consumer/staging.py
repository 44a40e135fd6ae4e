"""Stages the next task while a model runs, so that a GPU never waits for bytes.

Nothing is reserved by it: private_api names the task that this consumer would probably get next, and that task stays
pending and free for all. When the running model ends, the consumer claims the staged task like any other; if another
consumer was faster, what was staged is thrown away. So staging never makes a task wait here while another is idle.
"""

import threading
from datetime import timedelta

from contracts.errors import ClaimRefused, NotFound, PlatformError
from contracts.tasks import Claim, StagingOffer
from job_consumer.attempt import Attempt
from job_consumer.executor import Executor
from job_consumer.private_api import Interrupted, PrivateApi
from job_consumer.runner.base import ModelRefused, Run, RunnerError
from service_kit.backoff import Backoff
from service_kit.logging import get_logger

log = get_logger(__name__)

_HEAD_START = timedelta(milliseconds=50)
"""The task that is being started comes first: it needs the same processor, disk and engine, for about so long."""
_LOOK_EVERY = timedelta(seconds=1)
_WATCH_EVERY = timedelta(milliseconds=100)


class StagedAhead:
    """One look ahead: lives from the start of a model to its end.

    Then either :meth:`claim` and, if that was granted, :meth:`take` end it, or :meth:`throw_away` does.
    """

    def __init__(self, private_api: PrivateApi, executor: Executor) -> None:
        self._private_api = private_api
        self._executor = executor
        self._offer: StagingOffer | None = None
        self._run: Run | None = None
        self._failed = False
        self._over = threading.Event()
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._look, name="staging", daemon=True)
        self._thread.start()

    def claim(self) -> Claim | None:
        """Claim the task that is staged or being staged; without one, or when it is another's, all is dropped.

        A task that could not be staged is not claimed from here: it would fail the same way, past the checks that
        guard the inbox.
        """
        self._over.set()
        offer = self._offer
        if offer is not None and not self._failed:
            try:
                return self._private_api.claim(offer.uid)
            except (ClaimRefused, NotFound):
                pass
            except PlatformError as error:
                log.warning("claim_failed", error=error.message)
        self.throw_away()
        return None

    def take(self, attempt: Attempt) -> Run | None:
        """What was staged, as soon as it is; None, and nothing is left of it, when it does not fit the claim.

        An attempt that is told to stop meanwhile breaks the staging off.
        """
        while self._thread.is_alive():
            self._thread.join(_WATCH_EVERY.total_seconds())
            if attempt.stopped.is_set():
                self._unwanted.set()
        run, offer, claim = self._run, self._offer, attempt.claim
        assert offer is not None, "only after a granted claim"  # noqa: S101
        if run is not None and (claim.attempt, claim.input, claim.model) == (offer.attempt, offer.input, offer.model):
            return run
        self._discard()
        return None

    def throw_away(self) -> None:
        """Drop what was staged, and break off what is being staged."""
        self._over.set()
        self._unwanted.set()
        self._thread.join()
        self._discard()

    def _discard(self) -> None:
        if self._run is not None:
            self._run.discard()
            self._run = None

    def _look(self) -> None:
        """Ask until there is a task to stage, and stage it once."""
        backoff = Backoff(first=_LOOK_EVERY)
        pause = _HEAD_START
        while not self._over.wait(pause.total_seconds()):
            try:
                offer = self._private_api.peek()
            except PlatformError as error:
                log.debug("peek_failed", error=error.message)
                pause = backoff.pause()
                continue
            if offer is not None:
                self._offer = offer
                self._stage(offer)
                return
            pause = _LOOK_EVERY

    def _stage(self, offer: StagingOffer) -> None:
        try:
            self._run = self._executor.stage(offer, self._unwanted)
        except Interrupted:
            pass
        except (RunnerError, ModelRefused, PlatformError, OSError) as error:
            # Whoever claims the task meets the same trouble and reports it; it is not this look-ahead's to judge.
            log.info("staging_failed", error=str(error))
        finally:
            self._failed = self._run is None
