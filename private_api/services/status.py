"""What the status routes say of tasks and models, and why a task waits."""

from collections.abc import Callable
from datetime import UTC, datetime

from contracts.models import ModelView
from contracts.queue import QUEUE_GPU
from contracts.task_state import TaskState
from contracts.tasks import AttemptView, Step, TaskStatus
from private_api.records import AttemptRecord, ModelRecord, TaskRecord
from private_api.services.presence import Presence
from private_api.services.tasks import existing_task
from private_api.storage import attempts as attempt_rows
from private_api.storage import models as model_rows
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction


class StatusReader:
    """Reads a task as its user should see it. ``broker_trouble`` says what is wrong with the broker, or None."""

    def __init__(
        self, database: Database, presence: Presence, max_attempts: int, broker_trouble: Callable[[], str | None]
    ) -> None:
        self._database = database
        self._presence = presence
        self._max_attempts = max_attempts
        self._broker_trouble = broker_trouble

    async def read(self, uid: str) -> TaskStatus:
        """The status; UnknownTask when there is no such task."""
        return await self._database.read(lambda tx: self._status(tx, uid))

    def _status(self, tx: Transaction, uid: str) -> TaskStatus:
        task = existing_task(tx, uid)
        is_pending = task.state is TaskState.PENDING
        return TaskStatus(
            state=task.state,
            model=model_rows.model_of_task(tx, task.model_id).registered.human_readable_id,
            position=task_rows.pending_ahead(tx, task) + 1 if is_pending else None,
            waiting_for=self._waiting_for(tx, task) if is_pending else None,
            attempt=task.attempt,
            max_attempts=self._max_attempts + task.handed_back,
            step=Step(task.step) if task.step else None,
            created_at=_utc(task.created_at),
            started_at=_utc_or_none(task.started_at),
            ended_at=_utc_or_none(task.ended_at),
            error=task.error,
            exit_code=task.exit_code,
            input=task.input,
            output=task.output.ref if task.output else None,
            attempts=[_attempt_view(attempt) for attempt in attempt_rows.list_attempts(tx, task.id)],
        )

    def _waiting_for(self, tx: Transaction, task: TaskRecord) -> str:
        able = self._presence.who_could_run(task.queue)
        if not able:
            return self._why_nobody(task.queue)
        trouble = self._presence.trouble_of(able)
        if trouble is not None:
            return f"No consumer can work now. {trouble}"
        trouble = self._broker_trouble()
        if trouble is not None:
            return f"The message broker is away, and consumers hear of the task when it is back. {trouble}"
        if able <= task_rows.running_owners(tx):
            kind = " with a GPU" if task.queue == QUEUE_GPU else ""
            who = f"The only consumer{kind} is" if len(able) == 1 else f"All {len(able)} consumers{kind} are"
            return f"{who} busy."
        return "A consumer is about to take it."

    def _why_nobody(self, queue: str) -> str:
        if not self._presence.living():
            return "No consumer is connected; the task starts when the operator starts one."
        if queue == QUEUE_GPU:
            return "The model needs a GPU, and no consumer with a GPU is connected."
        return "All connected consumers are kept for models that need a GPU."


def model_view(model: ModelRecord) -> ModelView:
    """The model as the public API shows it."""
    registered = model.registered
    return ModelView(
        uid=model.uid,
        human_readable_id=registered.human_readable_id,
        description=registered.description,
        container_tag=registered.container_tag,
        use_gpu=registered.use_gpu,
        model_available=model.content is not None,
        input_mountpoint=registered.input_mountpoint,
        output_mountpoint=registered.output_mountpoint,
        model_mountpoint=registered.model_mountpoint,
        limits=registered.limits,
        content=model.content.ref if model.content else None,
        created_at=_utc(model.created_at),
    )


def _attempt_view(attempt: AttemptRecord) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        started_at=_utc(attempt.started_at),
        ended_at=_utc_or_none(attempt.ended_at),
        outcome=attempt.outcome,
        reason=attempt.reason,
        exit_code=attempt.exit_code,
        step_seconds={Step(name): seconds for name, seconds in attempt.step_seconds.items()},
        refused_writes=attempt.refused_writes,
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _utc_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _utc(seconds)
