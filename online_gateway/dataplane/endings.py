"""How calls end, each exactly once, or wait again."""

import asyncio
from collections.abc import Callable, Iterable

from contracts.errors import PlatformError
from contracts.inference import InferResult, InvalidInput, ModelFailed, WorkerLost
from contracts.worker_protocol import Failure, Result
from online_gateway.dataplane.dispatch import Dispatcher, deadline_exceeded
from online_gateway.dataplane.lanes import EndpointLanes
from online_gateway.dataplane.pending import Pending

WATCHED_SECONDS = 0.1
"""A call that has taken so long is worth a task that watches its client."""


def error_of(failure: Failure) -> PlatformError:
    """What a worker's failure means to the caller."""
    kind = InvalidInput if failure.kind == "invalid_input" else ModelFailed
    return kind(failure.message, failure.trace)


class Endings:
    """Ends calls, and tells those who still have them in hand."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock

    def answer(self, pending: Pending, result: Result, now: float) -> None:
        """End a call with its result."""
        holder = pending.holder
        if holder is None or not pending.close():
            return
        seconds = result.inference_seconds
        generation, feed, endpoint = holder.generation, holder.feed, pending.lane.endpoint
        endpoint.record.answered(now - pending.arrived, seconds)
        feed.record.answered(now - pending.sent_at, seconds)
        if generation is endpoint.main.target:
            endpoint.saw_inference(seconds)
        # The client may have gone away in this very tick.
        if not pending.future.done():
            worker_id, version = feed.link.worker_id, holder.version
            pending.future.set_result(
                InferResult(
                    generation.number, generation.label, worker_id, version, result.document, result.tensors, seconds
                )
            )

    def withdraw(self, pending: Pending) -> None:
        """Nobody awaits the call any more."""
        if pending.close():
            pending.lane.endpoint.record.cancelled += 1
            self._leave(pending)

    def worker_lost(self, pending: Pending, reason: str) -> bool:
        """The worker that had begun it is gone; whether it may be tried again."""
        endpoint, holder = pending.lane.endpoint, pending.holder
        if endpoint.settings.retries_begun and not pending.was_lost:
            pending.was_lost = True
            return True
        worker = holder.feed.link.worker_id if holder is not None else ""
        pending.fail(WorkerLost(f"The worker {worker} was lost with a call to {endpoint.name!r}: {reason}"))
        return False

    def return_to_lanes(self, calls: list[Pending]) -> None:
        """Let calls that a worker was given wait again, unless nobody will come for them."""
        now = self._clock()
        able = []
        for pending in calls:
            pending.holder = None
            try:
                pending.lane = pending.lane.endpoint.lane_of(pending.call.generation)
                pending.lane.check(now)
            except PlatformError as refusal:
                pending.fail(refusal)
            else:
                able.append(pending)
        self._dispatcher.give_back(able)

    def refuse_waiting(self, endpoint: EndpointLanes, now: float) -> None:
        """Fail the calls that wait for what will not come."""
        for lane in endpoint.lanes:
            while lane.queue and (refusal := lane.refusal(now)) is not None:
                lane.queue.popleft().fail(refusal)
        self._dispatcher.wake()

    def look_over(self, calls: Iterable[Pending], now: float) -> None:
        """End those that are past their deadlines, and have the old ones watched."""
        late = []
        for pending in calls:
            if pending.is_done:
                continue
            if pending.deadline <= now:
                late.append(pending)
            elif pending.watcher is None and pending.gone is not None and now - pending.arrived >= WATCHED_SECONDS:
                pending.watcher = asyncio.get_running_loop().create_task(pending.watch())
        for pending in late:
            if pending.holder is not None:
                # Its worker had it for less than that if it waited for long, or was given little time by its caller.
                pending.holder.feed.is_due_at(pending.sent_at + pending.lane.endpoint.settings.deadline_seconds)
            pending.fail(deadline_exceeded(pending))
            self._leave(pending)

    def _leave(self, pending: Pending) -> None:
        """Take a call that has ended out of its lane, or tell the worker that has it."""
        holder = pending.holder
        if holder is None:
            # It is not there if its turn came after its client had gone, in the same tick.
            if pending in pending.lane.queue:
                pending.lane.queue.remove(pending)
        elif pending.id in holder.feed.sent:
            self._dispatcher.cancel(pending, holder.feed)
        self._dispatcher.wake()
