"""Tasks and their moves: the one place where a task's state is decided and written.

Every move is checked against the table in ``contracts.task_state`` and written by compare-and-set. After the commit
whoever waits is told, and files that are no longer needed are removed: a crash in between leaves an orphan for the
sweep, never a row without its file.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from contracts.errors import Conflict, UnknownModel, UnknownTask
from contracts.queue import queue_for
from contracts.task_state import TaskState, check_transition
from contracts.tasks import UID_BYTES, short_uid
from private_api.records import Blob, ModelRecord, Standing, TaskRecord
from private_api.services.standings import Standings
from private_api.services.wakeups import Wakeups, wait_for
from private_api.storage import attempts as attempt_rows
from private_api.storage import models as model_rows
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction
from private_api.storage.files import BlobStore
from service_kit.logging import get_logger

log = get_logger(__name__)

_CANCELLED = "The task was cancelled."
_LONGEST_UID = 64


@dataclass(frozen=True)
class Move:
    """One committed move: what others must be told, and which files have lost their purpose."""

    task: TaskRecord
    to: TaskState
    unneeded: tuple[str, ...] = ()

    def freeing(self, names: Iterable[str]) -> "Move":
        """The same move, with more files that it leaves without a purpose."""
        return replace(self, unneeded=(*self.unneeded, *names))


class Moves:
    """Writes moves inside a transaction, and tells of them after its commit."""

    def __init__(self, wakeups: Wakeups, files: BlobStore, max_attempts: int) -> None:
        self._wakeups = wakeups
        self._files = files
        self.max_attempts = max_attempts

    def start(self, tx: Transaction, task: TaskRecord, consumer: str, lease_seconds: float) -> int:
        """Give the task to a consumer; the number of the attempt."""
        check_transition(task.state, TaskState.RUNNING)
        _must_hit(task, hit=task_rows.set_running(tx, task, consumer, lease_seconds))
        attempt_rows.insert_attempt(tx, task.id, task.attempt + 1, consumer)
        return task.attempt + 1

    def requeue(self, tx: Transaction, task: TaskRecord, *, handed_back: bool) -> Move:
        """Take the task from its attempt and let another have it."""
        return requeue(tx, task, handed_back=handed_back)

    def retry_or_fail(self, tx: Transaction, task: TaskRecord, error: str, exit_code: int | None = None) -> Move:
        """Another attempt after trouble of the platform's own, while there are any left."""
        if task.counted_attempts < self.max_attempts:
            return self.requeue(tx, task, handed_back=False)
        return self.end(tx, task, TaskState.FAILED, error, exit_code)

    def end(
        self,
        tx: Transaction,
        task: TaskRecord,
        to: TaskState,
        error: str | None = None,
        exit_code: int | None = None,
        output: Blob | None = None,
    ) -> Move:
        """Bring the task to a final state; its input is no longer needed."""
        check_transition(task.state, to)
        _must_hit(task, hit=task_rows.set_final(tx, task, to, error, exit_code, output))
        return Move(task, to, unneeded=(task.input_name,) if task.input_name else ())

    async def tell(self, *moves: Move) -> None:
        """After the commit: wake those who wait, remove files."""
        for move in moves:
            log.info("task_moved", task_id=move.task.id, task=short_uid(move.task.uid), state=move.to.value)
            self._wakeups.moved(move.task.uid, move.task.queue, move.to)
        await self._files.remove(name for move in moves for name in move.unneeded)


def requeue(tx: Transaction, task: TaskRecord, *, handed_back: bool) -> Move:
    """Take a running task from its attempt: pending again, with a fresh outbox mark."""
    check_transition(task.state, TaskState.PENDING)
    _must_hit(task, hit=task_rows.set_pending(tx, task, handed_back=handed_back))
    return Move(task, TaskState.PENDING)


def _must_hit(task: TaskRecord, *, hit: bool) -> None:
    """The row was read under lock in the same transaction, so a miss is a bug; it must not pass in silence."""
    if not hit:
        raise Conflict(f"Task {task.id} changed while it was being changed; try again.")


class Tasks:
    """What users do with tasks."""

    def __init__(self, database: Database, files: BlobStore, wakeups: Wakeups, moves: Moves) -> None:
        self._database = database
        self._standings = Standings(database)
        self._files = files
        self._wakeups = wakeups
        self._moves = moves

    async def post(self, model: ModelRecord, blob: Blob) -> str:
        """Store a task for good, with its outbox mark; only then there is a uid.

        Raises
        ------
        UnknownModel
            The model was deleted while its input came in.
        """
        uid = new_uid()
        human_readable_id = model.registered.human_readable_id
        queue = queue_for(model.registered.use_gpu)

        def store(tx: Transaction) -> int:
            current = model_rows.lock_model(tx, human_readable_id, to_delete=False)
            if current is None or current.id != model.id:
                raise UnknownModel(f"The model {human_readable_id!r} was deleted meanwhile.")
            return task_rows.insert_task(tx, uid, model.id, queue, blob)

        try:
            number = await self._database.write(store)
        except UnknownModel:
            await self._files.remove([blob.name])
            raise  # after anything else the commit is in doubt and the row may need its file; else the sweep takes it
        log.info("task_posted", task_id=number, task=short_uid(uid), model=human_readable_id, bytes=blob.size)
        self._wakeups.moved(uid, queue, TaskState.PENDING)
        return uid

    async def find(self, uid: str) -> TaskRecord:
        """The task.

        Raises
        ------
        UnknownTask
            There is none of that uid, or it was deleted.
        """
        return await self._database.read(lambda tx: existing_task(tx, uid))

    async def poll(self, uid: str, seconds: float = 0) -> Standing | None:
        """Where the task stands, as soon as it is final or when the time is up; None when it is unknown."""
        if not is_uid(uid):
            return None
        if not seconds:
            return await self._standings.find(uid)
        with self._wakeups.end_of(uid) as ended:
            standing = await self.poll(uid)
            if standing is None or standing.state.is_final or self._wakeups.is_closed:
                return standing
            await wait_for(ended, seconds)
        return await self.poll(uid)

    async def log_of(self, uid: str) -> str:
        """The end of the container's log, of the latest attempt that has one."""

        def look(tx: Transaction) -> str:
            return attempt_rows.latest_log(tx, existing_task(tx, uid).id)

        return await self._database.read(look)

    async def cancel(self, uid: str) -> TaskState:
        """Call a live task off and keep its record; a running attempt learns of it at its next heartbeat.

        Raises
        ------
        IllegalTransition
            It is over already.
        """

        def call_off(tx: Transaction) -> Move | None:
            task = existing_task(tx, uid, task_rows.lock_task)
            return None if task.state is TaskState.CANCELLED else self._call_off(tx, task)

        move = await self._database.write(call_off)
        if move is not None:
            await self._moves.tell(move)
        return TaskState.CANCELLED

    async def delete(self, uid: str) -> None:
        """Call the task off if it is live, and forget it and its files."""

        def forget(tx: Transaction) -> tuple[TaskRecord, Move | None]:
            task = existing_task(tx, uid, task_rows.lock_task)
            move = None if task.state.is_final else self._call_off(tx, task)
            task_rows.mark_task_deleted(tx, task.id)
            return task, move

        task, move = await self._database.write(forget)
        if move is not None:
            await self._moves.tell(move)
        if task.output is not None:
            await self._files.remove([task.output.name])
        log.info("task_deleted", task_id=task.id, task=short_uid(uid))

    def _call_off(self, tx: Transaction, task: TaskRecord) -> Move:
        move = self._moves.end(tx, task, TaskState.CANCELLED, error=_CANCELLED)
        if task.state is TaskState.RUNNING:
            attempt = attempt_rows.find_attempt(tx, task.id, task.attempt)
            if attempt is not None and attempt.upload is not None:
                return move.freeing([attempt.upload.name])
        return move


def existing_task(
    tx: Transaction, uid: str, look: Callable[[Transaction, str], TaskRecord | None] = task_rows.find_task
) -> TaskRecord:
    """The task of that uid, read or locked; UnknownTask where there is none or it was deleted."""
    task = look(tx, uid) if is_uid(uid) else None
    if task is None or task.is_deleted:
        raise UnknownTask("No task has this uid; it was deleted, or never was.")
    return task


def new_uid() -> str:
    """A fresh uid; none that begins with a dash, which command lines take for an option."""
    while (uid := secrets.token_urlsafe(UID_BYTES)).startswith("-"):
        continue
    return uid


def is_uid(text: str) -> bool:
    """Whether the text could be a uid at all; anything else is not worth a question to the database."""
    return len(text) <= _LONGEST_UID and text.isascii() and text.replace("-", "").replace("_", "").isalnum()
