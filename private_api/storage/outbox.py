"""The outbox: which pending tasks still need a message on their queue. Called from the publisher's thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, func, select, tuple_, update

from private_api.storage.database import Database
from private_api.storage.schema import db_now, in_outbox, is_pending, is_published, tasks

_ROWS_PER_STATEMENT = 400


@dataclass(frozen=True)
class OutboxEntry:
    """One task whose message is to be sent. ``attempt`` tells this mark from one that the same task gets later."""

    task_id: int
    uid: str
    queue: str
    attempt: int


class Outbox:
    """Marks and unmarks tasks. All methods raise Unavailable while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, limit: int = 500) -> list[OutboxEntry]:
        """The oldest tasks without a message."""
        query = (
            select(tasks.c.id, tasks.c.uid, tasks.c.queue, tasks.c.attempt)
            .where(in_outbox)
            .order_by(tasks.c.id)
            .limit(limit)
        )
        return self._database.read_sync(lambda connection: [OutboxEntry(*row) for row in connection.execute(query)])

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None:
        """The broker confirmed these messages.

        A task that was claimed and came back since its entry was read has a new mark, for a new message: it stays.
        """

        def mark(connection: Connection) -> None:
            for start in range(0, len(entries), _ROWS_PER_STATEMENT):
                batch = [(entry.task_id, entry.attempt) for entry in entries[start : start + _ROWS_PER_STATEMENT]]
                connection.execute(
                    update(tasks)
                    .where(tuple_(tasks.c.id, tasks.c.attempt).in_(batch), in_outbox)
                    .values(outbox=False, published_at=db_now())
                )

        self._database.write_sync(mark)

    def pending_published(self, queue: str) -> int:
        """How many pending tasks of the queue should have a message on the broker, or in a consumer's hand."""
        query = select(func.count()).select_from(tasks).where(is_published, tasks.c.queue == queue)
        return self._database.read_sync(lambda connection: connection.execute(query).scalar_one())

    def mark_lost(self, queue: str, older_than: timedelta) -> int:
        """Mark again the pending tasks whose message was sent longer ago than that; how many."""
        statement = (
            update(tasks)
            .where(is_published, tasks.c.queue == queue, tasks.c.published_at < db_now() - older_than.total_seconds())
            .values(outbox=True)
        )
        return self._database.write_sync(lambda connection: connection.execute(statement).rowcount)


def mark_all(tx: Connection) -> int:
    """Mark every pending task for a message, as if none had ever been sent; how many."""
    return tx.execute(update(tasks).where(is_pending).values(outbox=True, published_at=None)).rowcount
