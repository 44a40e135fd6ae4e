"""Calls in, results out: what every dialect asks, and what the worker port, pools and generations tell.

It knows messages and :class:`Link`, and neither sockets nor dialects nor disks. All of it runs in the event loop's
thread. A call costs one future, and no task or timer of its own: a sweep sees to deadlines and clients that went away.

    infer ──► admission ──► lane ──► worker's window ──► result, or error     each call ends exactly once
                 │            ▲            │
          429/503/404 at once └────────────┘ not_loaded; worker lost, if the endpoint allows a second try
"""

import asyncio
import time
from collections.abc import Callable
from weakref import WeakSet

from contracts.errors import PlatformError
from contracts.inference import InferCall, InferResult, QueueFull, UnknownEndpoint
from contracts.worker_protocol import Failure, Result
from online_gateway.dataplane.dispatch import Dispatcher
from online_gateway.dataplane.endings import Endings, error_of
from online_gateway.dataplane.lanes import EndpointLanes, Lane, LaneSettings
from online_gateway.dataplane.links import Feed, Holder, Link
from online_gateway.dataplane.pending import Gone, Pending
from online_gateway.dataplane.statistics import EndpointStatistics, LinkStatistics
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

__all__ = ["DataPlane", "Link"]

log = get_logger(__name__)

OnForgotten = Callable[[Link, str, int], None]
"""Told of a worker that has lost a generation of an endpoint which it had acknowledged."""

SWEEP_SECONDS = 0.05


class DataPlane:
    """Brings calls to workers. Except for ``infer``, ``drained`` and ``run``, nothing here waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._endpoints: dict[str, EndpointLanes] = {}
        self._feeds: dict[Link, Feed] = {}
        self._closed: WeakSet[Link] = WeakSet()
        """Workers that take nothing new: one may acknowledge a generation after that."""
        self._dispatcher = Dispatcher(clock)
        self._endings = Endings(self._dispatcher, clock)
        self._on_forgotten: OnForgotten = lambda _link, _endpoint, _generation: None

    def subscribe(self, on_forgotten: OnForgotten) -> None:
        """Have it called from now on, once the worker is sent no more calls of that generation."""
        self._on_forgotten = on_forgotten

    # What is served

    def open_endpoint(
        self,
        name: str,
        *,
        batch_size: int,
        batch_delay_seconds: float,
        queue_limit: int,
        deadline_seconds: float,
        retries_begun: bool,
    ) -> None:
        """Take calls for this name; repeated: from now on in this way."""
        settings = LaneSettings(batch_size, batch_delay_seconds, queue_limit, deadline_seconds, retries_begun)
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            self._endpoints[name] = EndpointLanes(name, settings)
        else:
            endpoint.settings = settings
            self._dispatcher.wake()

    def close_endpoint(self, name: str) -> None:
        """Take no more calls for it. Those that wait fail with UnknownEndpoint, those that have begun end."""
        endpoint = self._endpoints.pop(name, None)
        if endpoint is None:
            return
        endpoint.is_closed = True
        self._endings.refuse_waiting(endpoint, self._clock())
        for feed in self._feeds.values():
            feed.holders = [one for one in feed.holders if one.generation.pinned.endpoint is not endpoint]

    def add_holder(self, link: Link, endpoint: str, generation: int, version: str | None) -> None:
        """The worker has this generation in memory; repeated: with this version. A closed endpoint's is passed over."""
        lanes = self._endpoints.get(endpoint)
        if lanes is None or link in self._closed:
            return
        feed = self._feeds.get(link)
        if feed is None:
            feed = self._feeds[link] = Feed(link)
        held = lanes.generation(generation, self._clock())
        for holder in held.holders:
            if holder.feed is feed:
                holder.version = version
                return
        holder = Holder(feed, held, version)
        held.holders.append(holder)
        feed.holders.append(holder)
        self._dispatcher.wake()

    def remove_holder(self, link: Link, endpoint: str, generation: int) -> None:
        """Send it no more calls of this generation; those that it has may end."""
        feed = self._feeds.get(link)
        for holder in feed.holders if feed is not None else ():
            held = holder.generation
            if held.number == generation and held.pinned.endpoint.name == endpoint:
                self._drop_holder(holder)
                return

    def serve(self, endpoint: str, generation: int | None, label: str = "") -> None:
        """Send new calls, and waiting ones, to this generation; None: fail them, there is nothing to serve."""
        lanes = self._endpoints.get(endpoint)
        if lanes is None:
            return
        now = self._clock()
        lanes.serve(None if generation is None else lanes.generation(generation, now), label)
        self._endings.refuse_waiting(lanes, now)
        lanes.drop_unused()

    # Workers

    def stop_feeding(self, link: Link) -> None:
        """Give it nothing new, whatever it will hold; its answers still count."""
        self._closed.add(link)
        feed = self._feeds.get(link)
        if feed is not None:
            for holder in tuple(feed.holders):
                self._drop_holder(holder)

    def remove_link(self, link: Link, reason: str) -> None:
        """It is gone. What it had begun fails with WorkerLost, or is tried once more where its endpoint allows that."""
        self.stop_feeding(link)
        feed = self._feeds.pop(link, None)
        if feed is None:
            return
        begun = [pending for pending in feed.sent.values() if not pending.is_done]
        unsent = feed.outbox + [pending for batch in feed.batches for pending in batch]
        feed.outbox, feed.batches, feed.sent = [], [], {}
        again = [pending for pending in begun if self._endings.worker_lost(pending, reason)]
        self._endings.return_to_lanes(again + unsent)

    def on_results(self, link: Link, results: list[Result | Failure]) -> None:
        """Answers of a worker; those to calls that are over are ignored."""
        feed = self._feeds.get(link)
        if feed is None:
            return
        now = self._clock()
        feed.overdue_since = None
        returned = []
        for result in results:
            pending = feed.take(result.id)
            if pending is None or pending.is_done:
                continue
            if isinstance(result, Result):
                self._endings.answer(pending, result, now)
            elif result.kind == "not_loaded":
                returned.append(pending)
            else:
                pending.fail(error_of(result))
        if returned:
            self._not_loaded(feed, returned)
        self._dispatcher.wake()

    def overdue(self, link: Link) -> float:
        """Seconds by which a call in its hands takes too long, if it has answered nothing since; else 0.

        Each call may take the whole time of its endpoint from when it was sent, even where its caller waits for less.
        """
        feed = self._feeds.get(link)
        since = feed.overdue_since if feed is not None else None
        return 0.0 if since is None else max(0.0, self._clock() - since)

    # Calls

    async def infer(self, call: InferCall, gone: Gone | None = None) -> InferResult:
        """Have a worker answer; ``gone`` is awaited for calls that take long, and cancels when it returns.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady, QueueFull
            At once.
        InvalidInput, ModelFailed, WorkerLost, DeadlineExceeded
            Also EndpointNotReady when the last worker is gone and none comes soon, and UnknownEndpoint when the
            endpoint, or the generation that the call wants, is removed before its turn.
        asyncio.CancelledError
            The client has gone away.
        """
        now = self._clock()
        lane = self._admit(call, now)
        seconds = lane.endpoint.settings.deadline_seconds
        if call.budget_seconds is not None:
            seconds = min(seconds, call.budget_seconds)
        future: asyncio.Future[InferResult] = asyncio.get_running_loop().create_future()
        pending = Pending(call, lane, now, now + seconds, gone, future)
        self._dispatcher.enqueue(pending)
        try:
            return await future
        except asyncio.CancelledError:
            self._endings.withdraw(pending)
            raise

    async def drained(self, endpoint: str, generation: int, deadline: Deadline) -> bool:
        """Wait until no call is in flight on this generation, nor waits for it alone; whether it came to that."""
        while in_flight := self._in_flight(endpoint, generation):
            left = deadline.remaining.total_seconds()
            if not left:
                return False
            await asyncio.wait(in_flight, timeout=min(left, SWEEP_SECONDS))
        return True

    def statistics(self, endpoint: str) -> EndpointStatistics:
        """What was counted of its calls.

        Raises
        ------
        UnknownEndpoint
        """
        lanes = self._endpoints.get(endpoint)
        if lanes is None:
            raise _unknown(endpoint)
        return lanes.record.statistics(lanes.waiting)

    def link_statistics(self, link: Link) -> LinkStatistics:
        """What was counted of the calls that it answered."""
        feed = self._feeds.get(link)
        return LinkStatistics() if feed is None else feed.record.statistics()

    # Time

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """End what is past its deadline, and have old calls watched."""
        now = self._clock()
        for endpoint in tuple(self._endpoints.values()):
            waiting = endpoint.waiting
            endpoint.record.sample_rate(now, waiting)
            if waiting:
                self._endings.refuse_waiting(endpoint, now)
                for lane in endpoint.lanes:
                    self._endings.look_over(lane.queue, now)
        for feed in self._feeds.values():
            self._endings.look_over(feed.sent.values(), now)

    # Parts of the above

    def _admit(self, call: InferCall, now: float) -> Lane:
        """The lane for a call.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady, QueueFull
        """
        endpoint = self._endpoints.get(call.endpoint)
        if endpoint is None:
            raise _unknown(call.endpoint)
        limit = endpoint.settings.queue_limit
        if endpoint.waiting >= limit:
            # Those that came in this tick may not have to wait.
            self._dispatcher.flush_if_due()
        try:
            lane = endpoint.lane_of(call.generation)
            lane.check(now)
            waiting = endpoint.waiting
            if waiting >= limit:
                message = f"{waiting} calls wait for the endpoint {endpoint.name!r} already."
                raise QueueFull(message, endpoint.record.retry_after(waiting))
        except PlatformError:
            endpoint.record.refused += 1
            raise
        return lane

    def _not_loaded(self, feed: Feed, calls: list[Pending]) -> None:
        """The worker has lost generations that it had acknowledged: its calls go elsewhere."""
        for pending in calls:
            holder = pending.holder
            if holder is not None and holder in feed.holders:
                endpoint, generation = pending.lane.endpoint.name, holder.generation.number
                worker = feed.link.worker_id
                log.warning("generation_lost_by_worker", worker=worker, endpoint=endpoint, generation=generation)
                self._drop_holder(holder)
                self._on_forgotten(feed.link, endpoint, generation)
        self._endings.return_to_lanes(calls)

    def _drop_holder(self, holder: Holder) -> None:
        held = holder.generation
        now = self._clock()
        held.holders.remove(holder)
        holder.feed.holders.remove(holder)
        if not held.holders:
            held.empty_since = now
            self._endings.refuse_waiting(held.pinned.endpoint, now)
            held.pinned.endpoint.drop_unused()

    def _in_flight(self, endpoint: str, generation: int) -> "list[asyncio.Future[InferResult]]":
        found: list[asyncio.Future[InferResult]] = []
        for feed in self._feeds.values():
            for pending in feed.sent.values():
                held = pending.holder.generation if pending.holder else None
                if held and held.number == generation and pending.lane.endpoint.name == endpoint:
                    found.append(pending.future)
        lanes = self._endpoints.get(endpoint)
        held = lanes.generations.get(generation) if lanes is not None else None
        if held is not None:
            found += [pending.future for pending in held.pinned.queue]
        return [future for future in found if not future.done()]


def _unknown(endpoint: str) -> UnknownEndpoint:
    return UnknownEndpoint(f"There is no endpoint {endpoint[:128]!r}.")
