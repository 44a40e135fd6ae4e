"""Having each worker load what it should hold, again and again until it does."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from weakref import WeakKeyDictionary

from contracts.worker_protocol import Loaded
from online_gateway.background import Background
from online_gateway.generations.generation import Generation
from online_gateway.generations.loading import Loader
from online_gateway.workers.port import WorkerConnection
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

FIRST_RETRY = timedelta(seconds=0.5)
LAST_RETRY = timedelta(seconds=30)
_LOADS_PER_WORKER = 2


class Places:
    """A worker that joins a pool of many endpoints loads two at a time; the others' time does not run meanwhile."""

    def __init__(self) -> None:
        self._places: WeakKeyDictionary[WorkerConnection, asyncio.Semaphore] = WeakKeyDictionary()

    def of(self, link: WorkerConnection) -> asyncio.Semaphore:
        """To be held while the worker loads."""
        return self._places.setdefault(link, asyncio.Semaphore(_LOADS_PER_WORKER))


class Tending:
    """The workers of one endpoint that do not hold its accepted generation yet."""

    def __init__(
        self,
        loader: Loader,
        places: Places,
        background: Background,
        swap_time: timedelta,
        on_loaded: Callable[[WorkerConnection, Generation, Loaded], None],
    ) -> None:
        self._loader = loader
        self._places = places
        self._background = background
        self._swap_time = swap_time
        self._on_loaded = on_loaded
        self._tasks: dict[WorkerConnection, asyncio.Task[None]] = {}
        self._troubles: dict[WorkerConnection, str] = {}

    @property
    def trouble(self) -> str:
        """What keeps a worker from loading, in a sentence; '' where nothing does."""
        return next(iter(self._troubles.values()), "")

    def begin(self, link: WorkerConnection, generation: Generation) -> None:
        """Have it loaded, unless that is being done."""
        if link not in self._tasks:
            self._tasks[link] = self._background.spawn(self._tend(link, generation))

    def end(self, link: WorkerConnection) -> None:
        """Leave the worker alone: it is gone, or holds it."""
        self._troubles.pop(link, None)
        task = self._tasks.pop(link, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def end_all(self) -> None:
        """Another generation is wanted, or none."""
        for link in list(self._tasks):
            self.end(link)

    async def _tend(self, link: WorkerConnection, generation: Generation) -> None:
        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while True:
            async with self._places.of(link):
                outcome = await self._loader.load(link, generation, Deadline(self._swap_time))
            if outcome.loaded is not None and outcome.is_ok:
                self.end(link)
                self._on_loaded(link, generation, outcome.loaded)
                return
            self._troubles[link] = (
                f"The worker {link.worker_id} cannot load generation {generation.number}: {outcome.message}"
            )
            log.warning(
                "generation_not_loaded",
                endpoint=generation.endpoint,
                generation=generation.number,
                worker_id=link.worker_id,
                reason=outcome.message,
            )
            await asyncio.sleep(backoff.pause().total_seconds())
