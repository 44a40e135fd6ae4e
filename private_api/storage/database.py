"""One door to the database: transactions on SQLite or PostgreSQL, and its troubles in the platform's own words.

SQLite: one process, one writer. Short reads run where they are asked, in the event loop (a thread hop costs four times
the read); writes queue up for one writer thread, each in a transaction begun IMMEDIATE. PostgreSQL: both run in a small
pool of threads.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from contracts.errors import InvalidRequest, PlatformError, StorageFull, Unavailable

T = TypeVar("T")
Transaction = Connection
"""What a function gets that runs in a transaction; services pass it on and do not look inside."""
Work = Callable[[Transaction], T]

_WAYS_TO_WRITE_IT = "write sqlite:////path/to/file or postgresql://user:password@host/name"

_BUSY_SECONDS = 10
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 15
_ANSWER_SECONDS = 20.0
"""The longest that a caller waits for one transaction, queueing included."""

_POSTGRES_THREADS = 8
_IDLE_SECONDS = 1.0
_USED_AT = "used_at"
_POSTGRES_DISK_FULL = "53100"

_SQLITE_PRAGMAS = (
    f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}",  # first: the next one may meet a lock
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a uid that a client holds survives a power cut
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
)

_POSTGRES_ARGUMENTS = {
    "connect_timeout": _CONNECT_SECONDS,
    "options": f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c idle_in_transaction_session_timeout=60000",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "private_api",
}


_POSTGRES_ALONE = (
    f"lock_timeout = '{_BUSY_SECONDS}s'",
    "statement_timeout = '1h'",
    "idle_in_transaction_session_timeout = '1h'",
)


def parse_url(text: str) -> URL:
    """The database's address; ``postgresql://`` means the driver that is installed.

    Raises
    ------
    InvalidRequest
        It is no database URL, or names a database that the platform does not speak to.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise InvalidRequest(f"DATABASE_URL is no database URL; {_WAYS_TO_WRITE_IT}.") from error
    if url.drivername in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite" and url.database in {None, "", ":memory:"}:
        raise InvalidRequest(f"DATABASE_URL names no file, and memory keeps no tasks; {_WAYS_TO_WRITE_IT}.")
    if url.drivername in {"postgresql+psycopg", "sqlite"}:
        return url
    raise InvalidRequest(f"DATABASE_URL names {url.drivername!r}; {_WAYS_TO_WRITE_IT}.")


def translated(error: DBAPIError | PoolTimeout) -> PlatformError:
    """The platform's error that stands for the driver's."""
    if not isinstance(error, DBAPIError):
        return Unavailable("All connections to the database are in use; try again.")
    said = str(error.orig).strip().split("\n")[0]
    if isinstance(error, DataError):
        return InvalidRequest(f"The database cannot store a value of this request ({said}).")
    if "database or disk is full" in said or getattr(error.orig, "sqlstate", None) == _POSTGRES_DISK_FULL:
        return StorageFull("The disk that holds the database is full; the operator must make room.")
    return Unavailable(f"The database does not answer as it should ({said}); try again.")


def _begin_with(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where the driver guesses
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(pragma)


def sqlite_engine(url: URL, begin: str) -> Engine:
    """An engine with one connection, for one thread at a time, beginning transactions with the given statement."""
    engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_with(begin))
    return engine


def _ping_after_idling(engine: Engine) -> None:
    """Try connections that have idled before they are used; one in steady use needs no round trip for that.

    Should the server restart within the moment, one caller is told to try again, and the pool opens new connections.
    """

    def remember(_: Any, record: ConnectionPoolEntry) -> None:
        record.info[_USED_AT] = time.monotonic()

    def ping(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if time.monotonic() - record.info.get(_USED_AT, time.monotonic()) < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool opens another

    event.listen(engine, "checkin", remember)
    event.listen(engine, "checkout", ping)


class Database:
    """Runs functions of a connection, each in one transaction.

    All four ways raise :class:`Unavailable` when the database is away or overloaded, and :class:`StorageFull` when its
    disk is full; what the function itself raises rolls the transaction back and passes. After Unavailable from a write
    it is unknown whether the write was made, hence every write is safe to repeat.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._inline: Connection | None = None
        self.is_sqlite = self._url.drivername == "sqlite"
        if self.is_sqlite:
            self._writer = sqlite_engine(self._url, "BEGIN IMMEDIATE")
            self._reader = sqlite_engine(self._url, "BEGIN")
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        else:
            self._writer = create_engine(
                self._url,
                pool_size=_POSTGRES_THREADS,
                max_overflow=4,  # for threads that use the sync ways
                pool_timeout=_CONNECT_SECONDS,
                connect_args=_POSTGRES_ARGUMENTS,
            )
            _ping_after_idling(self._writer)
            # Each statement sees what is committed, in a transaction or not: without one, a read is one round trip.
            self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
            self._threads = ThreadPoolExecutor(_POSTGRES_THREADS, thread_name_prefix="postgresql")

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database, made by its first use; None for PostgreSQL."""
        return Path(self._url.database) if self.is_sqlite and self._url.database else None

    @property
    def engine(self) -> Engine:
        """The engine that writes; for migrations and tests."""
        return self._writer

    async def read(self, work: Work[T]) -> T:
        """Run a short read. On SQLite it runs inside the event loop, so it must stay below a millisecond or so."""
        if not self.is_sqlite:
            return await self._in_thread(self._reader, work)
        if self._inline is None:
            self._inline = self._reader.connect()
        return _in_transaction(self._inline, work)

    async def write(self, work: Work[T]) -> T:
        """Run a write and commit it."""
        return await self._in_thread(self._writer, work)

    def read_sync(self, work: Work[T]) -> T:
        """Run a read from a thread other than the event loop's; on SQLite it queues behind the writes."""
        return self.write_sync(work)

    def write_sync(self, work: Work[T]) -> T:
        """Run a write from a thread other than the event loop's and commit it."""
        if not self.is_sqlite:
            return _in_transaction(self._writer, work)
        future = self._threads.submit(_in_transaction, self._writer, work)
        try:
            return future.result(_ANSWER_SECONDS)
        except FutureTimeout:
            future.cancel()
            raise _no_answer() from None

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A long read, from one thread: sees the database as it is at its first statement, and blocks no writer."""
        engine = self._reader
        if not self.is_sqlite:
            engine = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with _in_our_words(), engine.begin() as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[Transaction]:
        """A write that may be long, from one thread, of one who has the database alone; others are awaited briefly."""
        with _in_our_words(), self._writer.begin() as connection:
            for setting in () if self.is_sqlite else _POSTGRES_ALONE:
                connection.exec_driver_sql(f"SET LOCAL {setting}")
            yield connection

    async def ping(self) -> None:
        """Pass when the database answers."""
        await self.read(_select_one)

    def close(self) -> None:
        """Let writes in flight end and close all connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._inline is not None:
            self._inline.close()
        self._writer.dispose()
        self._reader.dispose()

    async def _in_thread(self, engine: Engine, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await loop.run_in_executor(self._threads, _in_transaction, engine, work)
        except TimeoutError:
            raise _no_answer() from None


def _no_answer() -> Unavailable:
    return Unavailable(f"The database did not answer within {_ANSWER_SECONDS:g} s; try again.")


def _select_one(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1")


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise translated(error) from error


def _in_transaction(on: Engine | Connection, work: Work[T]) -> T:
    try:
        if isinstance(on, Engine):
            with on.begin() as connection:
                return work(connection)
        with on.begin():
            return work(on)
    except IntegrityError:
        raise  # the adapter that wrote knows what the constraint means
    except (DBAPIError, PoolTimeout) as error:
        raise translated(error) from error
