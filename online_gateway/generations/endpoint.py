"""The generations of one endpoint: the one that is served, the next on its way, the one before on its way out.

    install ──► reserve a number ──► Load on every member ──► all acknowledged? ──► accept on disk ──► serve it
                                                                  │ no                │ fails             │
                                                                  ▼                   ▼                   ▼
                                                     Unload it everywhere; the one before serves    drain and Unload
                                                                                                     the one before

A worker becomes a holder of a generation, which may then answer calls, only when it has acknowledged it and it is
accepted. Whoever joins loads the accepted generation, and tries the one on its way too.
"""

import asyncio
from collections.abc import Iterable

from contracts.errors import PlatformError, Unavailable
from contracts.inference import EndpointNotReady, SwapFailed, SwapReport, UnknownEndpoint
from contracts.worker_protocol import Loaded, Unload
from online_gateway.generations.generation import (
    Generation,
    Recipe,
    first_generation,
    new_generation,
    restored_generation,
)
from online_gateway.generations.loading import LoadOutcome, Swap, swap_report
from online_gateway.generations.surroundings import NewVersion, Surroundings
from online_gateway.generations.tending import FIRST_RETRY, LAST_RETRY, Tending
from online_gateway.repository.repository import Accepted, Reservation
from online_gateway.workers.port import WorkerConnection
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)


class EndpointGenerations:
    """One endpoint. What changes the served generation happens one at a time, in ``turn``."""

    def __init__(self, recipe: Recipe, around: Surroundings) -> None:
        self.recipe = recipe
        self.current: Generation | None = None
        """The accepted one."""
        self.serving: Generation | None = None
        """The one that calls go to: None, ``current``, or the one before while another gateway's is followed."""
        self.held: dict[int, dict[WorkerConnection, Loaded]] = {}
        """Who may answer calls, by generation."""
        self.is_served = asyncio.Event()
        self.is_unloaded = False
        self.is_closed = False
        self.closed = asyncio.Event()
        self._around = around
        self._turn = asyncio.Lock()
        self._swap: Swap | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._is_changed_elsewhere = False
        self._tending = Tending(around.loader, around.places, around.background, around.swap_time, self._tended)

    @property
    def name(self) -> str:
        """The endpoint."""
        return self.recipe.endpoint

    @property
    def trouble(self) -> str:
        """What keeps a worker from holding the accepted generation; '' where nothing does."""
        return self._tending.trouble

    async def begin(self) -> None:
        """Serve what was accepted, else what the recipe alone describes, as soon as a worker has loaded it.

        Raises
        ------
        InvalidRequest
            The file that the recipe names cannot be read.
        """
        async with self._turn:
            self.current = await self._accepted() or await first_generation(self.recipe)
            self._tend_members()

    async def close(self) -> None:
        """Have every worker let go of everything; a swap on its way fails."""
        self.is_closed = True
        if self._following is not None:
            self._following.cancel()
        if self._swap is not None:
            self._swap.give_up("The endpoint was closed meanwhile.")
        async with self._turn:
            await self._let_go()

    async def unload(self) -> None:
        """Have every worker let go of everything, until :meth:`load`."""
        async with self._turn:
            self._check_open()
            self.is_unloaded = True
            await self._let_go()

    async def load(self) -> None:
        """Serve the accepted generation (again); see :meth:`Generations.load`."""
        async with self._turn:
            self._check_open()
            if self.current is None:
                raise EndpointNotReady(f"Nothing is installed for {self.name!r} yet.")
            self.is_unloaded = False
            if self.is_served.is_set():
                return
            self._tending.end_all()
            try:
                outcomes = await self._have_accepted_loaded(self.current)
            finally:
                self._tend_members()
            if not outcomes:
                raise EndpointNotReady(f"No worker of {self.recipe.pool!r} is there; {self.name!r} waits for one.")
            if not any(one.is_ok for one in outcomes):
                raise SwapFailed(swap_report(self.current, outcomes))

    # A new generation

    async def install(self, new: NewVersion) -> SwapReport:
        """Have every worker load it, then serve it; see :meth:`Generations.install`."""
        async with self._turn:
            self._check_open()
            await self._retired()
            if not self._members():
                raise EndpointNotReady(f"No worker of {self.recipe.pool!r} is there to try what is installed.")
            above = 0 if self.current is None else self.current.number
            reservation = await self._around.repository.reserve(self.name, new.staged, above=above)
            try:
                generation, outcomes = await self._prove(new, reservation)
            except BaseException:
                await self._withdraw(reservation)
                raise
            self._flip(generation, outcomes)
            log.info("generation_accepted", endpoint=self.name, generation=generation.number, label=generation.label)
            return swap_report(generation, outcomes)

    async def _prove(self, new: NewVersion, reservation: Reservation) -> tuple[Generation, list[LoadOutcome]]:
        """Have all workers acknowledge it, and accept it on disk."""
        size, sha256 = (None, None) if new.staged is None else (new.staged.size, new.staged.sha256)
        generation = await new_generation(
            self.recipe, reservation.number, new.label, content=reservation.content, content_bytes=size, sha256=sha256
        )
        outcomes = await self._try_everywhere(generation)
        report = swap_report(generation, outcomes)
        if not report.accepted:
            failed = [one.worker_id for one in report.workers if not one.ok]
            log.warning("generation_refused", endpoint=self.name, workers=failed, reason=report.message)
            raise SwapFailed(report)
        record = Accepted(generation.number, generation.digest, new.label, generation.engine, size, sha256)
        await self._around.repository.accept(reservation, record, new.entry)
        return generation, outcomes

    async def _withdraw(self, reservation: Reservation) -> None:
        self._unload(reservation.number)
        try:
            await self._around.repository.discard(reservation)
        except PlatformError as error:
            log.warning("generation_not_discarded", endpoint=self.name, reason=error.message)

    async def _try_everywhere(self, generation: Generation) -> list[LoadOutcome]:
        """Have all members load it, and whoever joins until the last of them has answered."""
        swap = self._swap = Swap(self._around.loader, generation, Deadline(self._around.swap_time))
        try:
            for link in self._members():
                swap.ask(link)
            return await swap.outcomes()
        finally:
            self._swap = None
            swap.cancel()

    def _flip(self, generation: Generation, outcomes: Iterable[LoadOutcome]) -> None:
        """Serve it, in one step of the event loop; the ones before are drained in the background."""
        before = self._numbers()
        self._tending.end_all()
        self.current = generation
        self.is_unloaded = False
        for one in outcomes:
            if one.loaded is not None and one.is_ok and one.link.takes_calls:
                self._hold(one.link, generation, one.loaded)
        self._serve(generation)
        self._tend_members()
        self._retiring = self._around.background.spawn(self._retire(before))

    # What another gateway accepted

    def follow(self) -> None:
        """Another gateway may have accepted something: have it served here too, in the background."""
        self._is_changed_elsewhere = True
        if self._following is None or self._following.done():
            self._following = self._around.background.spawn(self._follow())

    async def _follow(self) -> None:
        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while self._is_changed_elsewhere and not self.is_closed:
            async with self._turn:
                self._is_changed_elsewhere = False
                if not await self._has_followed():  # meanwhile it may have changed again
                    self._is_changed_elsewhere = True
            if self._is_changed_elsewhere:
                await asyncio.sleep(backoff.pause().total_seconds())

    async def _has_followed(self) -> bool:
        try:
            accepted = await self._accepted()
        except Unavailable as error:
            log.warning("generation_not_followed", endpoint=self.name, reason=error.message)
            return False
        there = None if self.current is None else self.current.number
        return accepted is None or accepted.number == there or await self._take_over(accepted)

    async def _take_over(self, accepted: Generation) -> bool:
        """Serve it where a worker can, else go on with the one before; whether it is served, or will be."""
        if self.serving is None or not self._members():
            before = self._numbers()
            self._stop_serving()
            self.current = accepted
            self._tend_members()
            self._retiring = self._around.background.spawn(self._retire(before))
            return True
        await self._retired()
        outcomes = await self._try_everywhere(accepted)
        if any(one.is_ok and one.link.takes_calls for one in outcomes):
            self._flip(accepted, outcomes)
            log.info("generation_followed", endpoint=self.name, generation=accepted.number)
            return True
        self._unload(accepted.number)
        reason = swap_report(accepted, outcomes).message
        log.warning("generation_not_followed", endpoint=self.name, generation=accepted.number, reason=reason)
        return False

    # Workers

    def joined(self, link: WorkerConnection) -> None:
        """Give it the accepted generation, and the one on its way."""
        self._tend(link)
        if self._swap is not None:
            self._swap.ask(link)

    def left(self, link: WorkerConnection) -> None:
        """It holds nothing any more that calls can be sent to."""
        self._tending.end(link)
        for holders in self.held.values():
            holders.pop(link, None)
        self._mark()

    def forgotten(self, link: WorkerConnection, generation: int) -> None:
        """It has lost what it had acknowledged: have it loaded again."""
        self.held.get(generation, {}).pop(link, None)
        self._mark()
        self._tend(link)

    def _tend_members(self) -> None:
        for link in self._members():
            self._tend(link)

    def _tend(self, link: WorkerConnection) -> None:
        if self.current is None or self.is_unloaded or self.is_closed:
            return
        if link not in self.held.get(self.current.number, {}):
            self._tending.begin(link, self.current)

    def _tended(self, link: WorkerConnection, generation: Generation, loaded: Loaded) -> None:
        self._hold(link, generation, loaded)
        self._serve(generation)

    async def _have_accepted_loaded(self, generation: Generation) -> list[LoadOutcome]:
        """Have the members load it; each serves it as soon as it has."""

        async def load(link: WorkerConnection) -> LoadOutcome:
            outcome = await self._around.loader.load(link, generation, Deadline(self._around.swap_time))
            if outcome.loaded is not None and outcome.is_ok and link.takes_calls:
                self._tended(link, generation, outcome.loaded)
            return outcome

        return list(await asyncio.gather(*map(load, self._members())))

    # Steps of the above

    def _hold(self, link: WorkerConnection, generation: Generation, loaded: Loaded) -> None:
        self.held.setdefault(generation.number, {})[link] = loaded
        self._around.data_plane.add_holder(link, self.name, generation.number, loaded.version)

    def _serve(self, generation: Generation) -> None:
        if self.serving is not generation:
            self.serving = generation
            self._around.data_plane.serve(self.name, generation.number, generation.label)
        self._mark()

    def _stop_serving(self) -> None:
        self._tending.end_all()
        self.serving = None
        self._around.data_plane.serve(self.name, None)
        self._mark()

    async def _let_go(self) -> None:
        await self._retired()
        before = self._numbers()
        self._stop_serving()
        await self._retire(before)

    async def _retire(self, numbers: set[int]) -> None:
        """Let calls end, then have the workers let go."""
        for number in numbers:
            for link in self.held.get(number, ()):
                self._around.data_plane.remove_holder(link, self.name, number)
        deadline = Deadline(self._around.drain_time)
        for number in numbers:
            if not await self._around.data_plane.drained(self.name, number, deadline):
                log.warning("generation_not_drained", endpoint=self.name, generation=number)
            self._unload(number)
        try:
            await self._around.repository.prune(self.name)
        except PlatformError as error:
            log.warning("generations_not_pruned", endpoint=self.name, reason=error.message)

    async def _retired(self) -> None:
        """Wait for the one before: no worker has more than two in memory."""
        if self._retiring is not None:
            await asyncio.wait([self._retiring])
            self._retiring = None

    def _unload(self, number: int) -> None:
        self.held.pop(number, None)
        for link in self._members():
            link.send(Unload(self.name, number))

    def _numbers(self) -> set[int]:
        """What workers may have in memory, also those that have not acknowledged it."""
        return {*self.held, *(() if self.current is None else (self.current.number,))}

    def _mark(self) -> None:
        is_held = self.serving is not None and self.held.get(self.serving.number)
        self.is_served.set() if is_held else self.is_served.clear()

    def _members(self) -> list[WorkerConnection]:
        return self._around.pools.members(self.recipe.pool)

    async def _accepted(self) -> Generation | None:
        there = await self._around.repository.current(self.name)
        return None if there is None else await restored_generation(self.recipe, *there)

    def _check_open(self) -> None:
        if self.is_closed:
            raise UnknownEndpoint(f"The endpoint {self.name!r} was closed meanwhile.")
