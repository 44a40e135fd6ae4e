"""One call on its way through the data plane."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from contracts.inference import InferCall, InferResult

if TYPE_CHECKING:
    from online_gateway.dataplane.lanes import Lane
    from online_gateway.dataplane.links import Holder

Gone = Callable[[], Awaitable[None]]
"""Returns when the client has gone away."""


class Pending:
    """It waits in its lane while it has no holder, and has begun once it has one; it ends exactly once."""

    __slots__ = (
        "arrived",
        "call",
        "deadline",
        "future",
        "gone",
        "holder",
        "id",
        "is_done",
        "lane",
        "sent_at",
        "was_lost",
        "watcher",
    )

    def __init__(
        self,
        call: InferCall,
        lane: "Lane",
        arrived: float,
        deadline: float,
        gone: Gone | None,
        future: "asyncio.Future[InferResult]",
    ) -> None:
        self.call = call
        self.lane = lane
        self.arrived = arrived
        self.deadline = deadline
        self.gone = gone
        self.future = future
        self.holder: Holder | None = None
        self.id = 0
        """A new one each time that it is sent: an answer to an earlier sending means nothing."""
        self.sent_at = 0.0
        self.was_lost = False
        """Whether a worker has died with it."""
        self.is_done = False
        self.watcher: asyncio.Task[None] | None = None

    def close(self) -> bool:
        """Let it end; whether it had not ended before."""
        if self.is_done:
            return False
        self.is_done = True
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None
        return True

    def fail(self, error: PlatformError) -> None:
        """End it with an error."""
        if self.close():
            self.lane.endpoint.record.failed += 1
            if not self.future.done():
                self.future.set_exception(error)

    async def watch(self) -> None:
        """Cancel it when its client goes away."""
        if self.gone is not None:
            await self.gone()
            self.future.cancel()
