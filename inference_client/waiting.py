"""Waiting for the end of a task: long polls within one deadline, patient with a server that is away for a while."""

from collections.abc import Callable
from datetime import timedelta

from contracts.routes import MAX_WAIT_SECONDS
from contracts.tasks import TaskStatus
from inference_client.errors import ClientError, RequestRefused, ServerUnreachable, WaitTimedOut
from inference_client.pacing import Backoff, Deadline
from inference_client.task_calls import TaskCalls

OnStatus = Callable[[TaskStatus], None]
OnTrouble = Callable[[ClientError], None]

_WATCHED_WAIT_SECONDS = 2
"""How long one poll waits while somebody watches the status: its news are never older."""
_EARLY = timedelta(milliseconds=500)
"""A server that answers 'pending' sooner than asked by more than this does not hold answers back; then we pause."""
_SLOWEST_POLL = timedelta(seconds=2)


def wait_for_end(
    calls: TaskCalls, uid: str, timeout: timedelta, on_status: OnStatus | None, on_trouble: OnTrouble | None
) -> TaskStatus:
    """Wait until the task is finished; its last status.

    Refused connections, cut ones and statuses that promise better times (503, 429, and a proxy's 502 and 504) are
    tried again with growing pauses; each is told to ``on_trouble``.

    Raises
    ------
    WaitTimedOut
        The time is up; the task goes on.
    TaskFailed, TaskCancelled, OutputMissing, TaskNotFound
        The task is over, and there is no output.
    """
    wait = _Wait(calls, uid, Deadline(timeout), on_status)
    backoff = Backoff()
    while True:
        try:
            status = wait.look()
        except (ServerUnreachable, RequestRefused) as error:
            if isinstance(error, RequestRefused) and not error.is_temporary:
                raise
            if on_trouble is not None:
                on_trouble(error)
            retry_after = error.retry_after if isinstance(error, RequestRefused) else None
            if not wait.deadline.pause(backoff.pause(retry_after)):
                raise WaitTimedOut(uid, timeout, error) from error
        else:
            if status is not None:
                return status
            if wait.deadline.expired:
                raise WaitTimedOut(uid, timeout)
            backoff.reset()


class _Wait:
    """One wait: what it asks, and how fast it asks a server that does not hold answers back."""

    def __init__(self, calls: TaskCalls, uid: str, deadline: Deadline, on_status: OnStatus | None) -> None:
        self.deadline = deadline
        self._calls = calls
        self._uid = uid
        self._on_status = on_status
        self._pauses = Backoff(most=_SLOWEST_POLL)

    def look(self) -> TaskStatus | None:
        """One held poll, after a status where somebody watches; the last status once the task is finished."""
        if self._on_status is not None:
            status = self._calls.status(self._uid)
            if not status.state.is_final:
                self._on_status(status)
        if not self._poll():
            return None
        status = self._calls.status(self._uid)
        if self._on_status is not None:
            self._on_status(status)
        return status

    def _poll(self) -> bool:
        left = self.deadline.remaining
        most = MAX_WAIT_SECONDS if self._on_status is None else _WATCHED_WAIT_SECONDS
        asked = min(most, int(left.total_seconds()))
        if self._calls.poll(self._uid, asked):
            return True
        held = left - self.deadline.remaining
        if asked == 0 or timedelta(seconds=asked) - held > _EARLY:
            self.deadline.pause(self._pauses.pause())
        return False
