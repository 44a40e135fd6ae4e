"""One worker as the data plane sees it: what it holds, what it was given, and how much more it may be given.

A worker's *load* is the number of calls that it may still be busy with. A slow call goes to a worker without load
alone, and nothing joins it there: so what waits has never begun, and loses nothing when a worker dies. Fast calls are
pipelined, since a worker would else stand idle for the time that an answer and the next call travel.
"""

from typing import TYPE_CHECKING, Protocol

from contracts.worker_protocol import FromGateway
from online_gateway.dataplane.statistics import LinkRecord

if TYPE_CHECKING:
    from online_gateway.dataplane.lanes import HeldGeneration, Lane
    from online_gateway.dataplane.pending import Pending

FAST_SECONDS = 0.002
"""An endpoint whose calls take less is fast; one not yet known is slow."""
WINDOW = 64
"""Calls of fast endpoints that one worker may have at a time."""


class Link(Protocol):
    """A way to one worker."""

    worker_id: str

    def send(self, message: FromGateway) -> None:
        """Hand the message over; never blocks.

        Raises
        ------
        ProtocolError
            The message cannot be framed. Nothing was sent.
        """
        ...


class Feed:
    """What one worker holds and was given."""

    __slots__ = (
        "batches",
        "cancels",
        "holders",
        "is_busy_alone",
        "link",
        "load",
        "outbox",
        "overdue_since",
        "record",
        "reserved_for",
        "sent",
    )

    def __init__(self, link: Link) -> None:
        self.link = link
        self.holders: list[Holder] = []
        self.load = 0
        """The number of calls in ``sent``, ``outbox`` and ``batches``."""
        self.is_busy_alone = False
        """Whether its load is one slow call, or one slow batch."""
        self.reserved_for: Lane | None = None
        """The slow lane that has its turn as soon as the load is gone."""
        self.sent: dict[int, Pending] = {}
        """Calls by their ids, in the order of sending; they have begun. A worker answers those that it skips, too."""
        self.outbox: list[Pending] = []
        """Calls that leave in this tick,"""
        self.batches: list[list[Pending]] = []
        """and those of them that are predicted together."""
        self.cancels: list[int] = []
        """Ids that leave in this tick."""
        self.overdue_since: float | None = None
        """When it should have answered, at the latest, a call that it let pass its deadline since its last answer."""
        self.record = LinkRecord()

    def put(self, count: int, *, alone: bool) -> None:
        """Add to the load."""
        self.load += count
        self.is_busy_alone = alone

    def is_due_at(self, moment: float) -> None:
        """It did not answer a call in time, which it should have by this moment at the latest."""
        self.overdue_since = moment if self.overdue_since is None else min(self.overdue_since, moment)

    def take(self, call_id: int) -> "Pending | None":
        """The call with this id, which is load no more; None for one that it was not given."""
        pending = self.sent.pop(call_id, None)
        if pending is not None:
            self.load -= 1
            if not self.load:
                self.is_busy_alone = False
        return pending


class Holder:
    """One worker that has one generation in memory."""

    __slots__ = ("feed", "generation", "version")

    def __init__(self, feed: Feed, generation: "HeldGeneration", version: str | None) -> None:
        self.feed = feed
        self.generation = generation
        self.version = version
        """The version that the endpoint's code gives itself there."""
