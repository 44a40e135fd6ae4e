"""Rows of tasks: reads, and the compare-and-set writes that move a task from the state in which it was read.

Each function works inside the caller's transaction. A write answers whether it hit: no means that the task has moved on
since it was read. Which move is right is decided in ``services/tasks.py``.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from contracts.models import BlobRef
from contracts.task_state import TaskState
from private_api.records import Blob, Standing, TaskRecord
from private_api.storage.database import Transaction
from private_api.storage.schema import db_now, is_pending, is_running, state_is, tasks

POSITION_CAP = 10_000
"""No more than so many tasks are counted ahead of one; a status route must not read a million rows."""


def insert_task(tx: Transaction, uid: str, model_id: int, queue: str, blob: Blob) -> int:
    """Add a pending task with its outbox mark; its number."""
    row = {
        "uid": uid,
        "model_id": model_id,
        "queue": queue,
        "state": TaskState.PENDING.value,
        "attempt": 0,
        "handed_back": 0,
        "outbox": True,
        "created_at": db_now(),
        "input_blob": blob.name,
        "input_sha256": blob.sha256,
        "input_size": blob.size,
    }
    key = tx.execute(insert(tasks).values(row)).inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    return int(key[0])


_STANDINGS = select(
    tasks.c.uid, tasks.c.state, tasks.c.error, tasks.c.output_blob, tasks.c.output_sha256, tasks.c.output_size
).where(tasks.c.uid.in_(bindparam("uids", expanding=True)), tasks.c.deleted_at.is_(None))
"""Built once: polls are by far the most frequent query, and building it costs twice as much as running it."""


def find_standings(tx: Transaction, uids: Collection[str]) -> dict[str, Standing]:
    """Where each of these tasks stands, without those that are unknown or deleted."""
    return {
        uid: Standing(TaskState(state), error, None if name is None else Blob(name, sha256, size))
        for uid, state, error, name, sha256, size in tx.execute(_STANDINGS, {"uids": list(uids)})
    }


def find_task(tx: Transaction, uid: str) -> TaskRecord | None:
    """The task, also a deleted one."""
    return _record_or_none(tx.execute(select(tasks).where(tasks.c.uid == uid)).one_or_none())


def lock_task(tx: Transaction, uid: str) -> TaskRecord | None:
    """The task, also a deleted one, held until the transaction ends."""
    query = select(tasks).where(tasks.c.uid == uid).with_for_update()
    return _record_or_none(tx.execute(query).one_or_none())


def find_tasks(tx: Transaction, ids: Collection[int]) -> list[TaskRecord]:
    """The tasks of these numbers that still have a row."""
    return [_record(row) for row in tx.execute(select(tasks).where(tasks.c.id.in_(ids)))]


def oldest_pending(tx: Transaction, queue: str, limit: int) -> list[TaskRecord]:
    """The next tasks of a queue, in their order."""
    query = select(tasks).where(is_pending, tasks.c.queue == queue).order_by(tasks.c.id).limit(limit)
    return [_record(row) for row in tx.execute(query)]


def pending_ahead(tx: Transaction, task: TaskRecord) -> int:
    """How many pending tasks of its queue come before this one, counted up to POSITION_CAP."""
    ahead = (
        select(tasks.c.id)
        .where(is_pending, tasks.c.queue == task.queue, tasks.c.id < task.id)
        .limit(POSITION_CAP)
        .subquery()
    )
    return tx.execute(select(func.count()).select_from(ahead)).scalar_one()


def running_owners(tx: Transaction) -> set[str]:
    """The consumers that hold a lease."""
    # The second condition is always true: it leads SQLite to the index of leases, not to one with pending tasks too.
    query = select(tasks.c.lease_owner).where(is_running, tasks.c.lease_until > 0)
    return {owner for owner in tx.execute(query).scalars() if owner}


def lapsed_tasks(tx: Transaction, limit: int) -> list[TaskRecord]:
    """Running tasks whose lease is over by the database's clock, held until the transaction ends."""
    query = (
        select(tasks)
        .where(is_running, tasks.c.lease_until < db_now())
        .order_by(tasks.c.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_record(row) for row in tx.execute(query)]


def running_tasks(tx: Transaction, limit: int) -> list[TaskRecord]:
    """Some tasks that run."""
    return [_record(row) for row in tx.execute(select(tasks).where(is_running).limit(limit))]


def next_lapse(tx: Transaction) -> tuple[float, float | None]:
    """The database's clock, and the seconds from it to the first end of a lease (negative when that is past)."""
    first = select(func.min(tasks.c.lease_until)).where(is_running).scalar_subquery()
    now, lapse = tx.execute(select(db_now(), first)).one()
    return now, None if lapse is None else lapse - now


def extend_all_leases(tx: Transaction, lease_seconds: float) -> int:
    """Give every running attempt at least a full lease from now; how many were shorter."""
    statement = (
        update(tasks)
        .where(is_running, tasks.c.lease_until < db_now() + lease_seconds)
        .values(lease_until=db_now() + lease_seconds)
    )
    return tx.execute(statement).rowcount


def set_running(tx: Transaction, task: TaskRecord, consumer: str, lease_seconds: float) -> bool:
    """Begin the next attempt: fence + 1, lease by the database's clock, outbox mark cleared."""
    return _set(
        tx,
        task,
        TaskState.RUNNING,
        attempt=task.attempt + 1,
        lease_owner=consumer,
        lease_until=db_now() + lease_seconds,
        step=None,
        started_at=db_now(),
        outbox=False,
        published_at=None,
    )


def set_lease(tx: Transaction, task: TaskRecord, step: str | None, lease_seconds: float) -> bool:
    """Let the lease of the running attempt begin anew."""
    return _set(tx, task, TaskState.RUNNING, step=step, lease_until=db_now() + lease_seconds)


def set_pending(tx: Transaction, task: TaskRecord, *, handed_back: bool) -> bool:
    """Take the task from its attempt and mark it for a new message."""
    return _set(
        tx,
        task,
        TaskState.PENDING,
        handed_back=task.handed_back + handed_back,
        lease_owner=None,
        lease_until=None,
        step=None,
        outbox=True,
        published_at=None,
    )


def set_final(
    tx: Transaction, task: TaskRecord, state: TaskState, error: str | None, exit_code: int | None, output: Blob | None
) -> bool:
    """End the task. Its last lease owner stays on record: a cancelled attempt is told so at its next heartbeat."""
    values: dict[str, Any] = {"error": error, "exit_code": exit_code, "ended_at": db_now()}
    if output is not None:
        values |= {"output_blob": output.name, "output_sha256": output.sha256, "output_size": output.size}
    return _set(tx, task, state, **values, input_blob=None, lease_until=None, step=None, outbox=False)


def mark_task_deleted(tx: Transaction, task_id: int) -> None:
    """Leave a tombstone: the uid answers as unknown, and an attempt that still runs learns of it."""
    values = {"deleted_at": func.coalesce(tasks.c.deleted_at, db_now()), "output_blob": None}
    tx.execute(update(tasks).where(tasks.c.id == task_id).values(values))


def ended_before(tx: Transaction, seconds_ago: float, limit: int) -> list[TaskRecord]:
    """The oldest ended tasks, of those that ended longer ago than that."""
    query = (
        select(tasks)
        .where(tasks.c.ended_at < db_now() - seconds_ago, tasks.c.deleted_at.is_(None))
        .order_by(tasks.c.ended_at)
        .limit(limit)
    )
    return [_record(row) for row in tx.execute(query)]


def remove_tombstones(tx: Transaction, seconds_ago: float, limit: int) -> int:
    """Remove rows deleted longer ago than that; how many."""
    old = select(tasks.c.id).where(tasks.c.deleted_at < db_now() - seconds_ago).limit(limit)
    return tx.execute(delete(tasks).where(tasks.c.id.in_(old))).rowcount


def remove_tasks(tx: Transaction, ids: Sequence[int]) -> None:
    """Remove these rows and those of their attempts."""
    tx.execute(delete(tasks).where(tasks.c.id.in_(ids)))


def _set(tx: Transaction, task: TaskRecord, state: TaskState, **values: Any) -> bool:
    statement = (
        update(tasks)
        .where(tasks.c.id == task.id, state_is(task.state), tasks.c.attempt == task.attempt)
        .where(tasks.c.lease_owner.is_not_distinct_from(task.lease_owner))
        .values(state=state.value, **values)
    )
    return tx.execute(statement).rowcount == 1


def _record_or_none(row: Row[Any] | None) -> TaskRecord | None:
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> TaskRecord:
    has_output = row.output_blob is not None
    return TaskRecord(
        id=row.id,
        uid=row.uid,
        model_id=row.model_id,
        queue=row.queue,
        state=TaskState(row.state),
        attempt=row.attempt,
        handed_back=row.handed_back,
        lease_owner=row.lease_owner,
        step=row.step,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=row.error,
        exit_code=row.exit_code,
        input_name=row.input_blob,
        input=BlobRef(sha256=row.input_sha256, size=row.input_size),
        output=Blob(row.output_blob, row.output_sha256, row.output_size) if has_output else None,
        is_deleted=row.deleted_at is not None,
    )
