"""What the consumer asks of an inbox."""

from datetime import timedelta
from typing import Protocol


class Offer(Protocol):
    """One task id, offered to this consumer and to no other until it is settled or this process dies."""

    @property
    def uid(self) -> str:
        """The task's uid; only a claim tells whether it may be run."""


class Inbox(Protocol):
    """Yields one task id at a time, only while the consumer asks for one.

    A busy consumer holds no offer: between :meth:`settle` and the next :meth:`next` nothing is reserved for it. One
    thread calls ``next``, ``settle`` and ``give_back``; ``close`` may come from any.
    """

    def next(self, timeout: timedelta) -> Offer | None:
        """Wait for an offer, at most so long; None when there was none.

        Broker trouble is not raised: the inbox reconnects by itself, logs it, and returns None in the meantime, having
        waited.
        """

    def settle(self, offer: Offer) -> None:
        """The claim was granted, or refused for good: the offer shall not come again. Losing this is harmless."""

    def give_back(self, offer: Offer) -> None:
        """No claim could be made now: offer it again, to anyone."""

    def close(self) -> None:
        """Let go of everything; a ``next`` in flight returns None soon."""
