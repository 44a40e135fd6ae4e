"""Waiting for the end of a task: long polls within one deadline, patient with a server that is away for a while."""

from collections.abc import Callable
from datetime import timedelta

from contracts.routes import MAX_WAIT_SECONDS
from contracts.task_state import TaskState
from contracts.tasks import TaskStatus
from inference_client.errors import ClientError, RequestRefused, ServerUnreachable, WaitTimedOut
from inference_client.pacing import Backoff, Deadline
from inference_client.task_calls import TaskCalls

OnStatus = Callable[[TaskStatus], None]
OnTrouble = Callable[[ClientError], None]

_WATCHED_WAIT_SECONDS = 2
"""How long one poll waits while somebody watches the status: its news are never older."""
_EARLY = timedelta(milliseconds=500)
"""A server that answers 'pending' sooner than asked by more than this does not hold answers back."""


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
    deadline = Deadline(timeout)
    backoff = Backoff()
    while True:
        trouble: ClientError | None = None
        try:
            if _is_over(calls, uid, deadline, on_status):
                status = calls.status(uid)
                if on_status is not None:
                    on_status(status)
                return status
            backoff.reset()
        except ServerUnreachable as error:
            trouble = error
        except RequestRefused as error:
            if not error.is_temporary:
                raise
            trouble = error
        if trouble is not None and on_trouble is not None:
            on_trouble(trouble)
        retry_after = trouble.retry_after if isinstance(trouble, RequestRefused) else None
        if deadline.expired or (trouble is not None and not deadline.pause(backoff.pause(retry_after))):
            raise WaitTimedOut(uid, timeout, trouble)


def _is_over(calls: TaskCalls, uid: str, deadline: Deadline, on_status: OnStatus | None) -> bool:
    """One look at the task, and one held poll."""
    if on_status is not None:
        status = calls.status(uid)
        if status.state is TaskState.FINISHED:
            return calls.poll(uid, 0)
        on_status(status)
    most = MAX_WAIT_SECONDS if on_status is None else _WATCHED_WAIT_SECONDS
    asked = min(most, int(deadline.remaining.total_seconds()))
    before = deadline.remaining
    if calls.poll(uid, asked):
        return True
    held = before - deadline.remaining
    unheld = timedelta(seconds=asked) - held
    if unheld > _EARLY or asked == 0:
        deadline.pause(min(max(unheld, _EARLY), timedelta(seconds=_WATCHED_WAIT_SECONDS)))
    return False
