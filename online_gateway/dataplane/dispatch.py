"""Which waiting call goes to which worker, and when.

Everything that happens within one tick of the event loop leaves at its end: one frame of calls to each worker, and one
for each batch. Lanes have their turns in a circle, so that endpoints that share workers share them fairly.
"""

import asyncio
from collections.abc import Callable
from operator import attrgetter

from contracts.inference import DeadlineExceeded, InvalidInput
from contracts.worker_protocol import Call, Calls, Cancel, ProtocolError
from online_gateway.dataplane.lanes import Lane
from online_gateway.dataplane.links import WINDOW, Feed, Holder
from online_gateway.dataplane.pending import Pending

_TIMER_SECONDS = 0.0005
"""A batch counts as due so much early: timers of the event loop are that coarse."""
_load = attrgetter("feed.load")


def deadline_exceeded(pending: Pending) -> DeadlineExceeded:
    """What ends a call that was not answered in its time."""
    where = "in the queue" if pending.holder is None else f"with the worker {pending.holder.feed.link.worker_id}"
    seconds = pending.deadline - pending.arrived
    name = pending.lane.endpoint.name
    return DeadlineExceeded(f"The call to {name!r} was not answered in its {seconds:g} s; it was {where}.")


class Dispatcher:
    """Moves calls from lanes to workers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hungry: dict[Lane, None] = {}
        """Lanes in the order of their turns; each that has a call waiting is here."""
        self._touched: dict[Feed, None] = {}
        """Workers that something leaves to in this tick."""
        self._is_due = False
        self._last_id = 0

    def enqueue(self, pending: Pending) -> None:
        """Let a call wait for its turn."""
        lane = pending.lane
        lane.queue.append(pending)
        self._hungry[lane] = None
        if not self._is_due:
            self.wake()

    def give_back(self, calls: list[Pending]) -> None:
        """Let calls that a worker was given wait again, before all others, in the order given."""
        for pending in reversed(calls):
            pending.holder = None
            pending.lane.queue.appendleft(pending)
            self._hungry[pending.lane] = None
        self.wake()

    def cancel(self, pending: Pending, feed: Feed) -> None:
        """Tell the worker that nobody waits for a call of its any more; it stays load until the worker answers it."""
        feed.cancels.append(pending.id)
        self._touched[feed] = None
        self.wake()

    def wake(self) -> None:
        """Look again at the end of this tick."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.flush_if_due)

    def flush_if_due(self) -> None:
        """Do at once what is to be done at the end of this tick."""
        if not self._is_due:
            return
        self._is_due = False
        now = self._clock()
        for lane in tuple(self._hungry):
            was_reserved = lane.reserved is not None
            has_fed = self._feed(lane, now)
            if was_reserved and lane.reserved is None:
                # Lanes before it have passed over the worker that was kept free for it.
                self.wake()
            if not lane.queue:
                lane.stop_timer()
                del self._hungry[lane]
                continue
            endpoint = lane.endpoint
            endpoint.record.queue_max = max(endpoint.record.queue_max, endpoint.waiting)
            if has_fed:
                del self._hungry[lane]
                self._hungry[lane] = None
        touched, self._touched = self._touched, {}
        for feed in touched:
            self._send(feed, now)

    def _feed(self, lane: Lane, now: float) -> bool:
        """Give its calls to workers; whether any was given."""
        lane.release()
        if lane.target is None:
            return False
        lane.target.holders.rotate(-1)
        if lane.endpoint.settings.batch_size > 1:
            return self._feed_batches(lane, now)
        return self._feed_singly(lane, now)

    def _feed_singly(self, lane: Lane, now: float) -> bool:
        window = lane.endpoint.window
        holders = _with_room(lane, window)
        queue = lane.queue
        has_fed = False
        while queue and holders:
            pending = queue.popleft()
            if _is_over(pending, now):
                continue
            holder = min(holders, key=_load) if len(holders) > 1 else holders[0]
            pending.holder = holder
            feed = holder.feed
            feed.put(1, alone=window == 1)
            feed.outbox.append(pending)
            self._touched[feed] = None
            has_fed = True
            if feed.load >= window:
                holders.remove(holder)
        if queue and window == 1:
            lane.reserve()
        return has_fed

    def _feed_batches(self, lane: Lane, now: float) -> bool:
        size = lane.endpoint.settings.batch_size
        is_slow = lane.endpoint.window == 1
        has_fed = False
        while lane.queue and self._is_batch_due(lane, now):
            # A second batch may wait behind the first, or the worker stood idle between the two.
            holders = _with_room(lane, 1 if is_slow else max(WINDOW - size, size) + 1)
            if not holders:
                if is_slow:
                    lane.reserve()
                break
            batch = _next_batch(lane, size, now)
            if not batch:
                continue
            holder = min(holders, key=_load)
            for pending in batch:
                pending.holder = holder
            holder.feed.put(len(batch), alone=is_slow)
            holder.feed.batches.append(batch)
            self._touched[holder.feed] = None
            has_fed = True
        return has_fed

    def _is_batch_due(self, lane: Lane, now: float) -> bool:
        settings = lane.endpoint.settings
        if len(lane.queue) >= settings.batch_size:
            return True
        left = settings.batch_delay_seconds - (now - lane.queue[0].arrived)
        if left <= _TIMER_SECONDS:
            return True
        if lane.timer is None:
            lane.timer = asyncio.get_running_loop().call_later(left, self._look_again, lane)
        return False

    def _look_again(self, lane: Lane) -> None:
        lane.timer = None
        self.wake()

    def _send(self, feed: Feed, now: float) -> None:
        outbox, feed.outbox = feed.outbox, []
        if outbox:
            self._send_calls(feed, outbox, now, together=False)
        while feed.batches:
            self._send_calls(feed, feed.batches.pop(0), now, together=True)
        cancels, feed.cancels = feed.cancels, []
        if cancels:
            feed.link.send(Cancel(cancels))

    def _send_calls(self, feed: Feed, calls: list[Pending], now: float, *, together: bool) -> None:
        # The worker may be lost within send(): what it was given must stand in its books before.
        messages = []
        for pending in calls:
            self._last_id = pending.id = call_id = self._last_id + 1
            pending.sent_at = now
            feed.sent[call_id] = pending
            call = pending.call
            generation = pending.holder.generation.number if pending.holder else 0
            endpoint = pending.lane.endpoint
            limit = endpoint.settings.deadline_seconds
            messages.append(Call(call_id, endpoint.name, generation, call.document, call.tensors, call.outputs, limit))
        self._send_messages(feed, messages, together=together)

    def _send_messages(self, feed: Feed, messages: list[Call], *, together: bool) -> None:
        try:
            feed.link.send(Calls(messages, together))
        except ProtocolError as error:
            if len(messages) > 1:
                middle = len(messages) // 2
                self._send_messages(feed, messages[:middle], together=together)
                self._send_messages(feed, messages[middle:], together=together)
                return
            pending = feed.take(messages[0].id)
            if pending is not None:
                pending.fail(InvalidInput(f"The input cannot be handed to a worker: {error}"))
                self.wake()


def _with_room(lane: Lane, window: int) -> list[Holder]:
    """Holders that may be given one more call, or batch."""
    if lane.target is None:
        return []
    return [
        holder
        for holder in lane.target.holders
        if holder.feed.load < window and not holder.feed.is_busy_alone and holder.feed.reserved_for is None
    ]


def _next_batch(lane: Lane, size: int, now: float) -> list[Pending]:
    batch: list[Pending] = []
    while lane.queue and len(batch) < size:
        pending = lane.queue.popleft()
        if not _is_over(pending, now):
            batch.append(pending)
    return batch


def _is_over(pending: Pending, now: float) -> bool:
    """Whether nobody waits for it any more; its end may come in this tick."""
    if pending.future.done():
        return True
    if pending.deadline <= now:
        pending.fail(deadline_exceeded(pending))
        return True
    return False
