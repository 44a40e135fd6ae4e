"""Which generation of each endpoint is served; see :mod:`online_gateway.generations.endpoint` for how it changes."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from contracts.inference import SwapReport, TensorSpec, UnknownEndpoint
from contracts.worker_protocol import Loaded, NeedContent
from online_gateway.background import Background
from online_gateway.dataplane.plane import DataPlane, Link
from online_gateway.generations.endpoint import EndpointGenerations
from online_gateway.generations.generation import Recipe
from online_gateway.generations.loading import Loader
from online_gateway.generations.surroundings import NewVersion, Surroundings
from online_gateway.generations.tending import Places
from online_gateway.repository.repository import Repository, StagedContent
from online_gateway.workers.pools import Pools
from online_gateway.workers.port import WorkerConnection
from service_kit.deadline import Deadline

__all__ = ["Generations", "GenerationsState", "Recipe"]


@dataclass(frozen=True)
class GenerationsState:
    """One endpoint's generations as they are now."""

    accepted: int | None
    """The newest accepted one; None: none yet."""
    serving: int | None
    """The one that calls go to; None before a worker has acknowledged it, and while it is unloaded."""
    generations: list[int]
    """Those that calls may name."""
    label: str
    version: str | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_unloaded: bool
    reason: str
    """What keeps workers from holding the accepted generation, in a sentence; '' where nothing does."""
    holders: dict[str, int] = field(default_factory=dict)
    """The newest generation that each worker holds, by worker id."""


class Generations:
    """The generations of all endpoints; a ``PoolListener``. Every method belongs to the event loop's thread.

    ``swap_seconds`` bounds how long a worker loads; calls in flight on the generation before may take
    ``drain_seconds``.
    """

    def __init__(
        self,
        data_plane: DataPlane,
        pools: Pools,
        repository: Repository,
        *,
        swap_seconds: float = 300.0,
        drain_seconds: float = 30.0,
    ) -> None:
        self._loader = Loader()
        self._background = Background()
        self._around = Surroundings(
            data_plane,
            pools,
            repository,
            self._loader,
            Places(),
            self._background,
            swap_time=timedelta(seconds=swap_seconds),
            drain_time=timedelta(seconds=drain_seconds),
        )
        self._endpoints: dict[str, EndpointGenerations] = {}
        pools.subscribe(self)
        data_plane.subscribe(self._forgotten)

    async def open(self, recipe: Recipe) -> None:
        """Serve an endpoint: its accepted generation, or without one the first, which the recipe alone describes.

        Call it after ``DataPlane.open_endpoint``. Serving begins when the first worker of the pool has loaded it.
        Repeated with another recipe, it takes that for the next generations.

        Raises
        ------
        InvalidRequest
            The file that the recipe names cannot be read.
        """
        while (known := self._endpoints.get(recipe.endpoint)) is not None:
            if not known.is_closed:
                known.recipe = recipe
                return
            await known.closed.wait()  # at most the time for a drain
        endpoint = self._endpoints[recipe.endpoint] = EndpointGenerations(recipe, self._around)
        try:
            await endpoint.begin()
        except BaseException:
            del self._endpoints[recipe.endpoint]
            raise

    async def close(self, endpoint: str) -> None:
        """Stop serving it and let every worker unload it; files stay. Call it before ``DataPlane.close_endpoint``."""
        one = self._endpoints.get(endpoint)
        if one is not None and not one.is_closed:
            await asyncio.shield(self._background.spawn(self._close(one)))
        elif one is not None:
            await one.closed.wait()

    async def install(
        self,
        endpoint: str,
        staged: StagedContent | None,
        *,
        label: str = "",
        entry: dict[str, Any] | None = None,
    ) -> SwapReport:
        """Load a new generation on every member of the pool, and once all have acknowledged it serve it.

        ``entry`` is kept with an endpoint that an upload makes, see :meth:`Repository.entries`. Once begun it comes to
        its end, also if the caller is cancelled.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady
            There is no such endpoint; no worker is there to try it.
        SwapFailed
            A worker did not acknowledge it; the generation before goes on serving.
        Conflict, StorageFull, Unavailable
            Another gateway was faster; the disk; likewise.
        """
        one = self._known(endpoint)
        return await asyncio.shield(self._background.spawn(one.install(NewVersion(staged, label, entry))))

    async def unload(self, endpoint: str) -> None:
        """Stop serving the endpoint until :meth:`load`, or a restart of the gateway; its workers let go of it.

        Raises
        ------
        UnknownEndpoint
        """
        await self._known(endpoint).unload()

    async def load(self, endpoint: str) -> None:
        """Serve the accepted generation (again); returns when every worker has answered.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady
            Nothing is installed, or no worker is there.
        SwapFailed
            No worker could load it.
        """
        await self._known(endpoint).load()

    async def follow(self, endpoint: str) -> None:
        """Have what another gateway accepted in the same folder served here too; returns at once."""
        one = self._endpoints.get(endpoint)
        if one is not None:
            one.follow()

    async def ready(self, endpoint: str, deadline: Deadline) -> bool:
        """Wait until a worker serves it; whether one does."""
        one = self._endpoints.get(endpoint)
        if one is None or one.is_closed:
            return False
        try:
            await asyncio.wait_for(one.is_served.wait(), deadline.remaining.total_seconds())
        except TimeoutError:
            return False
        return True

    def state(self, endpoint: str) -> GenerationsState:
        """How it stands.

        Raises
        ------
        UnknownEndpoint
        """
        one = self._known(endpoint)
        loaded = None if one.serving is None else next(iter(one.held.get(one.serving.number, {}).values()), None)
        return GenerationsState(
            accepted=None if one.current is None else one.current.number,
            serving=None if one.serving is None else one.serving.number,
            generations=sorted(number for number, holders in one.held.items() if holders),
            label="" if one.current is None else one.current.label,
            version=None if loaded is None else loaded.version,
            inputs=() if loaded is None else tuple(loaded.inputs),
            outputs=() if loaded is None else tuple(loaded.outputs),
            is_unloaded=one.is_unloaded,
            reason=one.trouble,
            holders={link.worker_id: number for number in sorted(one.held) for link in one.held[number]},
        )

    async def stop(self) -> None:
        """End whatever is being loaded or drained; what is served stays."""
        await self._background.stop()

    # What the pools tell

    def joined(self, link: WorkerConnection) -> None:
        """Give it what its endpoints serve, and what is on its way there."""
        for endpoint in self._of_pool(link):
            endpoint.joined(link)

    def left(self, link: WorkerConnection, *, in_order: bool) -> None:
        """It holds nothing any more that calls can be sent to."""
        self._loader.left(link, in_order=in_order)
        for endpoint in self._of_pool(link):
            endpoint.left(link)

    def loaded(self, link: WorkerConnection, message: Loaded) -> None:
        """What came of a Load."""
        self._loader.loaded(link, message)

    def needs_content(self, link: WorkerConnection, message: NeedContent) -> None:
        """It wants the bytes of a generation."""
        self._loader.needs_content(link, message)

    def _forgotten(self, link: Link, endpoint: str, generation: int) -> None:
        one = self._endpoints.get(endpoint)
        if one is not None:
            one.forgotten(cast("WorkerConnection", link), generation)  # the worker port makes all links

    async def _close(self, one: EndpointGenerations) -> None:
        try:
            await one.close()
        finally:
            del self._endpoints[one.name]
            one.closed.set()

    def _of_pool(self, link: WorkerConnection) -> list[EndpointGenerations]:
        return [one for one in self._endpoints.values() if one.recipe.pool == link.pool]

    def _known(self, endpoint: str) -> EndpointGenerations:
        one = self._endpoints.get(endpoint)
        if one is None or one.is_closed:
            raise UnknownEndpoint(f"There is no endpoint {endpoint[:128]!r}.")
        return one
