"""How each endpoint stands, put together from those who know a part of it."""

from contracts.inference import MODELHOST_POOL, UnknownEndpoint
from online_gateway.dataplane.plane import DataPlane
from online_gateway.dataplane.statistics import EndpointStatistics
from online_gateway.generations.generations import Generations, GenerationsState
from online_gateway.information import EndpointInfo, EndpointState, WorkerInfo
from online_gateway.registry import Entry, Registry
from online_gateway.supervisor.local_workers import LocalWorkers
from online_gateway.workers.pools import Pools
from online_gateway.workers.port import WorkerConnection

_NOTHING = GenerationsState(None, None, [], "", None, (), (), is_unloaded=False, reason="")


class Overview:
    """Looks; changes nothing."""

    def __init__(
        self,
        registry: Registry,
        dataplane: DataPlane,
        pools: Pools,
        generations: Generations,
        local_workers: LocalWorkers,
    ) -> None:
        self._registry = registry
        self._dataplane = dataplane
        self._pools = pools
        self._generations = generations
        self._local_workers = local_workers

    def of(self, entry: Entry) -> EndpointInfo:
        """The endpoint as it is now."""
        config = entry.config
        generations, statistics = self._parts(entry.name)
        members = self._pools.members(config.pool)
        state, reason = self._state(entry, generations, members)
        return EndpointInfo(
            name=entry.name,
            engine=config.engine,
            description=entry.description,
            pool=config.pool,
            state=state,
            reason=reason,
            generation=generations.serving,
            generations=generations.generations,
            label=generations.label,
            inputs=generations.inputs,
            outputs=generations.outputs,
            version=generations.version,
            workers=[self._worker(link, generations) for link in members],
            statistics=statistics,
            is_hidden=entry.is_hidden,
        )

    def all(self) -> list[EndpointInfo]:
        """Those that are not hidden, by name."""
        return [self.of(entry) for entry in self._registry if not entry.is_hidden]

    def _parts(self, name: str) -> tuple[GenerationsState, EndpointStatistics]:
        try:
            return self._generations.state(name), self._dataplane.statistics(name)
        except UnknownEndpoint:  # it is stopped
            return _NOTHING, EndpointStatistics()

    def _worker(self, link: WorkerConnection, generations: GenerationsState) -> WorkerInfo:
        return WorkerInfo(
            worker_id=link.worker_id,
            host=link.host,
            pid=link.pid,
            addresses=link.addresses,
            memory_bytes=link.memory_bytes,
            generation=generations.holders.get(link.worker_id),
            statistics=self._dataplane.link_statistics(link),
        )

    def _state(
        self, entry: Entry, generations: GenerationsState, members: list[WorkerConnection]
    ) -> tuple[EndpointState, str]:
        if entry.is_stopped:
            return "disabled", "It is switched off; an administrator can start it."
        if entry.trouble:
            return "given_up", entry.trouble
        if generations.is_unloaded:
            return "disabled", "It was unloaded; load it to have it answer again."
        if generations.accepted is None and _awaits_upload(entry):
            return _without_content(entry)
        if not members:
            return self._without_workers(entry)
        return _with_workers(generations, members)

    def _without_workers(self, entry: Entry) -> tuple[EndpointState, str]:
        pool = entry.config.pool
        gave_up = self._local_workers.gave_up(pool)
        if gave_up:
            return "given_up", f"No worker of it is there: {gave_up}."
        if self._local_workers.wanted(pool):
            return "no_workers", "Its workers are starting."
        command = f"infer worker --endpoint {pool}"
        kind = "model host" if pool == MODELHOST_POOL else "worker"
        return "no_workers", f"No {kind} of it has dialled in; start one: {command}."


def _without_content(entry: Entry) -> tuple[EndpointState, str]:
    if entry.is_uploaded:
        return "given_up", "Its files in the data folder are spoilt: upload it again, or delete it."
    return "empty", "No file was installed for it yet."


def _with_workers(generations: GenerationsState, members: list[WorkerConnection]) -> tuple[EndpointState, str]:
    if generations.serving is not None and any(link.worker_id in generations.holders for link in members):
        return "ready", ""
    if generations.reason:
        return "given_up", generations.reason
    return "loading", "Its workers are loading it."


def _awaits_upload(entry: Entry) -> bool:
    return entry.config.awaits_content and entry.config.content is None
