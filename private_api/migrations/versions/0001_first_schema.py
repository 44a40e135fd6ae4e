"""The first schema: platform, models, tasks, attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "platform",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("installation", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    _create_models()
    _create_tasks()
    _create_attempts()
    _create_indexes()


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("uid", sa.String(64), nullable=False, unique=True),
        sa.Column("human_readable_id", sa.String(128), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("container_tag", sa.Text, nullable=False),
        sa.Column("use_gpu", sa.Boolean, nullable=False),
        sa.Column("input_mountpoint", sa.Text, nullable=False),
        sa.Column("output_mountpoint", sa.Text, nullable=False),
        sa.Column("model_mountpoint", sa.Text, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("content_blob", sa.String(128)),
        sa.Column("content_sha256", sa.String(64)),
        sa.Column("content_size", sa.BigInteger),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sqlite_autoincrement=True,
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("uid", sa.String(64), nullable=False, unique=True),
        sa.Column("model_id", _BIG, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("handed_back", sa.Integer, nullable=False),
        sa.Column("outbox", sa.Boolean, nullable=False),
        sa.Column("published_at", sa.Double),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("lease_until", sa.Double),
        sa.Column("step", sa.String(16)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("input_blob", sa.String(128)),
        sa.Column("input_sha256", sa.String(64), nullable=False),
        sa.Column("input_size", sa.BigInteger, nullable=False),
        sa.Column("output_blob", sa.String(128)),
        sa.Column("output_sha256", sa.String(64)),
        sa.Column("output_size", sa.BigInteger),
        sa.Column("deleted_at", sa.Double),
        sqlite_autoincrement=True,
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("task_id", _BIG, sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("consumer", sa.String(128), nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", sa.String(32)),
        sa.Column("reason", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("log_tail", sa.Text, nullable=False),
        sa.Column("step_seconds", sa.JSON, nullable=False),
        sa.Column("refused_writes", sa.Integer, nullable=False),
        sa.Column("upload_blob", sa.String(128)),
        sa.Column("upload_sha256", sa.String(64)),
        sa.Column("upload_size", sa.BigInteger),
    )


def _create_indexes() -> None:
    true = "true" if op.get_bind().dialect.name == "postgresql" else "1"
    pending = "state = 'pending'"
    _partial("models_live_id", "models", ["human_readable_id"], "deleted_at IS NULL", unique=True)
    _partial("tasks_outbox", "tasks", ["id"], f"outbox IS {true}")
    _partial("tasks_pending", "tasks", ["queue", "id"], pending)
    _partial("tasks_published", "tasks", ["queue", "published_at"], f"{pending} AND outbox IS NOT {true}")
    _partial("tasks_leases", "tasks", ["lease_until"], "state = 'running'")
    _partial("tasks_live_of_model", "tasks", ["model_id"], f"{pending} OR state = 'running'")
    _partial("tasks_inputs", "tasks", ["input_blob"], "input_blob IS NOT NULL")
    _partial("tasks_ended", "tasks", ["ended_at"], "ended_at IS NOT NULL AND deleted_at IS NULL")
    _partial("tasks_deleted", "tasks", ["deleted_at"], "deleted_at IS NOT NULL")


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
