"""Claims and polls with a million tasks in the table, against the same with a thousand."""

import http.client
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    String,
    case,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    text,
)

from benchmarks.results import Findings, Row, median, spread, times
from benchmarks.surroundings import Surroundings
from contracts import routes
from contracts.queue import QUEUE_CPU
from contracts.task_state import POLL_PENDING, TaskState
from private_api.storage.database import Database
from private_api.storage.migrate import migrate
from private_api.storage.schema import models, tasks
from tests.support.platform import Platform
from tests.support.ports import free_port

_SMALL = 1_000
_MOST_RATIO = 1.2
_PENDING_EVERY = 2
_LONG_AGO = 1.7e9
_WARM_UP = 20


def measure(here: Surroundings) -> Findings:
    """Both databases, each with a small and a large table behind a service of its own, asked by turns."""
    return Findings([row for kind in ("SQLite", "PostgreSQL") for row in _one_kind(here, kind)])


def _one_kind(here: Surroundings, kind: str) -> list[Row]:
    large = here.effort.of(1_000_000, 100_000)
    with ExitStack() as opened:
        sides = [opened.enter_context(_side(here, kind, count)) for count in (_SMALL, large)]
        claims = _alternately(sides, "claim", here.effort.of(300, 60))
        polls = _alternately(sides, "poll", here.effort.of(600, 100))
    return [
        _row(f"claim at {large:,} tasks, against {_SMALL:,} ({kind})", *claims),
        _row(f"poll at {large:,} tasks, against {_SMALL:,} ({kind})", *polls),
    ]


def _row(what: str, small: list[float], large: list[float]) -> Row:
    ratio = median(large) / median(small)
    return Row(what, spread(small), spread(large), times(ratio), f"≤ {times(_MOST_RATIO)}", ratio <= _MOST_RATIO)


class _Side:
    """One private_api with a filled table, asked over one kept connection."""

    def __init__(self, platform: Platform, uids: list[str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", platform.private_port, timeout=30)
        self._headers = {"Authorization": f"Bearer {platform.token}", "Content-Type": "application/json"}
        self._body = json.dumps({"consumer": "benchmark", "has_gpu": False})
        self._to_claim = iter(uids)
        self._to_poll = itertools.cycle(uids)

    def claim(self) -> float:
        """Claim one pending task; the seconds."""
        return self._timed("POST", routes.CLAIM.format(uid=next(self._to_claim)), self._body, 200)

    def poll(self) -> float:
        """Poll one live task; the seconds."""
        return self._timed("GET", routes.TASK.format(uid=next(self._to_poll)), None, POLL_PENDING)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _timed(self, method: str, path: str, body: str | None, expected: int) -> float:
        began = time.perf_counter()
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != expected:
            raise RuntimeError(f"{method} of a task got {answer.status}: {said.decode(errors='replace')}")
        return seconds


def _alternately(sides: list[_Side], name: str, count: int) -> tuple[list[float], list[float]]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UP + count):
        for side, kept in zip(sides, seconds, strict=True):
            length: float = getattr(side, name)()
            if number >= _WARM_UP:
                kept.append(length)
    return seconds


@contextmanager
def _side(here: Surroundings, kind: str, count: int) -> Iterator[_Side]:
    url = here.database_url(kind)
    with closing(Database(url)) as database:
        migrate(database)
        uids = database.write_sync(lambda tx: fill(tx, count, wanted=2_000))
        _settle(database)
    folder = here.folder / f"table-{kind}-{count}-{free_port()}"
    folder.mkdir()
    with Platform(folder, url) as platform:
        platform.start(LEASE_SECONDS="3600", LOG_LEVEL="WARNING")
        with closing(_Side(platform, uids)) as side:
            yield side


def fill(tx: Connection, count: int, wanted: int) -> list[str]:
    """Add so many tasks, every second one pending, the rest finished; uids of pending ones all over the table."""
    uid = (
        func.lower(func.hex(func.randomblob(22)))
        if tx.dialect.name == "sqlite"
        else literal_column("md5(random()::text || clock_timestamp()::text)", String)
    )
    key = tx.execute(
        insert(models).values(
            uid="benchmark", human_readable_id="benchmark", container_tag="unused:1", use_gpu=False,
            input_mountpoint="/input", output_mountpoint="/output", model_mountpoint="/model", limits={},
            created_at=_LONG_AGO,
        )
    ).inserted_primary_key  # fmt: skip
    assert key is not None, "one row was inserted"
    numbers = select(literal(1, Integer).label("number")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < count))
    is_pending = numbers.c.number % _PENDING_EVERY == 0
    values = _task_values(uid, key[0], numbers.c.number, is_pending)
    tx.execute(insert(tasks).from_select(list(values), select(*values.values())))
    every = max(count // _PENDING_EVERY // wanted, 1)
    pending = select(tasks.c.uid).where(
        tasks.c.state == TaskState.PENDING.value, tasks.c.id % (_PENDING_EVERY * every) == 0
    )
    return list(tx.execute(pending.order_by(tasks.c.id).limit(wanted)).scalars())


def _task_values(
    uid: ColumnElement[str], model_id: int, number: ColumnElement[int], is_pending: ColumnElement[bool]
) -> dict[str, ColumnElement[object]]:
    moment = literal(_LONG_AGO) + number
    values: dict[str, object] = {
        "uid": uid,
        "model_id": literal(model_id),
        "queue": literal(QUEUE_CPU),
        "state": case((is_pending, TaskState.PENDING.value), else_=TaskState.FINISHED.value),
        "attempt": case((is_pending, 0), else_=1),
        "handed_back": literal(0),
        "outbox": literal(value=False),
        "published_at": case((is_pending, moment), else_=null()),
        "created_at": moment,
        "ended_at": case((is_pending, null()), else_=moment),
        "input_sha256": literal("0" * 64),
        "input_size": literal(1000),
    }
    return values  # type: ignore[return-value]


def _settle(database: Database) -> None:
    """Leave no work over from the filling: the write-ahead log emptied, or visibility and statistics settled."""
    if database.is_sqlite:
        with sqlite3.connect(database.engine.url.database or "") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE tasks"))
        connection.execute(text("CHECKPOINT"))
