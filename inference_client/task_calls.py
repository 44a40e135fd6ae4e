"""The calls about tasks, one method per route; what several of them make together is in waiting and downloading."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx

from contracts import routes
from contracts.errors import OutcomeUnknown, UnknownTask
from contracts.task_state import POLL_FAILED, POLL_NOT_FOUND, POLL_OUTPUT_MISSING, POLL_PENDING, TaskState
from contracts.tasks import TaskStatus
from inference_client.errors import (
    ClientError,
    OutputMissing,
    RequestRefused,
    ServerUnreachable,
    SubmissionUncertain,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskUnfinished,
)
from inference_client.transport import Transport, parsed, refusal
from inference_client.uploading import MultipartFile, OnProgress

STORED_WITHIN = timedelta(minutes=11)
"""The silence allowed after the last byte of an upload: the server syncs and checks an archive of any size first."""

_LOST_BEHIND_PROXY = frozenset({502, 504})


class TaskCalls:
    """Tasks of one server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(self, model: str, zip_path: Path, on_progress: OnProgress | None) -> str:
        """Post a task; never repeated by itself.

        Raises
        ------
        SubmissionUncertain
            The answer was lost after the whole task was sent.
        ServerUnreachable
            The connection ended earlier; no task was made.
        RequestRefused
            404 unknown model, 413 too large, 415 and 422 not a zip or a hostile one, 503 and 507 not storable now.
        """
        body = MultipartFile(zip_path, on_progress)
        try:
            answer = self._transport.request(
                "POST",
                routes.TASKS,
                query={"model_human_readable_id": model},
                headers=body.headers,
                content=body,
                answer_within=STORED_WITHIN,
            )
        except ServerUnreachable as error:
            if body.complete:
                raise SubmissionUncertain(error.message) from error
            raise
        except RequestRefused as error:
            lost = error.status in _LOST_BEHIND_PROXY or error.code == OutcomeUnknown.code
            if body.complete and lost:
                raise SubmissionUncertain(error.message) from error
            raise
        return parsed(str, answer)

    def status(self, uid: str) -> TaskStatus:
        """All that the server tells about the task."""
        return parsed(TaskStatus, self._about(uid, "GET", routes.TASK_STATUS))

    def logs(self, uid: str) -> str:
        """The end of the model's output on stdout and stderr."""
        return self._about(uid, "GET", routes.TASK_LOGS).text

    def cancel(self, uid: str) -> None:
        """Call the task off; its record stays."""
        self._about(uid, "POST", routes.TASK_CANCEL)

    def delete(self, uid: str) -> None:
        """Call the task off where it still lives, and remove its record and files."""
        self._about(uid, "DELETE", routes.TASK)

    def poll(self, uid: str, wait_seconds: int) -> bool:
        """Whether the output is ready, asked on the polling route; the server may hold the answer back for the wait.

        Only the first byte of a ready output is asked for.

        Raises
        ------
        TaskFailed, TaskCancelled, OutputMissing, TaskNotFound
            The task is over, and there is no output.
        """
        query = {"wait": str(wait_seconds)} if wait_seconds else {}
        with self.output(uid, {"Range": "bytes=0-0"}, query, timedelta(seconds=wait_seconds)) as answer:
            if answer.status_code == POLL_PENDING:
                answer.read()  # the connection is kept for the next question
                return False
            if not answer.is_success:
                raise self.without_output(uid, answer)
            return True

    @contextmanager
    def output(
        self, uid: str, headers: dict[str, str], query: dict[str, str] | None = None, wait: timedelta = timedelta(0)
    ) -> Iterator[httpx.Response]:
        """The polling route's answer, of whatever status, its body unread."""
        answer_within = self._transport.timeout + wait
        with self._transport.stream(
            "GET", _path(routes.TASK, uid), query=query, headers=headers, answer_within=answer_within
        ) as answer:
            yield answer

    def without_output(self, uid: str, answer: httpx.Response) -> ClientError:
        """The error that an answer of the polling route stands for, when it is not the output."""
        if answer.status_code == POLL_PENDING:
            return TaskUnfinished(uid)
        if answer.status_code == POLL_NOT_FOUND:
            return TaskNotFound(uid)
        error = refusal(answer)
        if answer.status_code == POLL_OUTPUT_MISSING:
            return OutputMissing(uid, error.detail)
        if answer.status_code != POLL_FAILED:
            return error
        status = self.status(uid)
        if status.state is TaskState.CANCELLED:
            return TaskCancelled(uid, status)
        return TaskFailed(uid, status, self._log_tail(uid))

    def _log_tail(self, uid: str) -> str:
        try:
            return self.logs(uid)
        except (ServerUnreachable, RequestRefused):
            return ""  # the failure is the news; the log may be had later

    def _about(self, uid: str, method: str, route: str) -> httpx.Response:
        try:
            return self._transport.request(method, _path(route, uid))
        except RequestRefused as error:
            if error.code == UnknownTask.code or error.status == POLL_NOT_FOUND:
                raise TaskNotFound(uid) from error
            raise


def _path(route: str, uid: str) -> str:
    return route.format(uid=quote(uid, safe=""))
