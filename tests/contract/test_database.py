"""SQLite and PostgreSQL behind one door: what every caller may rely on, and what each does in trouble."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import insert, select, text, update

from contracts.errors import InvalidRequest, StorageFull, Unavailable
from contracts.queue import QUEUE_CPU, QUEUE_GPU
from private_api.storage.database import Database, Transaction
from private_api.storage.migrate import migrate
from private_api.storage.schema import attempts, db_now, tasks
from tests.support.postgres import PostgresCluster
from tests.support.task_rows import TaskRows

T = TypeVar("T")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as opened:
        opened.write_sync(lambda tx: tx.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")))
        yield opened


def add(number: int) -> Callable[[Transaction], object]:
    return lambda tx: tx.execute(text(f"INSERT INTO numbers VALUES ({number})"))


def numbers(tx: Transaction) -> list[int]:
    return list(tx.execute(text("SELECT number FROM numbers ORDER BY number")).scalars())


def test_what_is_written_is_read_by_all_ways(database: Database) -> None:
    async def write_and_read() -> list[int]:
        await database.write(add(1))
        return await database.read(numbers)

    assert asyncio.run(write_and_read()) == [1]
    database.write_sync(add(2))
    assert database.read_sync(numbers) == [1, 2]
    assert asyncio.run(database.read(numbers)) == [1, 2]


def test_an_error_undoes_the_whole_transaction_and_passes(database: Database) -> None:
    def add_and_fail(tx: Transaction) -> None:
        add(1)(tx)
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        asyncio.run(database.write(add_and_fail))

    assert database.read_sync(numbers) == []
    database.write_sync(add(1))
    assert database.read_sync(numbers) == [1]


def test_writes_from_many_threads_and_coroutines_all_arrive(database: Database) -> None:
    async def many() -> None:
        await asyncio.gather(*(database.write(add(number)) for number in range(50)))

    threads = [threading.Thread(target=database.write_sync, args=[add(number)]) for number in range(50, 70)]
    for thread in threads:
        thread.start()
    asyncio.run(many())
    for thread in threads:
        thread.join(60)

    assert database.read_sync(numbers) == list(range(70))


def test_the_database_tells_the_time_within_a_statement_of_now(database: Database) -> None:
    before = time.time()
    told = database.read_sync(lambda tx: tx.execute(select(db_now())).scalar_one())

    assert before - 0.01 <= told <= time.time() + 0.01


def test_a_broken_statement_is_unavailable_and_not_a_driver_error(database: Database) -> None:
    with pytest.raises(Unavailable):
        database.read_sync(lambda tx: tx.execute(text("SELECT * FROM nowhere")))


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", "", "sqlite+aiosqlite:///x"])
def test_an_address_that_is_not_ours_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidRequest, match="DATABASE_URL"):
        Database(url)


def test_a_full_disk_is_told_as_such_and_loses_nothing(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/small.db")) as database:
        database.write_sync(lambda tx: tx.execute(text("CREATE TABLE big (content BLOB)")))
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 20")

        with pytest.raises(StorageFull):
            database.write_sync(lambda tx: tx.execute(text("INSERT INTO big VALUES (zeroblob(1000000))")))

        database.write_sync(lambda tx: tx.execute(text("INSERT INTO big VALUES (zeroblob(10))")))
        assert database.read_sync(lambda tx: tx.execute(text("SELECT count(*) FROM big")).scalar_one()) == 1


def test_sqlite_syncs_every_commit_and_checks_references(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:

        def pragma(name: str) -> object:
            return database.write_sync(lambda tx: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one())

        assert [pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")] == ["wal", 2, 1]


def test_reads_on_sqlite_do_not_wait_for_a_write_under_way(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        database.write_sync(lambda tx: tx.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")))
        is_writing, go_on = threading.Event(), threading.Event()

        def write_slowly(tx: Transaction) -> None:
            add(1)(tx)
            is_writing.set()
            go_on.wait(60)

        writer = threading.Thread(target=database.write_sync, args=[write_slowly])
        writer.start()
        is_writing.wait(60)

        during = asyncio.run(database.read(numbers))
        go_on.set()
        writer.join(60)

        assert during == []
        assert asyncio.run(database.read(numbers)) == [1]


def test_postgresql_going_away_is_unavailable_soon_and_its_return_is_noticed(
    postgres_cluster: PostgresCluster, postgres_url: str
) -> None:
    with closing(Database(postgres_url)) as database:
        database.write_sync(lambda tx: tx.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")))
        asyncio.run(database.write(add(1)))
        postgres_cluster.stop()
        try:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                asyncio.run(database.write(add(2)))
            with pytest.raises(Unavailable):
                asyncio.run(database.read(numbers))
            with pytest.raises(Unavailable):
                asyncio.run(database.ping())
            assert time.monotonic() - began < 30
        finally:
            postgres_cluster.start()

        asyncio.run(database.write(add(3)))
        assert asyncio.run(database.read(numbers)) == [1, 3]


@pytest.fixture
def rows(database_url: str) -> Iterator[TaskRows]:
    with closing(Database(database_url)) as opened:
        task_rows = TaskRows(opened)
        task_rows.create_tables()
        yield task_rows


def test_the_outbox_gives_the_oldest_first_and_forgets_what_was_published(rows: TaskRows) -> None:
    uids = rows.add(5)

    due = rows.outbox.due(limit=3)
    rows.outbox.mark_published(due[:2])

    assert [entry.uid for entry in due] == uids[:3]
    assert [entry.uid for entry in rows.outbox.due()] == uids[2:]
    assert rows.outbox.pending_published(QUEUE_CPU) == 2
    assert rows.outbox.pending_published(QUEUE_GPU) == 0


def test_a_mark_that_was_made_anew_survives_the_confirm_of_the_old_message(rows: TaskRows) -> None:
    [uid] = rows.add(1)
    [entry] = rows.outbox.due()
    rows.claim(uid)
    rows._database.write_sync(
        lambda tx: tx.execute(update(tasks).where(tasks.c.uid == uid).values(state="pending", outbox=True))
    )

    rows.outbox.mark_published([entry])

    assert [(one.uid, one.attempt) for one in rows.outbox.due()] == [(uid, 1)]


def test_messages_older_than_asked_for_are_marked_lost(rows: TaskRows) -> None:
    uids = rows.add(3) + rows.add(1, QUEUE_GPU)
    rows.outbox.mark_published(rows.outbox.due())
    rows.claim(uids[2])
    old = update(tasks).where(tasks.c.uid.in_([uids[0], uids[2], uids[3]])).values(published_at=db_now() - 100)
    rows._database.write_sync(lambda tx: tx.execute(old))

    marked = rows.outbox.mark_lost(QUEUE_CPU, older_than=timedelta(seconds=50))

    assert marked == 1
    assert [entry.uid for entry in rows.outbox.due()] == [uids[0]]


def test_numbers_of_tasks_are_never_given_twice(database_url: str) -> None:
    """Labels on hosts carry them: a new task must not be taken for one that was deleted."""
    with closing(Database(database_url)) as database:
        migrate(database)
        rows = TaskRows(database)
        rows.create_tables()
        rows.add(2)
        database.write_sync(lambda tx: tx.execute(tasks.delete()))

        rows.add(1)

        assert [entry.task_id for entry in rows.outbox.due()] == [3]


def test_attempts_go_with_their_task(rows: TaskRows) -> None:
    rows.add(1)
    task_id = rows.outbox.due()[0].task_id
    row = {"task_id": task_id, "number": 1, "consumer": "c", "started_at": 0, "log_tail": "", "step_seconds": {}}
    rows._database.write_sync(lambda tx: tx.execute(insert(attempts).values(**row, refused_writes=0)))

    rows._database.write_sync(lambda tx: tx.execute(tasks.delete()))

    assert rows._database.read_sync(lambda tx: tx.execute(select(attempts)).all()) == []


def test_a_slow_answer_is_unavailable_and_not_a_hang(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("private_api.storage.database._ANSWER_SECONDS", 0.3)
    with closing(Database(postgres_url)) as database:
        began = time.monotonic()

        with pytest.raises(Unavailable, match="did not answer"):
            asyncio.run(database.read(lambda tx: tx.execute(text("SELECT pg_sleep(1)"))))

        assert time.monotonic() - began < 5
