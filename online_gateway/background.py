"""Tasks that run beside whoever began them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from contracts.errors import PlatformError
from service_kit.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")


class Background:
    """Keeps tasks alive until they end or are stopped."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin it. Whoever awaits the task gets what it raises; nobody has to."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel all and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, PlatformError):
            log.error("background_task_failed", exc_info=error)  # a bug; nobody may be waiting for it
