"""Rows of attempts: each function works inside the caller's transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, insert, select, update

from contracts.tasks import Outcome
from private_api.records import AttemptRecord, Blob
from private_api.storage.database import Transaction
from private_api.storage.schema import attempts, db_now

_ALL_BUT_LOG = [column for column in attempts.c if column.name != "log_tail"]


def insert_attempt(tx: Transaction, task_id: int, number: int, consumer: str) -> None:
    """Begin an attempt."""
    row = {"task_id": task_id, "number": number, "consumer": consumer, "started_at": db_now()}
    row |= {"log_tail": "", "step_seconds": {}, "refused_writes": 0}
    tx.execute(insert(attempts).values(row))


def find_attempt(tx: Transaction, task_id: int, number: int) -> AttemptRecord | None:
    """One attempt."""
    query = select(*_ALL_BUT_LOG).where(attempts.c.task_id == task_id, attempts.c.number == number)
    row = tx.execute(query).one_or_none()
    return None if row is None else _record(row)


def list_attempts(tx: Transaction, task_id: int) -> list[AttemptRecord]:
    """All attempts of a task, the first one first."""
    query = select(*_ALL_BUT_LOG).where(attempts.c.task_id == task_id).order_by(attempts.c.number)
    return [_record(row) for row in tx.execute(query)]


def latest_log(tx: Transaction, task_id: int) -> str:
    """The log of the latest attempt that left one, or nothing."""
    query = (
        select(attempts.c.log_tail)
        .where(attempts.c.task_id == task_id, attempts.c.log_tail != "")
        .order_by(attempts.c.number.desc())
        .limit(1)
    )
    return tx.execute(query).scalar_one_or_none() or ""


def end_attempt(
    tx: Transaction,
    task_id: int,
    number: int,
    *,
    outcome: str,
    reason: str | None,
    exit_code: int | None = None,
    log_tail: str = "",
    step_seconds: Mapping[str, float] | None = None,
) -> None:
    """Record how an attempt ended; its uncommitted output is forgotten."""
    values: dict[str, Any] = {
        "ended_at": db_now(),
        "outcome": outcome,
        "reason": reason,
        "exit_code": exit_code,
        "log_tail": log_tail,
        "step_seconds": dict(step_seconds or {}),
        "upload_blob": None,
    }
    _update(tx, task_id, number, values)


def set_upload(tx: Transaction, task_id: int, number: int, blob: Blob) -> None:
    """Remember the output that the attempt sent."""
    values = {"upload_blob": blob.name, "upload_sha256": blob.sha256, "upload_size": blob.size}
    _update(tx, task_id, number, values)


def count_refused_write(tx: Transaction, task_id: int, number: int, consumer: str) -> None:
    """One more write of this attempt came too late.

    Nothing where that consumer never had it, or has ended it itself: a heartbeat may cross its own report.
    """
    statement = update(attempts).where(
        attempts.c.task_id == task_id,
        attempts.c.number == number,
        attempts.c.consumer == consumer,
        attempts.c.outcome.is_(None) | attempts.c.outcome.not_in([outcome.value for outcome in Outcome]),
    )
    tx.execute(statement.values(refused_writes=attempts.c.refused_writes + 1))


def _update(tx: Transaction, task_id: int, number: int, values: Mapping[str, Any]) -> None:
    statement = update(attempts).where(attempts.c.task_id == task_id, attempts.c.number == number)
    tx.execute(statement.values(values))


def _record(row: Row[Any]) -> AttemptRecord:
    has_upload = row.upload_blob is not None
    return AttemptRecord(
        number=row.number,
        consumer=row.consumer,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        reason=row.reason,
        exit_code=row.exit_code,
        step_seconds=row.step_seconds,
        refused_writes=row.refused_writes,
        upload=Blob(row.upload_blob, row.upload_sha256, row.upload_size) if has_upload else None,
    )
