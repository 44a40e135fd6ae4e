"""Keeps the local workers alive: starts them, replaces the dead and the hung, takes over those of a dead gateway.

One task acts; everybody else says what is wanted and wakes it. A worker is *hung* when its connection fell silent and
did not come back, when it never dialled in, or when it sits on a call long past that call's deadline. It is killed
then, since whatever hangs does not end by being asked.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from contracts.worker_protocol import Leave, ProtocolError
from online_gateway.dataplane.plane import DataPlane
from online_gateway.supervisor.child_process import ChildProcess, ChildRecord, read_records, write_records
from online_gateway.workers.port import WorkerConnection, WorkerPort
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger
from service_kit.settings import WRONG_CONFIGURATION

log = get_logger(__name__)

DEATHS_IN_A_ROW = 6
"""So many, none of the processes having lived for long, and it is given up."""
_STEADY_SECONDS = 30.0
_DIAL_SECONDS = 60.0
"""A worker that has not dialled in after so long hangs: it imports little before."""
_RETURN_SECONDS = 0.5
"""A worker whose connection broke is back after that, if it can be: it tries every 0.1 s at first."""
_LOOK_SECONDS = 0.1
_KILLED_SECONDS = 5.0
_AWAY_SECONDS = 60
"""So long workers wait for another gateway when theirs is gone."""
_COMMAND = (sys.executable, "-P", "-m", "online_worker")  # -P: nothing in the user's folder shadows our packages


@dataclass(frozen=True)
class WorkerSettings:
    """What every local worker is told; the environment holds no secret but the name of the token's file."""

    gateway: str
    token_file: Path
    environment: Mapping[str, str]
    folder: Path
    """Where they run: the folder of the configuration file."""
    log_level: str
    log_format: str
    drain: timedelta
    silence: timedelta

    def environment_for(self, pool: str, processes: int) -> dict[str, str]:
        """The environment of one worker of a pool of so many."""
        threads = str(max(1, (os.cpu_count() or 1) // max(1, processes)))
        return {
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
            **self.environment,
            "ONLINE_GATEWAY": self.gateway,
            "WORKER_TOKEN_FILE": str(self.token_file),
            "ENDPOINT": pool,
            "AWAY_SECONDS": str(_AWAY_SECONDS),
            "CALL_DRAIN_SECONDS": f"{self.drain.total_seconds():g}",
            "LOG_LEVEL": self.log_level,
            "LOG_FORMAT": self.log_format,
        }


@dataclass
class _Slot:
    """The place of one local worker."""

    pool: str
    number: int
    child: ChildProcess | None = None
    has_dialled: bool = False
    gone_since: float | None = None
    """Since when its connection is away, on the monotonic clock."""
    leaves: Deadline | None = None
    """Until when it may end by itself, once it was asked to."""
    is_wanted: bool = True
    deaths: int = 0
    restart_at: float = 0.0
    given_up: str = ""
    backoff: Backoff = field(default_factory=lambda: Backoff(timedelta(milliseconds=100), timedelta(seconds=10)))

    def begin_with(self, child: ChildProcess) -> None:
        """Watch this process from now on."""
        self.child = child
        self.has_dialled = False
        self.gone_since = None
        self.leaves = None


class LocalWorkers:
    """The worker processes of this machine, by pool."""

    def __init__(self, records: Path, settings: WorkerSettings, port: WorkerPort, dataplane: DataPlane) -> None:
        self._records_file = records
        self._settings = settings
        self._port = port
        self._dataplane = dataplane
        self._slots: dict[str, list[_Slot]] = {}
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    def want(self, pool: str, count: int) -> None:
        """Keep so many from now on; also tries again where it had given up."""
        slots = self._slots.setdefault(pool, [])
        for slot in slots:
            slot.is_wanted = slot.number <= count
            if slot.given_up:
                self._forgive(slot)
        taken = {slot.number for slot in slots}
        slots.extend(_Slot(pool, number) for number in range(1, count + 1) if number not in taken)
        self.wake()

    @staticmethod
    def _forgive(slot: _Slot) -> None:
        slot.given_up, slot.deaths, slot.restart_at = "", 0, 0.0
        slot.backoff.reset()

    def wanted(self, pool: str) -> int:
        """How many it keeps."""
        return sum(slot.is_wanted for slot in self._slots.get(pool, ()))

    def gave_up(self, pool: str) -> str:
        """Why it tries no more with some worker of the pool; '' where it has given up on none."""
        return next((slot.given_up for slot in self._slots.get(pool, ()) if slot.given_up and slot.is_wanted), "")

    def wake(self) -> None:
        """Look soon: something has changed."""
        self._wake.set()

    async def adopt(self) -> None:
        """Take over the living workers that a gateway before us had started on the same folder."""
        for child in await asyncio.to_thread(_living, self._records_file):
            slot = self._place_for(child.record.pool)
            slot.begin_with(child)
            log.info("worker_adopted", pool=slot.pool, worker=child.record.worker_id, pid=child.record.pid)

    def _place_for(self, pool: str) -> _Slot:
        slots = self._slots.setdefault(pool, [])
        free = next((slot for slot in slots if slot.child is None), None)
        if free is None:
            free = _Slot(pool, max((slot.number for slot in slots), default=0) + 1, is_wanted=False)
            slots.append(free)
        return free

    def start(self) -> "asyncio.Task[None]":
        """Act from now on, in a task that ends when everything is stopped."""
        self._task = asyncio.create_task(self._run())
        return self._task

    async def _run(self) -> None:
        while not self._is_stopping:
            await self._look()
            self._wake.clear()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _pause(self) -> float:
        """Until the next look, or the next start that is due."""
        now = time.monotonic()
        due = [slot.restart_at - now for slot in self._all() if slot.child is None and slot.is_wanted]
        return min([_LOOK_SECONDS, *(max(0.0, seconds) for seconds in due if seconds > 0)])

    async def stop(self) -> None:
        """End all, in order: each answers what it holds, and is killed when its time is up."""
        self._is_stopping = True
        self.wake()
        if self._task is not None:
            await asyncio.wait([self._task])
        for slot in self._all():
            slot.is_wanted = False
        deadline = Deadline(self._settings.drain + timedelta(seconds=_KILLED_SECONDS))
        while any(slot.child is not None for slot in self._all()) and not deadline.expired:
            await self._look()
            await asyncio.sleep(0.02)
        for slot in self._all():
            if slot.child is not None:
                log.error("worker_not_ended", pool=slot.pool, worker=slot.child.record.worker_id)

    def _all(self) -> list[_Slot]:
        return [slot for slots in self._slots.values() for slot in slots]

    async def _look(self) -> None:
        links = {link.worker_id: link for link in self._port.connections()}
        for slot in self._all():
            self._look_at(slot, links)
        due = [slot for slot in self._all() if self._is_due(slot)]
        for slot in due:
            await self._start(slot)
        for pool, slots in self._slots.items():
            self._slots[pool] = [slot for slot in slots if slot.is_wanted or slot.child is not None]

    def _look_at(self, slot: _Slot, links: Mapping[str, WorkerConnection]) -> None:
        child = slot.child
        if child is None:
            return
        link = links.get(child.record.worker_id)
        if not child.is_alive:
            self._clear_up_after(child, link)
            self._bury(slot, child)
        elif not slot.is_wanted or slot.leaves is not None or (link is not None and link.is_leaving):
            self._see_off(slot, child, link)
        elif (trouble := self._trouble_of(slot, child, link)) is not None:
            log.warning(
                "worker_hangs", pool=slot.pool, worker=child.record.worker_id, pid=child.record.pid, why=trouble
            )
            child.kill()

    def _trouble_of(self, slot: _Slot, child: ChildProcess, link: WorkerConnection | None) -> str | None:
        now = time.monotonic()
        if link is not None:
            slot.has_dialled, slot.gone_since = True, None
            overdue = self._dataplane.overdue(link)
            is_hung = overdue > self._settings.silence.total_seconds()
            return f"a call is {overdue:.1f} s past its deadline" if is_hung else None
        if not slot.has_dialled:
            return f"not dialled in for {_DIAL_SECONDS:g} s" if now - child.started > _DIAL_SECONDS else None
        if slot.gone_since is None:
            slot.gone_since = now
        return "its connection is gone" if now - slot.gone_since > _RETURN_SECONDS else None

    def _see_off(self, slot: _Slot, child: ChildProcess, link: WorkerConnection | None) -> None:
        if slot.leaves is None:
            slot.leaves = Deadline(self._settings.drain + timedelta(seconds=1))
            if link is None or not (link.is_leaving or self._ask_to_leave(link)):
                child.terminate()
        elif slot.leaves.expired:
            log.warning("worker_killed", pool=slot.pool, worker=child.record.worker_id, pid=child.record.pid)
            child.kill()

    def _ask_to_leave(self, link: WorkerConnection) -> bool:
        self._dataplane.stop_feeding(link)
        try:
            link.send(Leave())
        except ProtocolError:
            return False
        return True

    @staticmethod
    def _clear_up_after(child: ChildProcess, link: WorkerConnection | None) -> None:
        """End what outlives it. A process that its model forked holds its connection open, which then breaks late."""
        child.kill_group()
        if link is not None:
            link.abort("its process has ended")

    def _bury(self, slot: _Slot, child: ChildProcess) -> None:
        lived = time.monotonic() - child.started
        status = child.exit_status
        slot.child, slot.has_dialled = None, False
        if not slot.is_wanted:
            return
        if slot.leaves is not None:
            slot.restart_at = 0.0
            return
        if lived > _STEADY_SECONDS:
            self._forgive(slot)
        slot.deaths += 1
        pause = slot.backoff.pause().total_seconds()
        slot.restart_at = time.monotonic() + pause
        facts = {"pool": slot.pool, "worker": child.record.worker_id, "status": status, "deaths": slot.deaths}
        if status == WRONG_CONFIGURATION:
            slot.given_up = "its worker cannot start as configured; its line in the log says why"
        elif slot.deaths >= DEATHS_IN_A_ROW:
            slot.given_up = f"its worker died {slot.deaths} times in a row, the last time with status {status}"
        if slot.given_up:
            log.error("worker_given_up", **facts)
        else:
            log.warning("worker_died", **facts, restart_in=round(pause, 2))

    def _is_due(self, slot: _Slot) -> bool:
        is_idle = slot.child is None and slot.is_wanted and not slot.given_up
        return is_idle and not self._is_stopping and time.monotonic() >= slot.restart_at

    async def _start(self, slot: _Slot) -> None:
        record = ChildRecord(f"{slot.pool}-{slot.number}-{secrets.token_hex(4)}", slot.pool)
        others = [other.child.record for other in self._all() if other.child is not None]
        environment = self._settings.environment_for(slot.pool, self.wanted(slot.pool))
        try:
            child = await asyncio.to_thread(self._start_recorded, record, others, environment)
        except OSError as error:
            slot.restart_at = time.monotonic() + slot.backoff.pause().total_seconds()
            log.error("worker_not_started", pool=slot.pool, error=str(error))  # noqa: TRY400 - says all
            return
        slot.begin_with(child)
        log.info("worker_started", pool=slot.pool, worker=record.worker_id, pid=child.record.pid)

    def _start_recorded(
        self, record: ChildRecord, others: list[ChildRecord], environment: Mapping[str, str]
    ) -> ChildProcess:
        write_records(self._records_file, [*others, record])
        child = ChildProcess.start(record, _COMMAND, environment, self._settings.folder)
        write_records(self._records_file, [*others, child.record])
        return child


def _living(path: Path) -> list[ChildProcess]:
    found: Iterable[ChildProcess | None] = map(ChildProcess.find, read_records(path))
    return [child for child in found if child is not None]
