"""What private_api remembers: frozen records, made by storage, read by services. Times are seconds since the epoch."""

from dataclasses import dataclass

from contracts.models import BlobRef, RequestedLimits
from contracts.task_state import TaskState


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored file: its name below the data folder, and its identity."""

    name: str
    sha256: str
    size: int

    @property
    def ref(self) -> BlobRef:
        """The identity alone, as others may see it."""
        return BlobRef(sha256=self.sha256, size=self.size)


@dataclass(frozen=True, slots=True)
class NewModel:
    """A registration that passed its checks."""

    human_readable_id: str
    description: str | None
    container_tag: str
    use_gpu: bool
    input_mountpoint: str
    output_mountpoint: str
    model_mountpoint: str
    limits: RequestedLimits


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A registered model, or one that was deleted since and lives on in its ended tasks."""

    id: int
    uid: str
    registered: NewModel
    content: Blob | None
    created_at: float
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What a poll must know of a task."""

    state: TaskState
    error: str | None
    output: Blob | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task, as it stood when it was read. ``input_name`` is None once the input's bytes are gone."""

    id: int
    uid: str
    model_id: int
    queue: str
    state: TaskState
    attempt: int
    handed_back: int
    lease_owner: str | None
    step: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    error: str | None
    exit_code: int | None
    input_name: str | None
    input: BlobRef
    output: Blob | None
    is_deleted: bool

    @property
    def counted_attempts(self) -> int:
        """The attempts that cost the task one of its tries."""
        return self.attempt - self.handed_back


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt. ``upload`` is an output that arrived and was not committed."""

    number: int
    consumer: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None
    exit_code: int | None
    step_seconds: dict[str, float]
    refused_writes: int
    upload: Blob | None
