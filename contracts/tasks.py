"""Tasks as they cross the wire: what users read, and what passes between private_api and its consumers."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from contracts.models import BlobRef, ModelForRun
from contracts.task_state import TaskState

UID_BYTES = 32
"""Entropy of a task's uid: ``secrets.token_urlsafe(UID_BYTES)``. Whoever holds it may read the result."""

LOG_TAIL_BYTES = 64 * 1024
"""How much of a container's log is kept, from its end."""


def short_uid(uid: str) -> str:
    """A uid as it may stand in a log line: enough to search for, too little to use."""
    return uid[:8] + "…"


class Step(StrEnum):
    """The steps of one attempt, in order; their durations are reported under these names."""

    STAGE = "stage"
    """Input and model content brought to the host, the container created."""
    RUN = "run"
    """From the start of the model to its end."""
    COLLECT = "collect"
    """The output read and zipped."""
    UPLOAD = "upload"
    """The zip sent to private_api."""


class Outcome(StrEnum):
    """How an attempt ended, as its consumer reports it."""

    SUCCEEDED = "succeeded"
    """Exit code 0; the output was uploaded. Final."""
    MODEL_FAILED = "model_failed"
    """Exit code not 0, timeout, out of memory, image refused: the model's own doing. Final."""
    PLATFORM_FAILED = "platform_failed"
    """Our doing (engine gone, disk full, upload refused): another attempt, while there are any."""
    HANDED_BACK = "handed_back"
    """The consumer stops; another one takes the task, and the attempt is not counted."""
    CANCELLED = "cancelled"
    """Stopped because a heartbeat answered with a cancel."""


class Assignment(BaseModel):
    """All that a consumer needs to run one attempt of one task."""

    model_config = ConfigDict(frozen=True)

    task_id: int = Field(description="Internal number; stands in labels, where the uid must not.")
    uid: str
    attempt: int = Field(description="Fencing token; every write of this attempt carries it.")
    input: BlobRef
    model: ModelForRun


class Claim(Assignment):
    """A granted claim: the task is this consumer's until the lease lapses."""

    lease_seconds: float


class StagingOffer(Assignment):
    """The task that this consumer would probably get next; it may stage it, and owns nothing.

    ``attempt`` is the number that a claim would get now. The task stays pending and free for all.
    """


class ClaimRequest(BaseModel):
    """Who claims, and what it can run."""

    consumer: str = Field(description="The consumer's id, unique among living consumers.")
    has_gpu: bool


class TaskOffer(BaseModel):
    """One task id that waits for a consumer; the message on the queue and the answer of the long poll."""

    model_config = ConfigDict(frozen=True)

    uid: str


class HeartbeatRequest(BaseModel):
    """An attempt says that it lives."""

    consumer: str
    step: Step


class HeartbeatAnswer(BaseModel):
    """The lease runs from now for so long, or the task was called off."""

    lease_seconds: float
    cancel: bool


class FinishReport(BaseModel):
    """How an attempt ended. ``output`` names the uploaded zip and is required for SUCCEEDED alone."""

    consumer: str
    outcome: Outcome
    reason: str | None = Field(default=None, description="One sentence for the user; None when it succeeded.")
    exit_code: int | None = None
    log_tail: str = Field(default="", description="The end of the container's log, at most LOG_TAIL_BYTES.")
    output: BlobRef | None = None
    step_seconds: dict[Step, float] = Field(default_factory=dict)


class FinishAnswer(BaseModel):
    """The state that the task has after the report."""

    state: TaskState


class AttemptRef(BaseModel):
    """Names the attempt that a container or volume on some host belongs to."""

    model_config = ConfigDict(frozen=True)

    task_id: int
    attempt: int
    consumer: str


class ConsumerPresence(BaseModel):
    """What a living consumer says of itself, every few seconds."""

    host: str
    has_gpu: bool
    gpu_uuid: str | None = None
    takes_cpu: bool = True
    runner: str
    trouble: str | None = Field(default=None, description="Why it takes no task now (engine away, scratch disk full).")


class PlatformInfo(BaseModel):
    """What a consumer must know before it starts."""

    installation: str = Field(description="Id of this platform; labels carry it, so that two may share an engine.")
    lease_seconds: float


class AttemptView(BaseModel):
    """One attempt, as the status route shows it. Times are UTC."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None = Field(description="An Outcome, or 'lease_lapsed'; None while it runs.")
    reason: str | None
    exit_code: int | None
    step_seconds: dict[Step, float]
    refused_writes: int = Field(description="Writes of this attempt that came too late and were refused.")


class TaskStatus(BaseModel):
    """The answer of GET /api/tasks/{uid}/status. Times are UTC."""

    state: TaskState
    model: str = Field(description="The model's human readable id.")
    position: int | None = Field(description="1 for the next task of its queue; None unless pending.")
    waiting_for: str | None = Field(description="Why a pending task does not run yet, in one sentence.")
    attempt: int = Field(description="Number of the current or last attempt; 0 before the first.")
    max_attempts: int
    step: Step | None = Field(description="What the running attempt is doing.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    exit_code: int | None
    input: BlobRef
    output: BlobRef | None
    attempts: list[AttemptView]
