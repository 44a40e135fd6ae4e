"""Which consumers live: what each said of itself, forgotten when it is silent."""

import time
from collections.abc import Callable
from datetime import timedelta

from contracts.queue import QUEUE_GPU
from contracts.tasks import ConsumerPresence

FRESH = timedelta(seconds=30)


class Presence:
    """Living consumers, in memory: after a restart they report again within seconds, and count as living until then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seen: dict[str, tuple[ConsumerPresence, float]] = {}

    def report(self, consumer: str, presence: ConsumerPresence) -> None:
        """A consumer says that it lives."""
        self._seen[consumer] = (presence, self._clock())

    def may_live(self, consumer: str) -> bool:
        """Whether the consumer reported lately, or could not yet because this process is young."""
        oldest = self._clock() - FRESH.total_seconds()
        return self._began > oldest or (consumer in self._seen and self._seen[consumer][1] > oldest)

    def living(self) -> dict[str, ConsumerPresence]:
        """The consumers that reported lately."""
        oldest = self._clock() - FRESH.total_seconds()
        self._seen = {name: entry for name, entry in self._seen.items() if entry[1] > oldest}
        return {name: presence for name, (presence, _) in self._seen.items()}

    def who_could_run(self, queue: str) -> set[str]:
        """The living consumers that serve the queue by their hardware."""
        return {name for name, presence in self.living().items() if _serves(presence, queue)}

    def trouble_of(self, consumers: set[str]) -> str | None:
        """What keeps all of these consumers from work, in the words of one; None where any of them is fit."""
        said = [presence.trouble for name, presence in self.living().items() if name in consumers]
        return said[0] if all(said) else None


def _serves(presence: ConsumerPresence, queue: str) -> bool:
    return presence.has_gpu if queue == QUEUE_GPU else presence.takes_cpu
