"""Who waits for what: polls for the end of a task, consumers for the next one. Lives in the event loop alone."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from contracts.task_state import TaskState


class Wakeups:
    """Told of every committed move of a task; wakes those who wait for it.

    ``on_pending`` is called for each task that became pending, to tell the publisher.
    """

    def __init__(self, on_pending: Callable[[], None]) -> None:
        self._on_pending = on_pending
        self._ends: dict[str, set[asyncio.Event]] = {}
        self._idle: deque[tuple[Sequence[str], asyncio.Event]] = deque()
        self.is_closed = False

    def moved(self, uid: str, queue: str, state: TaskState) -> None:
        """A task was committed in this state."""
        if state.is_final:
            for event in self._ends.get(uid, ()):
                event.set()
        elif state is TaskState.PENDING:
            self._on_pending()
            self.wake_one(queue)

    @contextmanager
    def end_of(self, uid: str) -> Iterator[asyncio.Event]:
        """An event that is set when the task becomes final; made before the state is read, it misses nothing."""
        event = self._open_event()
        self._ends.setdefault(uid, set()).add(event)
        try:
            yield event
        finally:
            self._ends[uid].discard(event)
            if not self._ends[uid]:
                del self._ends[uid]

    @contextmanager
    def next_of(self, queues: Sequence[str]) -> Iterator[asyncio.Event]:
        """An event that is set when a task of these queues became pending and it is this waiter's turn."""
        entry = (queues, self._open_event())
        self._idle.append(entry)
        try:
            yield entry[1]
        finally:
            if entry in self._idle:
                self._idle.remove(entry)

    def close(self) -> None:
        """The service stops: all waits end now, and later ones do not begin."""
        self.is_closed = True
        for event in [*(event for events in self._ends.values() for event in events), *(e for _, e in self._idle)]:
            event.set()

    def wake_one(self, queue: str) -> None:
        """One task, one consumer: waking all would send all but one away with nothing."""
        for entry in self._idle:
            if queue in entry[0]:
                self._idle.remove(entry)
                entry[1].set()
                return

    def _open_event(self) -> asyncio.Event:
        event = asyncio.Event()
        if self.is_closed:
            event.set()
        return event


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
