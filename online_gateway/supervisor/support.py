"""Support processes: scripts beside the endpoints, which post what they measure and which nobody can call.

They have nothing to finish and no memory worth keeping: one that an earlier gateway left behind is ended, not taken
over.
"""

import asyncio
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from online_gateway.endpoint_config import EndpointConfig, GatewayFile
from online_gateway.supervisor.child_process import ChildProcess, ChildRecord, read_records, write_records
from service_kit.backoff import Backoff
from service_kit.logging import get_logger

log = get_logger(__name__)

STATUS_PATH = "/support_update_status"
"""Where they post."""
_LOOK_SECONDS = 0.5
_STEADY_SECONDS = 30.0
_END_SECONDS = 3.0


@dataclass
class _Support:
    config: EndpointConfig
    command: Sequence[str]
    child: ChildProcess | None = None


class SupportProcesses:
    """Keeps the scripts running; each has one task."""

    def __init__(
        self, file: GatewayFile, records: Path, environment: Mapping[str, str], address: tuple[str, int]
    ) -> None:
        """Start nothing yet; ``address`` is where a process of this machine reaches the gateway."""
        self._records_file = records
        self._folder = file.folder
        self._environment = environment
        self._supports = [
            _Support(config, _command(file.module_of(config), config, address)) for config in file.supports
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        self._stopping = asyncio.Event()

    async def start(self) -> "list[asyncio.Task[None]]":
        """Start them all, after the end of those that a killed gateway left; the tasks end when they are stopped."""
        await asyncio.to_thread(_end_leftovers, self._records_file)
        self._tasks = [asyncio.create_task(self._keep(support)) for support in self._supports]
        return self._tasks

    def states(self) -> dict[str, str]:
        """``running`` or ``down``, by name."""
        return {
            support.config.name: "running" if support.child is not None and support.child.is_alive else "down"
            for support in self._supports
        }

    async def stop(self) -> None:
        """End them all."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, support: _Support) -> None:
        backoff = Backoff(timedelta(milliseconds=200), timedelta(seconds=30))
        loop = asyncio.get_running_loop()
        is_over = False
        while not is_over:
            began = loop.time()
            await self._start(support)
            while support.child is not None and support.child.is_alive and not is_over:
                is_over = await self._stops_within(_LOOK_SECONDS)
            if is_over:
                break
            if loop.time() - began > _STEADY_SECONDS:
                backoff.reset()
            pause = backoff.pause().total_seconds()
            status = support.child.exit_status if support.child is not None else None
            log.warning("support_process_ended", name=support.config.name, status=status, restart_in=round(pause, 2))
            is_over = await self._stops_within(pause)
        if support.child is not None:
            await asyncio.to_thread(_end, support.child)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _start(self, support: _Support) -> None:
        support.child = None
        record = ChildRecord(f"support-{support.config.name}-{secrets.token_hex(4)}", support.config.name)
        async with self._starting:
            others = [other.child.record for other in self._supports if other.child is not None]
            try:
                support.child = await asyncio.to_thread(self._start_recorded, support.command, record, others)
            except OSError as error:
                log.error("support_process_not_started", name=support.config.name, error=str(error))  # noqa: TRY400 - says all

    def _start_recorded(
        self, command: Sequence[str], record: ChildRecord, others: Sequence[ChildRecord]
    ) -> ChildProcess:
        write_records(self._records_file, [*others, record])
        child = ChildProcess.start(record, command, self._environment, self._folder)
        write_records(self._records_file, [*others, child.record])
        return child


def _command(script: Path, config: EndpointConfig, address: tuple[str, int]) -> list[str]:
    entry = {
        **config.config,
        "SERVER": address[0],
        "SERVER_PORT": address[1],
        "SERVER_PATH": STATUS_PATH,
        "SUPPORT_NAME": config.name,
    }
    return [sys.executable, str(script), "--config_endpoint", json.dumps(entry)]


def _end(child: ChildProcess) -> None:
    child.terminate()
    if not child.wait(_END_SECONDS):
        child.kill()
        child.wait(_END_SECONDS)


def _end_leftovers(path: Path) -> None:
    for record in read_records(path):
        child = ChildProcess.find(record)
        if child is not None:
            log.info("support_process_left_behind", name=record.pool, pid=child.record.pid)
            child.kill()
