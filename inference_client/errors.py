"""What can go wrong, as the caller meets it.

    ClientError
    ├── ServerUnreachable          no answer: not there, cut off, too slow
    │   └── SubmissionUncertain    cut off after the whole task was sent: it may or may not exist
    ├── AnswerNotUnderstood        something answers at this address, and it is not this platform
    ├── RequestRefused             an answer with an error status; carries status, code and the server's sentence
    ├── TaskFailed                 the model failed, or the platform ran out of attempts; carries the log's tail
    ├── TaskCancelled
    ├── TaskNotFound               never existed, or was deleted
    ├── TaskUnfinished             its output was asked for too early
    ├── OutputMissing              finished, but the platform no longer has the output
    ├── OutputDamaged              the bytes that came are not the ones that the server announced
    ├── WaitTimedOut               not over in time; the task goes on
    └── InputRefused               a local file or folder that cannot be sent

``code`` is stable and meant for programs, the message for people. Messages name a task by the beginning of its uid,
since whoever holds a whole uid may read the result; the attribute ``uid`` has all of it.
"""

from datetime import timedelta
from typing import ClassVar

from contracts.tasks import TaskStatus, short_uid

_TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})


class ClientError(Exception):
    """Any error that the client raises on purpose."""

    code: ClassVar[str] = "client_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ServerUnreachable(ClientError):
    """No answer came: nobody listens there, the connection was cut, or the time was up."""

    code = "server_unreachable"


class SubmissionUncertain(ServerUnreachable):
    """The connection ended after the whole task was sent and before its uid came: never repeated by the client."""

    code = "submission_uncertain"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why} The task was sent whole, but its uid did not come back: it may or may not exist. "
            "Posting it again may run it twice."
        )


class AnswerNotUnderstood(ClientError):
    """Something answers at this address, but not as this platform does."""

    code = "answer_not_understood"


class RequestRefused(ClientError):
    """The server answered with an error; ``detail`` is its own sentence.

    Attributes
    ----------
    status
        The HTTP status.
    code
        The server's stable word for the error, such as ``unknown_model``.
    retry_after
        The pause that the server asks for before the next try, where it named one.
    """

    code = "request_refused"

    def __init__(self, status: int, code: str, detail: str, retry_after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code  # type: ignore[misc]  # the server's word stands in for the class's
        self.detail = detail
        self.retry_after = retry_after

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in _TEMPORARY_STATUSES


class _AboutTask(ClientError):
    """An error about one task, whose whole uid it carries."""

    def __init__(self, uid: str, message: str) -> None:
        super().__init__(message)
        self.uid = uid


class TaskFailed(_AboutTask):
    """The task ended without a result: the model's doing, or the platform ran out of attempts."""

    code = "task_failed"

    def __init__(self, uid: str, status: TaskStatus, log_tail: str = "") -> None:
        reason = status.error or "no reason was given"
        super().__init__(uid, f"Task {short_uid(uid)} failed: {reason}")
        self.status = status
        self.log_tail = log_tail


class TaskCancelled(_AboutTask):
    """The task was called off."""

    code = "task_cancelled"

    def __init__(self, uid: str, status: TaskStatus) -> None:
        super().__init__(uid, f"Task {short_uid(uid)} was cancelled.")
        self.status = status


class TaskNotFound(_AboutTask):
    """The server knows no task of this uid: it never existed here, or it was deleted."""

    code = "task_not_found"

    def __init__(self, uid: str) -> None:
        super().__init__(uid, f"This server has no task {short_uid(uid)}; it was deleted, or posted to another server.")


class TaskUnfinished(_AboutTask):
    """The output was asked for while the task is pending or running."""

    code = "task_unfinished"

    def __init__(self, uid: str) -> None:
        super().__init__(uid, f"Task {short_uid(uid)} is not over yet; wait for it first.")


class OutputMissing(_AboutTask):
    """The task finished, but the platform no longer has its output."""

    code = "output_missing"

    def __init__(self, uid: str, detail: str) -> None:
        super().__init__(uid, detail or f"Task {short_uid(uid)} finished, but its output is gone.")


class OutputDamaged(_AboutTask):
    """The download does not have the length or hash that the server announced, or is no readable zip."""

    code = "output_damaged"


class WaitTimedOut(_AboutTask):
    """The task was not over in time. It goes on; wait again with the same uid."""

    code = "wait_timed_out"

    def __init__(self, uid: str, waited: timedelta, trouble: ClientError | None = None) -> None:
        because = f" The last answer was: {trouble.message}" if trouble else ""
        super().__init__(
            uid, f"Task {short_uid(uid)} was not over within {waited.total_seconds():g} s; it goes on.{because}"
        )


class InputRefused(ClientError):
    """A local file or folder that cannot be packed or sent as it is."""

    code = "input_refused"
