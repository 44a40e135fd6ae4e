"""Which pending task a consumer hears of: the next one to claim, and the one to stage ahead.

Nothing is reserved in the database; a claim alone gives a task away. What was offered is remembered for moments, in
memory, so that the same task is not offered to all idle consumers at once.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from contracts.tasks import StagingOffer, TaskOffer
from private_api.records import TaskRecord
from private_api.services.attempts import Attempts
from private_api.services.wakeups import Wakeups, wait_for
from private_api.storage import models as model_rows
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction

_CLAIM_WITHIN = timedelta(seconds=2)
_STAGE_WITHIN = timedelta(seconds=10)
_LOOK_SECONDS = 1.0
"""A wake-up may go to a consumer that has just hung up; the others look again by themselves."""


class _Memory:
    """Which task was offered to whom, for a while."""

    def __init__(self, keep: timedelta, clock: Callable[[], float]) -> None:
        self._keep = keep.total_seconds()
        self._clock = clock
        self._offered: dict[int, tuple[str, float]] = {}

    def taken_from(self, consumer: str) -> set[int]:
        """The tasks that others were offered."""
        now = self._clock()
        self._offered = {task: entry for task, entry in self._offered.items() if entry[1] > now}
        return {task for task, entry in self._offered.items() if entry[0] != consumer}

    def remember(self, task_id: int, consumer: str) -> None:
        """The task was offered to this consumer."""
        self._offered[task_id] = (consumer, self._clock() + self._keep)


class Offers:
    """Answers idle consumers, and busy ones that look ahead."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        attempts: Attempts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._attempts = attempts
        self._clock = clock
        self._to_claim = _Memory(_CLAIM_WITHIN, clock)
        self._to_stage = _Memory(_STAGE_WITHIN, clock)

    async def next(
        self, consumer: str, queues: Sequence[str], seconds: float, is_gone: Callable[[], Awaitable[bool]]
    ) -> TaskOffer | None:
        """The oldest pending task of the first queue that has one; waits at most so long for it.

        ``is_gone`` tells that nobody would hear the answer: nothing is offered then.
        """
        end = self._clock() + seconds
        while True:
            with self._wakeups.next_of(queues) as woken:
                task = await self._database.read(lambda tx: _oldest(tx, queues, self._to_claim.taken_from(consumer)))
                left = end - self._clock()
                if task is not None and not await is_gone():
                    self._to_claim.remember(task.id, consumer)
                    if woken.is_set():  # for another task than the one that was found: another consumer's turn
                        self._wakeups.wake_one(task.queue)
                    return TaskOffer(uid=task.uid)
                if left <= 0 or self._wakeups.is_closed or await is_gone():
                    return None
                await wait_for(woken, min(left, _LOOK_SECONDS))

    async def peek(self, consumer: str, queues: Sequence[str]) -> StagingOffer | None:
        """The oldest pending task that no other consumer is about to claim or to stage."""

        def look(tx: Transaction) -> StagingOffer | None:
            task = _oldest(tx, queues, self._to_claim.taken_from(consumer) | self._to_stage.taken_from(consumer))
            if task is None:
                return None
            model = self._attempts.model_for_run(model_rows.model_of_task(tx, task.model_id))
            return StagingOffer(task_id=task.id, uid=task.uid, attempt=task.attempt + 1, input=task.input, model=model)

        offer = await self._database.read(look)
        if offer is not None:
            self._to_stage.remember(offer.task_id, consumer)
        return offer


def _oldest(tx: Transaction, queues: Sequence[str], taken: set[int]) -> TaskRecord | None:
    for queue in queues:
        for task in task_rows.oldest_pending(tx, queue, len(taken) + 1):
            if task.id not in taken:
                return task
    return None
