"""Pending tasks in a database of private_api, as a post leaves them, for tests of what comes after."""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update

from contracts.queue import QUEUE_CPU
from contracts.task_state import TaskState
from private_api.services.publisher import Publisher
from private_api.storage.database import Database
from private_api.storage.outbox import Outbox
from private_api.storage.schema import db_now, in_outbox, metadata, models, tasks


class TaskRows:
    """Writes task rows with their outbox marks, past the services."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.outbox = Outbox(database)

    def create_tables(self) -> None:
        metadata.create_all(self._database.engine)
        with self._database.engine.begin() as connection:
            connection.execute(
                insert(models).values(
                    id=1,
                    uid="model",
                    human_readable_id="model",
                    container_tag="model",
                    use_gpu=False,
                    input_mountpoint="/input",
                    output_mountpoint="/output",
                    model_mountpoint="/model",
                    limits={},
                    created_at=db_now(),
                )
            )

    def add(self, count: int, queue: str = QUEUE_CPU) -> list[str]:
        """New tasks, pending and marked; their uids."""
        uids = [secrets.token_urlsafe(32) for _ in range(count)]
        rows = [
            {
                "uid": uid,
                "model_id": 1,
                "queue": queue,
                "state": TaskState.PENDING.value,
                "attempt": 0,
                "handed_back": 0,
                "outbox": True,
                "created_at": 0.0,
                "input_sha256": "0" * 64,
                "input_size": 1,
            }
            for uid in uids
        ]
        self._database.write_sync(lambda connection: connection.execute(insert(tasks), rows))
        return uids

    def claim(self, uid: str) -> None:
        """The task runs: it needs no message any more."""
        values = {"state": TaskState.RUNNING.value, "outbox": False, "attempt": tasks.c.attempt + 1}
        statement = update(tasks).where(tasks.c.uid == uid).values(**values)
        self._database.write_sync(lambda connection: connection.execute(statement))

    def marked(self) -> int:
        """How many tasks are in the outbox."""
        query = select(func.count()).select_from(tasks).where(in_outbox)
        return self._database.read_sync(lambda connection: connection.execute(query).scalar_one())


@contextmanager
def running(publisher: Publisher) -> Iterator[Publisher]:
    """The publisher, started, and stopped before its database goes."""
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[TaskRows]:
    """A database on SQLite without its tables."""
    with closing(Database(f"sqlite:///{tmp_path}/tasks.sqlite")) as database:
        yield TaskRows(database)


@pytest.fixture
def task_rows(empty_database: TaskRows) -> TaskRows:
    """A database on SQLite that holds one model and no task."""
    empty_database.create_tables()
    return empty_database
