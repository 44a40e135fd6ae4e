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
from job_consumer.pulse import Pulse
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

    ``grace`` is what a running model gets after the stop signal; ``hurry``, once set, ends it early. ``pulse`` hears
    what the loop does.
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
        pulse: Pulse,
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
        self._setback = threading.Event()
        self._hurry = hurry
        self._pulse = pulse

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``; returns when the last attempt is reported and nothing of it is left."""
        threading.Thread(target=self._close_inbox_on, args=(stop,), daemon=True).start()
        ahead: StagedAhead | None = None
        with ThreadPoolExecutor(_COMPLETING_AT_ONCE, thread_name_prefix="complete") as completing:
            try:
                while not stop.is_set():
                    self._pulse.turn()
                    claim, staged = self._next_claim(ahead, stop)
                    ahead = None
                    if claim is not None:
                        attempt = self._begin(claim, stop)
                        self._pulse.works_on(attempt)
                        ahead = StagedAhead(self._private_api, self._executor)
                        self._hand_over(self._executor.run(attempt, staged), completing)
            finally:
                if ahead is not None:
                    ahead.throw_away()

    def _next_claim(
        self, ahead: StagedAhead | None, stop: threading.Event
    ) -> tuple[Claim | None, Callable[[Attempt], Run | None]]:
        """The next task of this consumer, and the way to what was staged of it."""
        if not self._fit_for_work():
            if ahead is not None:
                ahead.throw_away()
            stop.wait(self._backoff.pause().total_seconds())
            return None, _nothing_staged
        claim = ahead.claim() if ahead is not None else None
        if ahead is not None and claim is not None:
            return claim, ahead.take
        return self._claim_offered(stop), _nothing_staged

    def _fit_for_work(self) -> bool:
        """Whether a task could run here now; not right after a failure of ours, so that a sick host burns few tasks."""
        try:
            self._runner.check()
        except RunnerError as error:
            log.warning("not_fit_for_work", error=str(error))
            return False
        if self._setback.is_set():
            self._setback.clear()
            return False
        return True

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

    def _hand_over(self, ended: Ended, completing: ThreadPoolExecutor) -> None:
        """Complete the attempt in the background."""
        if ended.is_platform_failure:
            self._setback.set()
        self._completing.acquire()
        completing.submit(self._complete, ended)

    def _complete(self, ended: Ended) -> None:
        failed_before = ended.is_platform_failure
        try:
            self._executor.complete(ended)
        except Exception:  # the consumer's loop must outlive any single attempt
            ended.attempt.log.exception("attempt_crashed")
        finally:
            if not ended.is_platform_failure:
                self._backoff.reset()
            elif not failed_before:
                self._setback.set()
            self._completing.release()


def _nothing_staged(_: Attempt) -> Run | None:
    return None
