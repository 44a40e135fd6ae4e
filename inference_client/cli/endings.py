"""How a command ends: one line on stderr, with --json one object on stdout, and the exit status.

====  ==================================================================================================
0     done
1     the task failed or was cancelled
2     wrong usage, or a local file that cannot be read or written
3     the server does not answer, cannot serve now, or answered what is not understood
4     the server refused: unknown model or task, too large, not a zip, id taken, output gone
5     the task was not over in time; it goes on
130   interrupted; the task goes on
====  ==================================================================================================
"""

import json
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from inference_client.cli.invocation import Invocation

if TYPE_CHECKING:
    from contracts.errors import PlatformError
    from inference_client.errors import ClientError, TaskFailed

TASK_FAILED = 1
USAGE = 2
UNAVAILABLE = 3
REFUSED = 4
TIMED_OUT = 5
INTERRUPTED = 130

_LOG_LINES = 20
_SERVER_ERROR = 500

_BY_CODE = {
    "task_cancelled": (TASK_FAILED, False),
    "task_unfinished": (TIMED_OUT, True),
    "wait_timed_out": (TIMED_OUT, True),
    "task_not_found": (REFUSED, False),
    "output_missing": (REFUSED, False),
    "server_unreachable": (UNAVAILABLE, True),
    "submission_uncertain": (UNAVAILABLE, True),
    "answer_not_understood": (UNAVAILABLE, True),
    "output_damaged": (UNAVAILABLE, True),
}
"""Exit status, and whether the task lives; the client's other errors lie on this side of the wire."""


@dataclass(frozen=True)
class Ending:
    """One way for a command to end badly."""

    exit_status: int
    kind: str
    message: str
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the error, for programs."""
    below: str = ""
    """Further lines, for people."""
    task_lives: bool = False
    """Whether it makes sense to say how to go on with the task."""

    def tell(self, invocation: Invocation, out: IO[str], err: IO[str]) -> int:
        """Print it; the exit status."""
        if invocation.as_json:
            error = {"kind": self.kind, "message": self.message, **self.more}
            print(json.dumps({"ok": False, "uid": invocation.uid, "error": error}), file=out)
        print(f"infer: {printable(' '.join(self.message.split()))}", file=err)
        if self.below and not invocation.as_json:
            print(printable(self.below), file=err)
        if self.task_lives and invocation.go_on and not invocation.as_json:
            print(f"infer: go on with: {invocation.go_on}", file=err)
        return self.exit_status


def printable(text: str) -> str:
    """Without the control characters that could steer a terminal; a model's log may hold any."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def ending_of_interrupt(message: str) -> Ending:
    """Ctrl-C."""
    return Ending(INTERRUPTED, "interrupted", message or "interrupted.", task_lives=True)


def ending_of_local_file(error: OSError) -> Ending:
    """Something on this machine that cannot be read or written."""
    message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return Ending(USAGE, "local_file", message, task_lives=True)


def ending_of(error: "ClientError | PlatformError") -> Ending:
    """The ending that an error of the client, or of what it reads locally by the contracts, stands for."""
    from inference_client import errors

    if isinstance(error, errors.TaskFailed):
        return _failed(error)
    if isinstance(error, errors.RequestRefused):
        temporary = error.is_temporary or error.status >= _SERVER_ERROR
        exit_status = UNAVAILABLE if temporary else REFUSED
        return Ending(exit_status, error.code, error.message, {"status": error.status}, task_lives=temporary)
    exit_status, task_lives = _BY_CODE.get(error.code, (USAGE, True))
    return Ending(exit_status, error.code, error.message, task_lives=task_lives)


def _failed(error: "TaskFailed") -> Ending:
    """A failed task, with the end of what its model wrote."""
    exit_code = error.status.exit_code
    message = error.message
    if exit_code is not None and str(exit_code) not in (error.status.error or ""):
        message = f"{message} (exit code {exit_code})"
    tail = "\n".join(error.log_tail.splitlines()[-_LOG_LINES:])
    more = {"reason": error.status.error, "exit_code": exit_code, "log_tail": error.log_tail}
    return Ending(TASK_FAILED, error.code, message, more, below=tail)
