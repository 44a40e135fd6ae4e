"""Leases that end: the task of a silent consumer goes to another one.

The database's clock alone decides. After a pause of our own (a restart, a database that was away, a suspended machine)
heartbeats could not arrive, so every running attempt first gets one full lease from now.
"""

import asyncio

from contracts.errors import PlatformError
from private_api.records import TaskRecord
from private_api.services.tasks import Move, Moves
from private_api.storage import attempts as attempt_rows
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction
from service_kit.backoff import Backoff
from service_kit.logging import get_logger

log = get_logger(__name__)

LEASE_LAPSED = "lease_lapsed"
"""The outcome of an attempt whose consumer fell silent; all others are a ``contracts.tasks.Outcome``."""

_LOOK_SECONDS = 1.0
_SHORTEST_LOOK_SECONDS = 0.02
_TASKS_PER_LOOK = 100


class Leases:
    """Watches leases and takes tasks back."""

    def __init__(self, database: Database, moves: Moves, lease_seconds: float) -> None:
        self._database = database
        self._moves = moves
        self._lease_seconds = lease_seconds
        self._looked_at: float | None = None

    async def run(self) -> None:
        """Look for ever, about once a second and at the end of the next lease."""
        backoff = Backoff()
        while True:
            try:
                pause = await self.look()
                backoff.reset()
            except PlatformError as error:
                log.warning("leases_not_watched", reason=error.message)
                pause = backoff.pause().total_seconds()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Take back what lapsed; the seconds until the next look."""
        now, until_lapse = await self._database.read(task_rows.next_lapse)
        if self._looked_at is None or not 0 <= now - self._looked_at <= self._longest_gap:
            extended = await self._database.write(lambda tx: task_rows.extend_all_leases(tx, self._lease_seconds))
            if extended:
                log.info("leases_extended", tasks=extended)
            self._looked_at = now
            return min(_LOOK_SECONDS, self._lease_seconds / 2)
        self._looked_at = now
        if until_lapse is not None and until_lapse <= 0:
            await self._take_back()
            return _SHORTEST_LOOK_SECONDS
        return max(_SHORTEST_LOOK_SECONDS, min(_LOOK_SECONDS, until_lapse or _LOOK_SECONDS))

    @property
    def _longest_gap(self) -> float:
        """After a longer time between two looks, heartbeats may have been missed through no fault of the consumers."""
        return _LOOK_SECONDS + self._lease_seconds / 2

    async def _take_back(self) -> None:
        def lapse_all(tx: Transaction) -> list[Move]:
            return [self._lapse(tx, task) for task in task_rows.lapsed_tasks(tx, _TASKS_PER_LOOK)]

        moves = await self._database.write(lapse_all)
        for move in moves:
            log.warning("lease_lapsed", task_id=move.task.id, attempt=move.task.attempt, consumer=move.task.lease_owner)
        await self._moves.tell(*moves)

    def _lapse(self, tx: Transaction, task: TaskRecord) -> Move:
        record = attempt_rows.find_attempt(tx, task.id, task.attempt)
        upload = (record.upload.name,) if record and record.upload else ()
        error = (
            f"The task was lost {task.counted_attempts} times and is given up: "
            f"its last consumer, {task.lease_owner}, stopped answering."
        )
        move = self._moves.retry_or_fail(tx, task, error)
        reason = f"Consumer {task.lease_owner} stopped answering."
        attempt_rows.end_attempt(tx, task.id, task.attempt, outcome=LEASE_LAPSED, reason=reason)
        return move.freeing(upload)
