"""What is counted of calls: by endpoint, and by worker."""

import math
from bisect import bisect_left
from dataclasses import dataclass

BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Upper bounds of the histograms' buckets in seconds, each within its bucket; a last bucket takes what is longer."""
MOST_RETRY_SECONDS = 60
_RATE_SECONDS = 5.0
"""Over how much of the time in which calls waited the rate of answers is averaged."""


@dataclass(frozen=True)
class Histogram:
    """How many durations fell into each of BUCKETS, and into the one above."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total_seconds: float = 0.0

    @property
    def count(self) -> int:
        """Durations counted."""
        return sum(self.counts)

    @property
    def mean_seconds(self) -> float:
        """Their mean; 0 when there is none."""
        return self.total_seconds / self.count if self.total_seconds else 0.0


@dataclass(frozen=True)
class EndpointStatistics:
    """One endpoint's calls since it was opened."""

    queue_now: int = 0
    """Calls that wait for a worker."""
    queue_max: int = 0
    handled: int = 0
    """Calls that were answered with a result,"""
    failed: int = 0
    """that ended with an error after they had been taken,"""
    refused: int = 0
    """that were not taken: queue full, no worker,"""
    cancelled: int = 0
    """and whose client went away."""
    handling_mean_seconds: float = 0.0
    """From arrival to answer."""
    inference_mean_seconds: float = 0.0
    """In the endpoint's code."""
    handling: Histogram = Histogram()
    inference: Histogram = Histogram()


@dataclass(frozen=True)
class LinkStatistics:
    """One worker's calls since it dialled in."""

    handled: int = 0
    handling_mean_seconds: float = 0.0
    """From sending the call to its answer."""
    inference_mean_seconds: float = 0.0


class Durations:
    """Counts durations."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._total += seconds

    def histogram(self) -> Histogram:
        """The counts as they are now."""
        return Histogram(tuple(self._counts), self._total)


class EndpointRecord:
    """Counts one endpoint's calls."""

    __slots__ = (
        "_busy_count",
        "_busy_seconds",
        "_handling",
        "_inference",
        "_sampled_at",
        "_sampled_count",
        "cancelled",
        "failed",
        "handled",
        "queue_max",
        "refused",
    )

    def __init__(self) -> None:
        self.handled = 0
        self.failed = 0
        self.refused = 0
        self.cancelled = 0
        self.queue_max = 0
        self._handling = Durations()
        self._inference = Durations()
        self._busy_count = 0.0
        self._busy_seconds = 0.0
        self._sampled_at: float | None = None
        self._sampled_count = 0

    def answered(self, handling_seconds: float, inference_seconds: float) -> None:
        """Count a result."""
        self.handled += 1
        self._handling.add(handling_seconds)
        self._inference.add(inference_seconds)

    def sample_rate(self, now: float, waiting: int) -> None:
        """Look at how fast calls end while some wait; to be called now and then."""
        self.queue_max = max(self.queue_max, waiting)
        if not waiting:
            self._sampled_at = None
            return
        ended = self.handled + self.failed
        if self._sampled_at is not None:
            passed = now - self._sampled_at
            kept = max(0.0, 1.0 - passed / _RATE_SECONDS)
            self._busy_count = self._busy_count * kept + ended - self._sampled_count
            self._busy_seconds = self._busy_seconds * kept + passed
        self._sampled_at, self._sampled_count = now, ended

    def retry_after(self, waiting: int) -> int:
        """Whole seconds, at least 1, until so many calls have probably had their turn; 1 where nothing is known."""
        if not self._busy_count:
            return 1
        seconds = math.ceil(waiting * self._busy_seconds / self._busy_count)
        return min(MOST_RETRY_SECONDS, max(1, seconds))

    def statistics(self, queue_now: int) -> EndpointStatistics:
        """All that was counted."""
        handling, inference = self._handling.histogram(), self._inference.histogram()
        return EndpointStatistics(
            queue_now=queue_now,
            queue_max=max(self.queue_max, queue_now),
            handled=self.handled,
            failed=self.failed,
            refused=self.refused,
            cancelled=self.cancelled,
            handling_mean_seconds=handling.mean_seconds,
            inference_mean_seconds=inference.mean_seconds,
            handling=handling,
            inference=inference,
        )


class LinkRecord:
    """Counts one worker's calls."""

    __slots__ = ("_handled", "_handling_seconds", "_inference_seconds")

    def __init__(self) -> None:
        self._handled = 0
        self._handling_seconds = 0.0
        self._inference_seconds = 0.0

    def answered(self, handling_seconds: float, inference_seconds: float) -> None:
        """Count a result."""
        self._handled += 1
        self._handling_seconds += handling_seconds
        self._inference_seconds += inference_seconds

    def statistics(self) -> LinkStatistics:
        """All that was counted."""
        count = self._handled or 1
        return LinkStatistics(self._handled, self._handling_seconds / count, self._inference_seconds / count)
