"""What a test tells the scripted wire server to do: tasks with the states that they pass through, and mishaps."""

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.models import BlobRef
from contracts.task_state import TaskState
from contracts.tasks import AttemptView, Step, TaskStatus

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def zip_of(**files: bytes) -> bytes:
    """A zip with these files; a double underscore in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


@dataclass
class ScriptedTask:
    """What the server tells of one task. ``states`` are passed through, one per look at the polling route."""

    uid: str
    model: str = "pass_through"
    states: list[TaskState] = field(default_factory=lambda: [TaskState.FINISHED])
    output: bytes = field(default_factory=lambda: zip_of(**{"result.txt": b"done"}))
    announced_sha256: str | None = None
    output_gone: bool = False
    error: str | None = None
    exit_code: int | None = None
    log: str = "the model's log\n"
    waiting_for: str | None = None

    @property
    def state(self) -> TaskState:
        return self.states[0]

    def look(self) -> TaskState:
        """The state that the polling route tells; the next look may tell another."""
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def status(self) -> TaskStatus:
        finished = self.state is TaskState.FINISHED
        sha256 = self.announced_sha256 or hashlib.sha256(self.output).hexdigest()
        attempts = [] if self.state is TaskState.PENDING else [_attempt(self)]
        return TaskStatus(
            state=self.state,
            model=self.model,
            position=3 if self.state is TaskState.PENDING else None,
            waiting_for=self.waiting_for if self.state is TaskState.PENDING else None,
            attempt=len(attempts),
            max_attempts=3,
            step=Step.RUN if self.state is TaskState.RUNNING else None,
            created_at=NOW,
            started_at=NOW if attempts else None,
            ended_at=NOW if self.state.is_final else None,
            error=self.error,
            exit_code=self.exit_code,
            input=BlobRef(sha256="0" * 64, size=1),
            output=BlobRef(sha256=sha256, size=len(self.output)) if finished else None,
            attempts=attempts,
        )


def _attempt(task: ScriptedTask) -> AttemptView:
    ended = task.state.is_final
    return AttemptView(
        number=1,
        started_at=NOW,
        ended_at=NOW if ended else None,
        outcome="succeeded" if ended else None,
        reason=task.error,
        exit_code=task.exit_code,
        step_seconds={Step.STAGE: 0.5, Step.RUN: 12.3} if ended else {},
        refused_writes=0,
    )


@dataclass
class Mishap:
    """What happens, once, to a request whose method and path match."""

    method: str
    path: str
    status: int | None = None
    """Answered with this status."""
    detail: str = "scripted"
    code: str = "scripted"
    body: bytes | None = None
    """Answered with this instead of the JSON error body."""
    headers: dict[str, str] = field(default_factory=dict)
    before_body: bool = False
    """Answered before the body is read, and the connection closed."""
    cut_after: int | None = None
    """The connection is cut after so many bytes of the answer's body; -1: before any answer, with the request read."""
    times: int = 1


@dataclass(frozen=True)
class Seen:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body_bytes: int
