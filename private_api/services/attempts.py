"""What consumers do with a task: claim, heartbeat, output, finish. Each write is fenced by the attempt's number.

A write of an attempt that is no longer the current one is refused, counted, and changes nothing else.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from contracts.errors import ClaimRefused, InvalidRequest, StaleAttempt
from contracts.models import BlobRef, ModelForRun
from contracts.queue import QUEUE_GPU
from contracts.task_state import TaskState
from contracts.tasks import (
    LOG_TAIL_BYTES,
    AttemptRef,
    Claim,
    FinishReport,
    HeartbeatAnswer,
    Outcome,
    Step,
    short_uid,
)
from private_api.records import AttemptRecord, Blob, ModelRecord, TaskRecord
from private_api.services.limits import LimitPolicy
from private_api.services.presence import Presence
from private_api.services.tasks import Move, Moves, is_uid
from private_api.storage import attempts as attempt_rows
from private_api.storage import models as model_rows
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction
from private_api.storage.files import BlobKind, BlobStore, Piece
from service_kit.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_STALE = "This attempt is not the current one any more: stop it, clean up, write nothing more."
_LARGEST_EXIT_CODE = 2**31 - 1
_LARGEST_ID = 2**63 - 1

_STATE_AFTER = {
    Outcome.SUCCEEDED: TaskState.FINISHED,
    Outcome.MODEL_FAILED: TaskState.FAILED,
    Outcome.PLATFORM_FAILED: TaskState.PENDING,
    Outcome.HANDED_BACK: TaskState.PENDING,
    Outcome.CANCELLED: TaskState.PENDING,
}
"""What the report of an attempt led to, unless it ended its task in another way."""


class Attempts:
    """The consumers' side of tasks."""

    def __init__(
        self,
        database: Database,
        files: BlobStore,
        moves: Moves,
        limits: LimitPolicy,
        presence: Presence,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._files = files
        self._moves = moves
        self._limits = limits
        self._presence = presence
        self._lease_seconds = lease_seconds

    async def claim(self, uid: str, consumer: str, *, has_gpu: bool) -> Claim:
        """Give the task to the consumer: attempt + 1 and a lease by the database's clock.

        A consumer that did not hear the answer may ask again until its first heartbeat, and gets the same one.

        Raises
        ------
        ClaimRefused
            Another consumer has it, it is over, it needs a GPU, or there is no such task.
        """

        def take(tx: Transaction) -> Claim:
            task = _lock(tx, uid)
            if task is None or task.is_deleted:
                raise ClaimRefused("There is no such task; forget it.")
            attempt = task.attempt
            if _is_current(task, task.attempt, consumer) and task.step is None:
                task_rows.set_lease(tx, task, None, self._lease_seconds)
            elif task.state is not TaskState.PENDING:
                raise ClaimRefused(f"The task is {task.state}; forget it.")
            elif task.queue == QUEUE_GPU and not has_gpu:
                raise ClaimRefused("The task needs a GPU, and this consumer has none.")
            else:
                attempt = self._moves.start(tx, task, consumer, self._lease_seconds)
            model = self.model_for_run(model_rows.model_of_task(tx, task.model_id))
            return Claim(
                task_id=task.id,
                uid=uid,
                attempt=attempt,
                input=task.input,
                model=model,
                lease_seconds=self._lease_seconds,
            )

        claim = await self._database.write(take)
        log.info("task_claimed", task_id=claim.task_id, task=short_uid(uid), attempt=claim.attempt, consumer=consumer)
        return claim

    def model_for_run(self, model: ModelRecord) -> ModelForRun:
        """The model, with its limits decided."""
        registered = model.registered
        return ModelForRun(
            uid=model.uid,
            human_readable_id=registered.human_readable_id,
            container_tag=registered.container_tag,
            use_gpu=registered.use_gpu,
            input_mountpoint=registered.input_mountpoint,
            output_mountpoint=registered.output_mountpoint,
            model_mountpoint=registered.model_mountpoint,
            limits=self._limits.resolve(registered.limits),
            content=model.content.ref if model.content else None,
        )

    async def heartbeat(self, uid: str, attempt: int, consumer: str, step: Step) -> HeartbeatAnswer:
        """Let the lease begin anew, or tell the attempt that its task was called off.

        Raises
        ------
        StaleAttempt
            The attempt is not the current one.
        """

        def beat(tx: Transaction) -> HeartbeatAnswer:
            task = _lock(tx, uid)
            if task is not None and _is_called_off(task, attempt, consumer):
                return HeartbeatAnswer(lease_seconds=self._lease_seconds, cancel=True)
            task_rows.set_lease(tx, _must_be_current(task, attempt, consumer), step.value, self._lease_seconds)
            return HeartbeatAnswer(lease_seconds=self._lease_seconds, cancel=False)

        return await self._fenced(uid, attempt, consumer, beat)

    async def put_output(
        self, uid: str, attempt: int, consumer: str, chunks: AsyncIterator[Piece], most_bytes: int
    ) -> BlobRef:
        """Keep the attempt's output until FINISH commits it; a second one of the same attempt replaces the first.

        Raises
        ------
        StaleAttempt
            The attempt was not the current one when the output began, or when it was complete. No file is left.
        """

        def check(tx: Transaction) -> TaskRecord:
            return _must_be_current(_lock(tx, uid), attempt, consumer)

        task = await self._fenced(uid, attempt, consumer, check)
        blob = await self._files.receive(BlobKind.OUTPUT, chunks, most_bytes, prefix=f"{task.id}-{attempt}-")

        def keep(tx: Transaction) -> tuple[str, ...]:
            replaced = attempt_rows.find_attempt(tx, check(tx).id, attempt)
            attempt_rows.set_upload(tx, task.id, attempt, blob)
            return _upload_name(replaced)

        try:
            unneeded = await self._fenced(uid, attempt, consumer, keep)
        except StaleAttempt:
            await self._files.remove([blob.name])  # other errors leave the commit in doubt, the file to the sweep
            raise
        await self._files.remove(unneeded)
        return blob.ref

    async def finish(self, uid: str, attempt: int, report: FinishReport) -> TaskState:
        """Record how the attempt ended and move the task; the same report again gets the same answer.

        Raises
        ------
        StaleAttempt
            The attempt is not the current one, or ended differently.
        InvalidRequest
            It reports success with an output that was not uploaded.
        """

        def end(tx: Transaction) -> tuple[TaskState, Move | None]:
            task = _lock(tx, uid)
            record = None if task is None else attempt_rows.find_attempt(tx, task.id, attempt)
            if task is None or record is None or record.consumer != report.consumer:
                raise StaleAttempt(_STALE)
            if record.ended_at is not None:
                if record.outcome != report.outcome:
                    raise StaleAttempt(_STALE)
                return _state_after(task, record, report.outcome), None
            if _is_called_off(task, attempt, report.consumer):
                _close(tx, task, attempt, report)
                return TaskState.CANCELLED, None
            move = self._move(tx, _must_be_current(task, attempt, report.consumer), record, report)
            if move.to is not TaskState.FINISHED:
                move = move.freeing(_upload_name(record))
            _close(tx, task, attempt, report)
            return move.to, move

        state, move = await self._fenced(uid, attempt, report.consumer, end)
        if move is not None:
            await self._moves.tell(move)
        return state

    async def stale(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those whose work on some host nobody waits for.

        Wanted is the running attempt, and the next one of a pending task where its consumer lives: it may be staging.
        """
        ids = {one.task_id for one in attempts if 0 < one.task_id <= _LARGEST_ID}
        found = await self._database.read(lambda tx: task_rows.find_tasks(tx, ids)) if ids else []
        tasks = {task.id: task for task in found}
        return [one for one in attempts if not self._is_wanted(tasks.get(one.task_id), one)]

    async def _fenced(self, uid: str, attempt: int, consumer: str, work: Callable[[Transaction], T]) -> T:
        """Run a write of an attempt; where it proves stale it is undone, counted and logged."""
        try:
            return await self._database.write(work)
        except StaleAttempt:
            log.warning("stale_write_refused", task=short_uid(uid), attempt=attempt, consumer=consumer)
            await self._database.write(lambda tx: _count_refused(tx, uid, attempt, consumer))
            raise

    def _is_wanted(self, task: TaskRecord | None, attempt: AttemptRef) -> bool:
        if task is None:
            return False
        is_staging = task.state is TaskState.PENDING and attempt.attempt == task.attempt + 1
        is_running = _is_current(task, attempt.attempt, attempt.consumer)
        return is_running or (is_staging and self._presence.may_live(attempt.consumer))

    def _move(self, tx: Transaction, task: TaskRecord, record: AttemptRecord, report: FinishReport) -> Move:
        reason = _clean(report.reason or "")
        exit_code = _exit_code(report)
        match report.outcome:
            case Outcome.SUCCEEDED:
                output = _uploaded(record, report.output)
                return self._moves.end(tx, task, TaskState.FINISHED, exit_code=exit_code, output=output)
            case Outcome.MODEL_FAILED:
                error = reason or "The model failed; its log may say why."
                return self._moves.end(tx, task, TaskState.FAILED, error, exit_code)
            case Outcome.HANDED_BACK:
                return self._moves.requeue(tx, task, handed_back=True)
            case Outcome.PLATFORM_FAILED | Outcome.CANCELLED:
                # A cancel that nobody asked for counts as trouble of the platform's own, lest it go on for ever.
                error = reason or "The platform could not run the task."
                return self._moves.retry_or_fail(tx, task, error, exit_code)


def _state_after(task: TaskRecord, record: AttemptRecord, outcome: Outcome) -> TaskState:
    """The state in which an ended attempt left its task, whatever became of the task since."""
    if task.state.is_final and task.attempt == record.number and task.lease_owner == record.consumer:
        return task.state
    return _STATE_AFTER[outcome]


def _lock(tx: Transaction, uid: str) -> TaskRecord | None:
    return task_rows.lock_task(tx, uid) if is_uid(uid) else None


def _is_current(task: TaskRecord, attempt: int, consumer: str) -> bool:
    return task.state is TaskState.RUNNING and task.attempt == attempt and task.lease_owner == consumer


def _is_called_off(task: TaskRecord, attempt: int, consumer: str) -> bool:
    return task.state is TaskState.CANCELLED and task.attempt == attempt and task.lease_owner == consumer


def _must_be_current(task: TaskRecord | None, attempt: int, consumer: str) -> TaskRecord:
    if task is None or not _is_current(task, attempt, consumer):
        raise StaleAttempt(_STALE)
    return task


def _count_refused(tx: Transaction, uid: str, attempt: int, consumer: str) -> None:
    task = task_rows.find_task(tx, uid) if is_uid(uid) else None
    if task is not None:
        attempt_rows.count_refused_write(tx, task.id, attempt, consumer)


def _close(tx: Transaction, task: TaskRecord, attempt: int, report: FinishReport) -> None:
    attempt_rows.end_attempt(
        tx,
        task.id,
        attempt,
        outcome=report.outcome.value,
        reason=_clean(report.reason) if report.reason else None,
        exit_code=_exit_code(report),
        log_tail=_tail(report.log_tail),
        step_seconds={step.value: seconds for step, seconds in report.step_seconds.items()},
    )


def _uploaded(record: AttemptRecord, claimed: BlobRef | None) -> Blob:
    if claimed is None or record.upload is None or record.upload.ref != claimed:
        raise InvalidRequest("The output that this report names was not uploaded by this attempt; upload it first.")
    return record.upload


def _upload_name(record: AttemptRecord | None) -> tuple[str, ...]:
    return (record.upload.name,) if record and record.upload else ()


def _exit_code(report: FinishReport) -> int | None:
    if report.exit_code is None:
        return None
    return max(-_LARGEST_EXIT_CODE, min(report.exit_code, _LARGEST_EXIT_CODE))


def _clean(text: str) -> str:
    """Text that every database takes: PostgreSQL refuses NUL."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _tail(text: str) -> str:
    return _clean(text).encode()[-LOG_TAIL_BYTES:].decode(errors="replace")
