"""Opens and closes endpoints: what the data plane, the generations and the supervisor must each be told of one."""

from dataclasses import dataclass
from datetime import timedelta

from contracts.errors import PlatformError
from contracts.inference import MODELHOST_POOL
from online_gateway.config import OnlineGatewaySettings
from online_gateway.dataplane.plane import DataPlane
from online_gateway.generations.generations import Generations, Recipe
from online_gateway.registry import Entry, Registry
from online_gateway.supervisor.local_workers import LocalWorkers
from service_kit.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class CallLimits:
    """What holds for endpoints that say nothing else."""

    queue_limit: int
    deadline: timedelta

    @classmethod
    def from_settings(cls, settings: OnlineGatewaySettings) -> "CallLimits":
        """Those of the gateway's settings."""
        return cls(settings.queue_limit, timedelta(seconds=settings.call_deadline_seconds))


class Serving:
    """Has endpoints answered, or no longer."""

    def __init__(
        self,
        registry: Registry,
        dataplane: DataPlane,
        generations: Generations,
        local_workers: LocalWorkers,
        limits: CallLimits,
    ) -> None:
        self._registry = registry
        self._dataplane = dataplane
        self._generations = generations
        self._local_workers = local_workers
        self._limits = limits
        self._sizes = registry.local_workers()

    async def open_all(self) -> None:
        """At the start: every endpoint that is not switched off, and the local workers of all."""
        for entry in self._registry:
            if not entry.is_stopped:
                await self._try_to_open(entry)
        for pool, size in self._sizes.items():
            self._local_workers.want(pool, size)

    async def _try_to_open(self, entry: Entry) -> None:
        """One endpoint that is wrongly configured keeps no other from being served."""
        try:
            await self.open(entry)
        except PlatformError as error:
            entry.trouble = error.message
            log.error("endpoint_not_served", endpoint=entry.name, reason=error.message)  # noqa: TRY400 - says all

    async def open(self, entry: Entry) -> None:
        """Answer calls for it as soon as a worker has loaded it.

        Raises
        ------
        InvalidRequest
            The file of its first generation cannot be read.
        """
        config, file = entry.config, self._registry.file
        self._dataplane.open_endpoint(
            entry.name,
            batch_size=config.batch_size,
            batch_delay_seconds=config.batch_delay_ms / 1000,
            queue_limit=config.queue_limit or self._limits.queue_limit,
            deadline_seconds=config.deadline_seconds or self._limits.deadline.total_seconds(),
            retries_begun=config.retries_begun,
        )
        await self._generations.open(
            Recipe(
                entry.name,
                pool=config.pool,
                engine=config.engine,
                config=file.load_config(config),
                needs_content=config.awaits_content,
                module=file.module_of(config) if config.engine == "python" else None,
                content=None if config.content is None else file.folder / config.content,
            )
        )

    async def close(self, entry: Entry) -> None:
        """Refuse its calls from now on, those that wait too."""
        await self._generations.close(entry.name)
        self._dataplane.close_endpoint(entry.name)

    async def start(self, entry: Entry) -> None:
        """Open it if it was closed, and have its local workers, also those that were given up.

        Raises
        ------
        InvalidRequest
            As :meth:`open`.
        """
        if entry.is_stopped or entry.trouble:
            await self.open(entry)
            entry.is_stopped, entry.trouble = False, ""
        pool = entry.config.pool
        self._local_workers.want(pool, self._size(entry))

    async def stop(self, entry: Entry) -> None:
        """Close it, and end its local workers unless others are served by them too."""
        if not entry.is_stopped:
            entry.is_stopped = True
            await self.close(entry)
        if entry.config.pool != MODELHOST_POOL:
            self._local_workers.want(entry.config.pool, 0)

    def resize(self, pool: str, size: int) -> None:
        """Have so many local workers of the pool."""
        self._sizes[pool] = size
        self._local_workers.want(pool, size)

    def size(self, pool: str) -> int:
        """How many local workers the pool is to have while it is started."""
        return self._sizes.get(pool, 0)

    def end_workers(self, pool: str) -> None:
        """Have no local workers of the pool until it is started again."""
        self._local_workers.want(pool, 0)

    def _size(self, entry: Entry) -> int:
        """As the file or the last resize says."""
        return self.size(entry.config.pool) or entry.config.local_workers_if_started
