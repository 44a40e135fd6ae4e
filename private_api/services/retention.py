"""Housekeeping: ended tasks past their time, tombstones, and files that no row names."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from contracts.errors import PlatformError
from private_api.storage import references
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database
from private_api.storage.files import BlobKind, BlobStore
from service_kit.logging import get_logger

log = get_logger(__name__)

_TIDY_EVERY = timedelta(minutes=10)
_TOMBSTONES_FOR = timedelta(days=1)
"""Longer than an attempt may go without hearing that its task was deleted."""
_BATCH = 200
_FILE_IS_OLD = timedelta(minutes=15)
"""An upload whose commit is under way, or in doubt, is younger."""


class Retention:
    """Removes what nobody may ask for any more. ``keep`` is None where ended tasks are kept for ever."""

    def __init__(self, database: Database, files: BlobStore, keep: timedelta | None) -> None:
        self._database = database
        self._files = files
        self._keep = keep
        self._before_start = [name for kind in BlobKind for name in files.names(kind)]

    async def run(self) -> None:
        """Tidy for ever; at first the files that an earlier process may have left without a row."""
        doubtful: Sequence[str] = self._before_start
        self._before_start = []
        while True:
            try:
                await self.remove_orphans(doubtful)
                await self.remove_old_tasks()
            except PlatformError as error:
                log.warning("tidying_postponed", reason=error.message)
            doubtful = []
            await asyncio.sleep(_TIDY_EVERY.total_seconds())
            doubtful = await self._files.in_thread(self._old_files)

    async def remove_old_tasks(self) -> None:
        """Delete ended tasks past their time (files, then rows) and the tombstones of deleted ones."""
        if self._keep is not None:
            seconds = self._keep.total_seconds()
            while old := await self._database.write(lambda tx: task_rows.ended_before(tx, seconds, _BATCH)):
                await self._files.remove(task.output.name for task in old if task.output)
                ids = [task.id for task in old]
                await self._database.write(partial(task_rows.remove_tasks, ids=ids))
                log.info("old_tasks_removed", tasks=len(ids))
        day = _TOMBSTONES_FOR.total_seconds()
        while await self._database.write(lambda tx: task_rows.remove_tombstones(tx, day, _BATCH)):
            continue

    async def remove_orphans(self, names: Sequence[str]) -> int:
        """Remove those of the files that no row names; how many."""
        removed = 0
        for start in range(0, len(names), _BATCH):
            some = names[start : start + _BATCH]
            named = await self._database.read(partial(references.named_files, names=some))
            orphans = [name for name in some if name not in named]
            await self._files.remove(orphans)
            removed += len(orphans)
        if removed:
            log.info("orphans_removed", files=removed)
        return removed

    def _old_files(self) -> list[str]:
        newest = time.time() - _FILE_IS_OLD.total_seconds()
        names = (name for kind in BlobKind for name in self._files.names(kind))
        return [name for name in names if (age := self._files.modified_at(name)) is not None and age < newest]
