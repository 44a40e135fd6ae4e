"""The migrations equal the tables, and the hot queries stay on their indexes."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, text

from contracts.errors import Conflict
from contracts.queue import QUEUE_CPU
from private_api.migrations import HEAD
from private_api.storage import models as model_rows
from private_api.storage import references
from private_api.storage import tasks as task_rows
from private_api.storage.database import Database, Transaction
from private_api.storage.migrate import MIGRATIONS, migrate
from private_api.storage.schema import metadata
from tests.support.task_rows import TaskRows

UID = "u" * 43


@pytest.fixture
def migrated(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        migrate(database)
        yield database


def test_the_migrations_equal_the_tables(migrated: Database) -> None:
    with migrated.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_the_same_partial_indexes(migrated: Database) -> None:
    """Alembic does not compare the conditions of partial indexes, and a wrong one would slow every poll."""

    def indexes(tx: Transaction) -> dict[str, object]:
        return {
            str(index["name"]): [index["unique"], index["column_names"], *map(str, index["dialect_options"].values())]
            for table in metadata.tables
            for index in inspect(tx).get_indexes(table)
        }

    from_migrations = migrated.write_sync(indexes)
    migrated.write_sync(metadata.drop_all)
    migrated.write_sync(metadata.create_all)

    assert migrated.write_sync(indexes) == from_migrations
    assert len(from_migrations) >= 9


def test_the_known_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_migrating_twice_changes_nothing(migrated: Database) -> None:
    migrate(migrated)

    assert (
        migrated.read_sync(lambda tx: tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one()) == HEAD
    )


def test_a_database_of_a_newer_version_is_refused(migrated: Database) -> None:
    migrated.write_sync(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))

    with pytest.raises(Conflict, match="newer"):
        migrate(migrated)


def _queries(rows: TaskRows) -> dict[str, Callable[[Transaction], object]]:
    task = rows._database.read_sync(lambda tx: task_rows.oldest_pending(tx, QUEUE_CPU, 1))[0]
    return {
        "poll": lambda tx: task_rows.find_task(tx, UID),
        "claim": lambda tx: task_rows.set_running(tx, task, "c", 30),
        "next": lambda tx: task_rows.oldest_pending(tx, QUEUE_CPU, 3),
        "position": lambda tx: task_rows.pending_ahead(tx, task),
        "lapse": lambda tx: task_rows.lapsed_tasks(tx, 10),
        "next lapse": task_rows.next_lapse,
        "owners": task_rows.running_owners,
        "grace": lambda tx: task_rows.extend_all_leases(tx, 30),
        "retention": lambda tx: task_rows.ended_before(tx, 3600, 10),
        "tombstones": lambda tx: task_rows.remove_tombstones(tx, 3600, 10),
        "deleting a model": lambda tx: model_rows.has_live_tasks(tx, 1),
        "sweep": lambda tx: references.named_files(tx, ["inputs/x", "outputs/1-1-x"]),
    }


def test_no_hot_query_scans_the_tasks(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        rows = TaskRows(database)
        rows.create_tables()
        rows.add(2000)
        finish = "UPDATE tasks SET state = 'finished', outbox = :off, ended_at = 1 WHERE id > 200"
        database.write_sync(lambda tx: tx.execute(text(finish), {"off": False}))
        if not database.is_sqlite:
            database.write_sync(lambda tx: tx.execute(text("ANALYZE tasks")))
        rows.outbox.mark_published(rows.outbox.due(100))
        queries = _queries(rows) | {
            "outbox": lambda _: rows.outbox.due(10),
            "published": lambda _: rows.outbox.pending_published(QUEUE_CPU),
        }

        scans = {name: plan for name, query in queries.items() if (plan := _scans(database, query))}

        assert scans == {}


def _scans(database: Database, query: Callable[[Transaction], object]) -> list[str]:
    """The lines of the query's plans that read the whole table of tasks."""
    seen: list[tuple[str, object]] = []

    def remember(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if not statement.startswith(("BEGIN", "INSERT")):
            seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", remember)
    try:
        with pytest.MonkeyPatch.context() as patch:
            transaction = database.engine.begin()
            with transaction as tx:
                patch.setattr(Database, "read_sync", lambda _, work: work(tx))
                query(tx)
    finally:
        event.remove(database.engine, "before_cursor_execute", remember)
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    marks = ("SCAN tasks",) if database.is_sqlite else ("Seq Scan on tasks",)
    lines: list[str] = []
    for statement, parameters in seen:
        with database.engine.begin() as tx:
            answer = tx.exec_driver_sql(explain + statement, parameters)  # type: ignore[arg-type]
            lines += [str(row[-1]) for row in answer]
    ordered = "USING INDEX tasks_outbox"  # a scan in the order of an index that holds only what is asked for
    return [line for line in lines if any(mark in line for mark in marks) and ordered not in line]
