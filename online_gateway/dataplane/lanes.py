"""One endpoint's calls that wait, its generations, and who holds them."""

import asyncio
from collections import deque
from dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.inference import EndpointNotReady, UnknownEndpoint
from online_gateway.dataplane.links import FAST_SECONDS, WINDOW, Feed, Holder
from online_gateway.dataplane.pending import Pending
from online_gateway.dataplane.statistics import EndpointRecord

RETURN_SECONDS = 3.0
"""When the last holder of the served generation is gone, calls wait so long for another."""
_MEAN_SHARE = 0.1
"""How much one inference time counts in the mean that decides between slow and fast."""


@dataclass(frozen=True)
class LaneSettings:
    """How an endpoint's calls are queued."""

    batch_size: int
    """The most calls predicted together; 1: each by itself."""
    batch_delay_seconds: float
    """How long a call waits for others to join it."""
    queue_limit: int
    deadline_seconds: float
    retries_begun: bool
    """Whether a call whose worker died is given to another, once."""


class HeldGeneration:
    """One generation, and the workers that have it in memory."""

    __slots__ = ("empty_since", "holders", "label", "number", "pinned")

    def __init__(self, endpoint: "EndpointLanes", number: int, now: float) -> None:
        self.number = number
        self.label = ""
        self.holders: deque[Holder] = deque()
        self.empty_since = now
        """When it came to be without a holder, or lost its last one."""
        self.pinned = Lane(endpoint, self)
        """Calls that want this generation and no other."""


class Lane:
    """Calls that wait for holders of one generation, the oldest first."""

    __slots__ = ("endpoint", "queue", "reserved", "target", "timer")

    def __init__(self, endpoint: "EndpointLanes", target: HeldGeneration | None) -> None:
        self.endpoint = endpoint
        self.target = target
        self.queue: deque[Pending] = deque()
        self.reserved: Feed | None = None
        """The worker that takes nothing else until it has taken one of these."""
        self.timer: asyncio.TimerHandle | None = None
        """Ends the wait for a full batch."""

    def refusal(self, now: float) -> PlatformError | None:
        """Why no call can wait here; None where one can."""
        endpoint, target = self.endpoint, self.target
        if endpoint.is_closed:
            return UnknownEndpoint(f"The endpoint {endpoint.name!r} has been removed.")
        if endpoint.served is None or target is None:
            return EndpointNotReady(f"The endpoint {endpoint.name!r} has no model to serve now.")
        if target.holders:
            return None
        if target is not endpoint.served:
            return endpoint.unknown_generation(target.number)
        if now < target.empty_since + RETURN_SECONDS:
            return None
        return EndpointNotReady(f"No worker of the endpoint {endpoint.name!r} is there now.")

    def check(self, now: float) -> None:
        """Refuse a call that cannot wait here.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady
        """
        if self.target is None or not self.target.holders or self.endpoint.is_closed:
            refusal = self.refusal(now)
            if refusal is not None:
                raise refusal

    def release(self) -> None:
        """Give up the worker that is kept free for it, if there is one."""
        if self.reserved is not None:
            self.reserved.reserved_for = None
            self.reserved = None

    def reserve(self) -> None:
        """Keep the least loaded worker free for it, where fast calls of others would else never leave one idle."""
        if self.target is None:
            return
        able = [holder.feed for holder in self.target.holders if holder.feed.load and not holder.feed.is_busy_alone]
        able = [feed for feed in able if feed.reserved_for is None]
        if able:
            self.reserved = min(able, key=lambda feed: feed.load)
            self.reserved.reserved_for = self

    def stop_timer(self) -> None:
        """Wait for no batch."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class EndpointLanes:
    """One endpoint: the lane of the calls that any served generation may answer, and a lane for each generation."""

    def __init__(self, name: str, settings: LaneSettings) -> None:
        self.name = name
        self.settings = settings
        self.is_closed = False
        self.generations: dict[int, HeldGeneration] = {}
        self.newest_served = 0
        self.main = Lane(self, None)
        self.lanes: list[Lane] = [self.main]
        """The main lane, and those for one generation that were ever used."""
        self.mean_inference_seconds: float | None = None
        """Of the served generation's last calls; None: not known."""
        self.record = EndpointRecord()

    @property
    def served(self) -> HeldGeneration | None:
        """The generation that new calls go to."""
        return self.main.target

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        lanes = self.lanes
        return len(lanes[0].queue) if len(lanes) == 1 else sum(len(lane.queue) for lane in lanes)

    @property
    def window(self) -> int:
        """The load up to which a worker is given single calls."""
        mean = self.mean_inference_seconds
        return WINDOW if mean is not None and mean < FAST_SECONDS else 1

    def saw_inference(self, seconds: float) -> None:
        """Take one inference time into the mean."""
        mean = self.mean_inference_seconds
        self.mean_inference_seconds = seconds if mean is None else mean + (seconds - mean) * _MEAN_SHARE

    def generation(self, number: int, now: float) -> HeldGeneration:
        """The generation of this number, from now on if it is new."""
        found = self.generations.get(number)
        if found is None:
            found = self.generations[number] = HeldGeneration(self, number, now)
        return found

    def serve(self, generation: HeldGeneration | None, label: str) -> None:
        """Send new calls, and those that wait for no particular generation, there."""
        before = self.main.target
        self.main.target = generation
        if generation is None:
            return
        generation.label = label
        self.newest_served = max(self.newest_served, generation.number)
        if generation is not before:
            self.mean_inference_seconds = None

    def lane_of(self, number: int | None) -> Lane:
        """The lane for a call that wants this generation; None: any.

        Raises
        ------
        UnknownEndpoint
            No worker holds it, or it was never served.
        """
        if number is None or self.served is None:
            return self.main
        held = self.generations.get(number)
        if held is None or number > self.newest_served:
            raise self.unknown_generation(number)
        if held.pinned not in self.lanes:
            self.lanes.append(held.pinned)
        return held.pinned

    def unknown_generation(self, number: int) -> UnknownEndpoint:
        """The error that names those there are."""
        there = [str(n) for n, held in sorted(self.generations.items()) if held.holders and n <= self.newest_served]
        known = f"there are: {', '.join(there)}" if there else "there is none now"
        return UnknownEndpoint(f"The endpoint {self.name!r} has no generation {number}; {known}.")

    def drop_unused(self) -> None:
        """Forget generations that are neither served nor held nor waited for."""
        for held in tuple(self.generations.values()):
            if held is self.served or held.holders or held.pinned.queue:
                continue
            del self.generations[held.number]
            if held.pinned in self.lanes:
                self.lanes.remove(held.pinned)
