"""All that a dialect may do besides calling: look, install, stop and start. It steers what lies behind it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from contracts.errors import InvalidRequest
from contracts.inference import MODELHOST_POOL, SwapReport
from contracts.worker_protocol import Notification
from online_gateway.background import Background
from online_gateway.endpoint_config import POOL_ECHO, EngineName
from online_gateway.generations.generations import Generations
from online_gateway.information import EndpointInfo, MemoryStatus
from online_gateway.memory import memory_status
from online_gateway.notifications import Notifications
from online_gateway.overview import Overview
from online_gateway.registry import Entry, Registry
from online_gateway.repository.repository import Repository, StagedContent
from online_gateway.serving import Serving
from online_gateway.workers.pools import Pools
from service_kit.deadline import Deadline
from service_kit.version import VERSION

_MOST_WORKERS = 256
_MOST_SUPPORT_PROCESSES = 256
_MOST_STATUS_BYTES = 64 * 2**10
_START_TIME = timedelta(seconds=20)
_LOOK = timedelta(milliseconds=200)


class Control:
    """The gateway's controls. Every method belongs to the event loop's thread."""

    version = VERSION
    pool_echo = POOL_ECHO
    """A hidden echo endpoint on the model hosts; its answers' ``worker_id`` shows who answered."""

    def __init__(
        self,
        registry: Registry,
        overview: Overview,
        serving: Serving,
        generations: Generations,
        repository: Repository,
        pools: Pools,
        notifications: Notifications,
        request_shutdown: Callable[[], None],
    ) -> None:
        self.server_name = registry.file.server_name
        self._registry = registry
        self._overview = overview
        self._serving = serving
        self._generations = generations
        self._repository = repository
        self._pools = pools
        self._notifications = notifications
        self._request_shutdown = request_shutdown
        self._support_statuses: dict[str, Mapping[str, Any]] = {}
        self._background = Background()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def endpoints(self, engine: EngineName | None = None) -> list[EndpointInfo]:
        """Those that can be called, of this engine if one is given, by name; not the hidden ones."""
        return [info for info in self._overview.all() if engine in {None, info.engine}]

    def endpoint(self, name: str) -> EndpointInfo:
        """The endpoint.

        Raises
        ------
        UnknownEndpoint
            The message names the known ones.
        """
        return self._overview.of(self._entry(name))

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[StagedContent]:
        """``async with control.staging() as staged``: a file to ``await staged.write(chunk)`` into and to install.

        It is removed at the end unless it was installed. It knows its ``size`` and ``sha256``.

        Raises
        ------
        UploadTooLarge, StorageFull
            By ``write``.
        """
        async with self._repository.staging() as staged:
            yield staged

    async def install(
        self,
        name: str,
        staged: StagedContent | None,
        *,
        label: str = "",
        description: str | None = None,
        create: EngineName | None = None,
    ) -> SwapReport:
        """Load a new generation on every worker and let it answer from then on; ``create`` makes an unknown endpoint.

        Once begun it comes to its end, also if the caller is cancelled.

        Raises
        ------
        UnknownEndpoint, InvalidRequest
            There is none of this name, or the name cannot be one, or it has another engine than ``create``.
        EndpointNotReady
            No worker is there to try the generation.
        SwapFailed
            A worker refused it; the generation before goes on answering.
        """
        work = self._install_in_turn(name, staged, label, description, create)
        return await asyncio.shield(self._background.spawn(work))

    async def describe(self, name: str, description: str) -> None:
        """Change the description.

        Raises
        ------
        UnknownEndpoint
        """
        async with self._turn(name):
            entry = self._entry(name)
            if entry.is_uploaded:
                await self._repository.keep_entry(name, {**entry.as_kept(), "DESCRIPTION": description})
            entry.description = description

    async def remove(self, name: str) -> None:
        """Remove an endpoint that an upload made, with its files.

        Raises
        ------
        UnknownEndpoint
        Conflict
            It stands in the configuration file: it is removed there.
        """
        async with self._turn(name):
            entry = self._entry(name)
            self._registry.require_uploaded(name)
            if not entry.is_stopped:
                entry.is_stopped = True
                await self._serving.close(entry)
            await self._repository.remove(name)
            self._registry.remove(name)

    async def load(self, name: str) -> None:
        """Serve the current generation (again).

        Raises
        ------
        UnknownEndpoint
        EndpointNotReady
            It is not ready afterwards; the message says why.
        """
        entry = self._entry(name)
        if entry.is_stopped:
            await self.start(name)
        await self._generations.load(name)

    async def unload(self, name: str) -> None:
        """Stop serving until :meth:`load`; the workers stay.

        Raises
        ------
        UnknownEndpoint
        """
        if not self._entry(name).is_stopped:
            await self._generations.unload(name)

    async def start(self, name: str) -> None:
        """Start its workers (again), also after too many deaths; wait for them, but not for long.

        Raises
        ------
        UnknownEndpoint
        """
        if name == MODELHOST_POOL:
            self._serving.resize(MODELHOST_POOL, max(1, self._serving.size(MODELHOST_POOL)))
            return
        async with self._turn(name):
            entry = self._entry(name)
            await self._serving.start(entry)
        deadline = Deadline(_START_TIME)
        while self._overview.of(entry).state in {"loading", "no_workers"} and not deadline.expired:
            await self._generations.ready(name, Deadline(deadline.at_most(_LOOK)))

    async def kill(self, name: str) -> None:
        """Stop serving it and end its local workers; an endpoint on a shared pool only stops being served.

        Raises
        ------
        UnknownEndpoint
        """
        if name == MODELHOST_POOL:
            self._serving.end_workers(MODELHOST_POOL)
            return
        async with self._turn(name):
            await self._serving.stop(self._entry(name))

    async def resize(self, name: str, workers: int) -> None:
        """Keep so many local workers from now on.

        Raises
        ------
        UnknownEndpoint, InvalidRequest
        """
        if not 1 <= workers <= _MOST_WORKERS:
            raise InvalidRequest(f"The number of workers must be 1 to {_MOST_WORKERS}.")
        if name == MODELHOST_POOL:
            self._serving.resize(name, workers)
            return
        entry = self._entry(name)
        if entry.config.pool == MODELHOST_POOL:
            raise InvalidRequest(f"{name!r} is served by the model hosts: resize {MODELHOST_POOL!r} instead.")
        if not entry.config.is_local:
            raise InvalidRequest(f"The workers of {name!r} run on {entry.config.host}: start or stop some there.")
        if entry.is_stopped:
            raise InvalidRequest(f"{name!r} is switched off; start it first.")
        self._serving.resize(name, workers)

    def take_notifications(self, name: str | None = None) -> list[Notification]:
        """Those of the endpoint, or of all, since the last call.

        Raises
        ------
        UnknownEndpoint
        """
        if name is not None:
            self._entry(name)
        return self._notifications.take(name)

    def add_support_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Keep what a support process posted, until it posts again.

        Raises
        ------
        InvalidRequest
            It is too much.
        """
        try:
            size = len(msgspec.json.encode(status))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"The status cannot be kept: {error}.") from error
        if size > _MOST_STATUS_BYTES:
            raise InvalidRequest(f"A support process may post {_MOST_STATUS_BYTES} bytes; these are {size}.")
        if name not in self._support_statuses and len(self._support_statuses) >= _MOST_SUPPORT_PROCESSES:
            raise InvalidRequest(f"Already {_MOST_SUPPORT_PROCESSES} support processes have posted; no more are kept.")
        self._support_statuses[name] = status

    def support_statuses(self) -> dict[str, Mapping[str, Any]]:
        """The latest of each support process, by name."""
        return dict(self._support_statuses)

    async def memory(self) -> MemoryStatus:
        """Who has how much memory of this machine now."""
        links = [(link.pool, link.host, link.memory_bytes) for link in self._pools.everyone()]
        return await asyncio.to_thread(memory_status, links)

    def request_shutdown(self) -> None:
        """Begin the orderly stop of everything; returns at once."""
        self._request_shutdown()

    async def follow(self, name: str) -> None:
        """Take over what another gateway on the same folder has accepted, described or removed.

        Raises
        ------
        PlatformError
            It cannot be served here; what was before is.
        """
        async with self._turn(name):
            kept = (await self._repository.entries()).get(name)
            if name not in self._registry:
                if kept is not None:
                    await self._open_kept(self._registry.add_kept(name, kept))
                return
            entry = self._registry.get(name)
            if entry.is_uploaded and kept is None and not await self._repository.has(name):
                self._registry.remove(name)
                await self._serving.close(entry)
                return
            if kept is not None:
                entry.description = str(kept.get("DESCRIPTION", ""))
            if not entry.is_stopped:
                await self._generations.follow(name)

    async def stop(self) -> None:
        """Call off what is being installed."""
        await self._background.stop()

    def _turn(self, name: str) -> asyncio.Lock:
        """What two changes of one endpoint wait for each other on."""
        return self._turns.setdefault(name, asyncio.Lock())

    def _entry(self, name: str) -> Entry:
        entry = self._registry.get(name)
        if entry.is_pending:
            raise self._registry.unknown(name)
        return entry

    async def _install_in_turn(
        self, name: str, staged: StagedContent | None, label: str, description: str | None, create: EngineName | None
    ) -> SwapReport:
        async with self._turn(name):
            if create is not None and name not in self._registry:
                return await self._create(name, create, staged, label, description or "")
            entry = self._entry(name)
            self._registry.require_engine(name, create)
            former = entry.description
            entry.description = former if description is None else description
            try:
                return await self._install(entry, staged, label)
            except BaseException:
                entry.description = former
                raise

    async def _create(
        self, name: str, engine: EngineName, staged: StagedContent | None, label: str, description: str
    ) -> SwapReport:
        entry = self._registry.add_uploaded(name, engine, description)
        entry.is_pending = True
        try:
            await self._serving.open(entry)
            report = await self._install(entry, staged, label)
        except BaseException:
            self._registry.remove(name)
            await self._serving.close(entry)
            raise
        entry.is_pending = False
        return report

    async def _open_kept(self, entry: Entry) -> None:
        entry.is_pending = True
        try:
            await self._serving.open(entry)
        finally:
            entry.is_pending = False

    async def _install(self, entry: Entry, staged: StagedContent | None, label: str) -> SwapReport:
        kept = entry.as_kept() if entry.is_uploaded else None
        return await self._generations.install(entry.name, staged, label=label, entry=kept)
