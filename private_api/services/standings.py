"""Where tasks stand, read for all who ask at once: polls come in crowds, and one query answers a crowd."""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

from private_api.records import Standing
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database

_GATHERING = timedelta(milliseconds=2)
"""From the begin of a crowd's query to that of the next: fewer and larger ones halve the processor time of a poll."""


class Standings:
    """Reads for polls. Lives in the event loop alone.

    Who asks while a query is under way is answered by the next one, together with all others who asked meanwhile: each
    answer is read after its question. One query at a time is under way; one who polls alone waits for nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: set[str] = set()
        self._next: asyncio.Task[Mapping[str, Standing]] | None = None
        self._turn = asyncio.Lock()
        self._next_begin = 0.0

    async def find(self, uid: str) -> Standing | None:
        """Where the task stands; None for one that is unknown or deleted. Raises as :meth:`Database.read` does."""
        self._asked.add(uid)
        if self._next is None:
            self._next = asyncio.create_task(self._answer())
        found = await asyncio.shield(self._next)  # one who hangs up must not take the answer from the others
        return found.get(uid)

    async def _answer(self) -> Mapping[str, Standing]:
        async with self._turn:
            await asyncio.sleep(self._next_begin - time.monotonic())
            uids, self._asked, self._next = self._asked, set(), None
            self._next_begin = time.monotonic() + (_GATHERING.total_seconds() if len(uids) > 1 else 0)
            return await self._database.read(lambda tx: task_rows.find_standings(tx, uids))
