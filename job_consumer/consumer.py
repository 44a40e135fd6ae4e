"""The consumer's loop: ready → offer → claim → run → complete, one model at a time.

While a model runs, the next task is staged and the previous output is collected and sent (see ``staging``). On a stop
signal nothing more is claimed; the running model may end within the grace period, or its task is handed back.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from contracts.errors import ClaimRefused, NotFound, PlatformError
from contracts.tasks import Claim, short_uid
from job_consumer.attempt import Attempt
from job_consumer.executor import Ended, Executor
from job_consumer.inbox.base import Inbox
from job_consumer.leases import LeaseKeeper
from job_consumer.outcome import StopReason
from job_consumer.private_api import PrivateApi
from job_consumer.runner.base import Run, Runner, RunnerError
from job_consumer.staging import StagedAhead
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_OFFER_WAIT = timedelta(seconds=20)
_COMPLETING_AT_ONCE = 2
"""Outputs under way in the background; a third makes the loop wait, so that a slow network cannot fill the disk."""


class Consumer:
    """Runs until its stop event is set; build it once per process.

    ``grace`` is what a running model gets after the stop signal; ``hurry``, once set, ends it early.
    """

    def __init__(
        self,
        name: str,
        private_api: PrivateApi,
        inbox: Inbox,
        runner: Runner,
        executor: Executor,
        leases: LeaseKeeper,
        grace: timedelta,
        hurry: threading.Event,
    ) -> None:
        self._name = name
        self._private_api = private_api
        self._inbox = inbox
        self._runner = runner
        self._executor = executor
        self._leases = leases
        self._grace = grace
        self._completing = threading.BoundedSemaphore(_COMPLETING_AT_ONCE)
        self._backoff = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=60))
        self._platform_failures = False
        self._hurry = hurry

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``; returns when the last attempt is reported and nothing of it is left."""
        threading.Thread(target=self._close_inbox_on, args=(stop,), daemon=True).start()
        ahead: StagedAhead | None = None
        with ThreadPoolExecutor(_COMPLETING_AT_ONCE, thread_name_prefix="complete") as completing:
            while not stop.is_set():
                claim, staged = self._next_claim(ahead, stop)
                ahead = None
                if claim is None:
                    continue
                attempt = self._begin(claim, stop)
                ahead = StagedAhead(self._private_api, self._executor)
                ended = self._executor.run(attempt, staged)
                self._completing.acquire()
                completing.submit(self._complete, ended)
            if ahead is not None:
                ahead.throw_away()

    def _next_claim(
        self, ahead: StagedAhead | None, stop: threading.Event
    ) -> tuple[Claim | None, Callable[[], Run | None]]:
        """The next task of this consumer, and the way to what was staged of it."""
        if ahead is not None:
            claim = ahead.claim()
            if claim is not None:
                return claim, lambda: ahead.take(claim)
        return (self._claim_offered(stop) if self._fit_for_work(stop) else None), lambda: None

    def _fit_for_work(self, stop: threading.Event) -> bool:
        """Whether a task could run here now; else waits a little, so that a sick host does not burn every task."""
        try:
            self._runner.check()
            if self._platform_failures:
                stop.wait(self._backoff.pause().total_seconds())
        except RunnerError as error:
            log.warning("not_fit_for_work", error=str(error))
            stop.wait(self._backoff.pause().total_seconds())
            return False
        return not stop.is_set()

    def _close_inbox_on(self, stop: threading.Event) -> None:
        stop.wait()
        self._inbox.close()

    def _claim_offered(self, stop: threading.Event) -> Claim | None:
        """Wait for an offer and claim it; None when there was none or it was refused."""
        offer = self._inbox.next(_OFFER_WAIT)
        if offer is None:
            return None
        if stop.is_set():
            self._inbox.give_back(offer)
            return None
        try:
            claim = self._private_api.claim(offer.uid)
        except (ClaimRefused, NotFound):
            log.debug("claim_refused", task=short_uid(offer.uid))
            self._inbox.settle(offer)
            return None
        except PlatformError as error:
            log.warning("claim_failed", task=short_uid(offer.uid), error=error.message)
            self._inbox.give_back(offer)
            stop.wait(self._backoff.pause().total_seconds())
            return None
        self._inbox.settle(offer)
        return claim

    def _begin(self, claim: Claim, stop: threading.Event) -> Attempt:
        """Keep the lease from now on; after a stop signal the attempt has the grace period to end."""
        attempt = Attempt(claim, self._name)
        attempt.log.info("attempt_started", model=claim.model.human_readable_id)
        self._leases.keep(attempt)
        threading.Thread(target=self._hand_back_on, args=(attempt, stop), name="drain", daemon=True).start()
        return attempt

    def _hand_back_on(self, attempt: Attempt, stop: threading.Event) -> None:
        while not stop.wait(1):
            if attempt.over.is_set():
                return
        deadline = Deadline(self._grace)
        while not attempt.over.wait(0.1):
            if deadline.expired or self._hurry.is_set():
                attempt.log.info("handing_back")
                attempt.stop(StopReason.DRAINED)
                return

    def _complete(self, ended: Ended) -> None:
        try:
            self._executor.complete(ended)
        except Exception:  # the consumer's loop must outlive any single attempt
            ended.attempt.log.exception("attempt_crashed")
        finally:
            self._platform_failures = ended.is_platform_failure
            if not self._platform_failures:
                self._backoff.reset()
            self._completing.release()
