"""Task ids by long poll from private_api: the inbox of a platform without a broker."""

import threading
from datetime import timedelta
from typing import Protocol

from contracts.errors import Unavailable
from contracts.tasks import TaskOffer
from job_consumer.inbox.base import Offer
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_SLICE = timedelta(seconds=2)
"""One poll waits no longer, so that ``close`` takes effect soon: a request in flight cannot be called back."""


class TaskSource(Protocol):
    """Who answers the long polls."""

    def next_task(self, wait: timedelta) -> TaskOffer | None:
        """The next task for this consumer, or None when there was none for so long.

        Raises
        ------
        Unavailable
            It cannot be reached now.
        """


class PollingInbox:
    """Asks again and again. Nothing is held: a task stays on offer until its claim is granted.

    ``longest_poll`` bounds one request, and with it how late a ``close`` is noticed.
    """

    def __init__(
        self, client: TaskSource, *, longest_poll: timedelta = _SLICE, longest_pause: timedelta = timedelta(seconds=10)
    ) -> None:
        self._client = client
        self._longest_poll = longest_poll
        self._backoff = Backoff(most=longest_pause)
        self._in_outage = False
        self._closed = threading.Event()

    def next(self, timeout: timedelta) -> Offer | None:
        """Wait for an offer, at most so long; None when there was none or private_api is away."""
        deadline = Deadline(timeout)
        while not self._closed.is_set():
            try:
                offer = self._client.next_task(deadline.at_most(self._longest_poll))
            except Unavailable as error:
                self._trouble(error)
                self._closed.wait(deadline.at_most(self._backoff.pause()).total_seconds())
                return None
            self._well()
            if offer is not None or deadline.expired:
                return offer
        return None

    def settle(self, offer: Offer) -> None:
        """Nothing to do: the claim took the task off the queue."""

    def give_back(self, offer: Offer) -> None:
        """Nothing to do: an unclaimed task stays on offer."""

    def close(self) -> None:
        """A ``next`` in flight returns None after its current poll."""
        self._closed.set()

    def _trouble(self, error: Unavailable) -> None:
        if not self._in_outage:
            self._in_outage = True
            log.warning("inbox_waits", reason=error.message)

    def _well(self) -> None:
        self._backoff.reset()
        if self._in_outage:
            self._in_outage = False
            log.info("inbox_back")
