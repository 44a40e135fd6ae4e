"""The tables: columns, constraints and the partial indexes that keep every hot query O(log n).

Times are float seconds since the epoch, by the database's clock (:class:`db_now`). Names of states stand here as SQL
literals, because a partial index serves a query only where both spell the condition alike.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    literal_column,
    or_,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from contracts.task_state import TaskState

metadata = MetaData()

_BIG = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column that is spelled INTEGER PRIMARY KEY."""


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it stands for
    """The database's clock at this statement, in seconds since the epoch; the only clock that judges leases."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _now_of_sqlite(_: db_now, __: Any, **___: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_of_postgresql(_: db_now, __: Any, **___: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


platform = Table(
    "platform",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("installation", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("software", String(64)),
)
"""One row: who this installation is, and the version of the software that opened it last."""

models = Table(
    "models",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("uid", String(64), nullable=False, unique=True),
    Column("human_readable_id", String(128), nullable=False),
    Column("description", Text),
    Column("container_tag", Text, nullable=False),
    Column("use_gpu", Boolean, nullable=False),
    Column("input_mountpoint", Text, nullable=False),
    Column("output_mountpoint", Text, nullable=False),
    Column("model_mountpoint", Text, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("content_blob", String(128)),
    Column("content_sha256", String(64)),
    Column("content_size", BigInteger),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
    sqlite_autoincrement=True,
)
"""Registered models. A deleted one keeps its row, so that its ended tasks can still say what they ran."""

tasks = Table(
    "tasks",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("uid", String(64), nullable=False, unique=True),
    Column("model_id", _BIG, ForeignKey("models.id"), nullable=False),
    Column("queue", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("handed_back", Integer, nullable=False),
    Column("outbox", Boolean, nullable=False),
    Column("published_at", Double),
    Column("lease_owner", String(128)),
    Column("lease_until", Double),
    Column("step", String(16)),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("error", Text),
    Column("exit_code", Integer),
    Column("input_blob", String(128)),
    Column("input_sha256", String(64), nullable=False),
    Column("input_size", BigInteger, nullable=False),
    Column("output_blob", String(128)),
    Column("output_sha256", String(64)),
    Column("output_size", BigInteger),
    Column("deleted_at", Double),
    sqlite_autoincrement=True,
)
"""Tasks. ``attempt`` is the fence and only grows; ``handed_back`` counts those attempts that cost the task nothing."""

attempts = Table(
    "attempts",
    metadata,
    Column("task_id", _BIG, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("consumer", String(128), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(32)),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("log_tail", Text, nullable=False),
    Column("step_seconds", JSON, nullable=False),
    Column("refused_writes", Integer, nullable=False),
    Column("upload_blob", String(128)),
    Column("upload_sha256", String(64)),
    Column("upload_size", BigInteger),
)
"""One row per claim. ``upload_*`` is an output that arrived and is not committed: FINISH moves it to the task."""


def state_is(state: TaskState) -> Any:
    """The condition on ``tasks.state``, spelled as the partial indexes spell it."""
    return tasks.c.state == literal_column(f"'{state.value}'")


is_pending = state_is(TaskState.PENDING)
is_running = state_is(TaskState.RUNNING)
is_live = or_(is_pending, is_running)
in_outbox = tasks.c.outbox.is_(true())
is_published = and_(is_pending, tasks.c.outbox.is_not(true()))


def _partial(name: str, condition: Any, *columns: Any, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


_partial("models_live_id", models.c.deleted_at.is_(None), models.c.human_readable_id, unique=True)
_partial("tasks_outbox", in_outbox, tasks.c.id)
_partial("tasks_pending", is_pending, tasks.c.queue, tasks.c.id)
_partial("tasks_published", is_published, tasks.c.queue, tasks.c.published_at)
_partial("tasks_leases", is_running, tasks.c.lease_until)
_partial("tasks_live_of_model", is_live, tasks.c.model_id)
_partial("tasks_inputs", tasks.c.input_blob.is_not(None), tasks.c.input_blob)
_partial("tasks_ended", and_(tasks.c.ended_at.is_not(None), tasks.c.deleted_at.is_(None)), tasks.c.ended_at)
_partial("tasks_deleted", tasks.c.deleted_at.is_not(None), tasks.c.deleted_at)
