"""Polls that come at once are answered together, each as if it were alone."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, event

from contracts.errors import Unavailable
from contracts.task_state import TaskState
from private_api.services.standings import Standings
from private_api.storage.database import Database
from private_api.storage.schema import metadata
from tests.support.task_rows import TaskRows


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as opened:
        yield opened


@pytest.fixture
def rows(database: Database) -> TaskRows:
    made = TaskRows(database)
    made.create_tables()
    return made


def count_selects(engine: Engine) -> list[str]:
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, *___: object) -> None:
        if "FROM tasks" in statement:
            seen.append(statement)

    return seen


def test_a_crowd_of_polls_takes_one_query_and_each_gets_its_own_answer(database: Database, rows: TaskRows) -> None:
    uids = rows.add(20)
    rows.claim(uids[3])
    engine = database._reader
    selects = count_selects(engine)

    async def crowd() -> list[TaskState | None]:
        standings = Standings(database)
        found = await asyncio.gather(*(standings.find(uid) for uid in [*uids, "unknown"]))
        return [one and one.state for one in found]

    states = asyncio.run(crowd())

    assert states[3] is TaskState.RUNNING
    assert states[-1] is None
    assert [state for number, state in enumerate(states[:-1]) if number != 3] == [TaskState.PENDING] * 19
    assert len(selects) == 1


def test_a_poll_sees_what_was_committed_before_it_though_a_query_is_under_way(
    database: Database, rows: TaskRows
) -> None:
    (uid,) = rows.add(1)

    async def scenario() -> tuple[TaskState, TaskState]:
        standings = Standings(database)
        first = asyncio.create_task(standings.find(uid))
        await asyncio.sleep(0)
        await asyncio.to_thread(rows.claim, uid)
        second = await standings.find(uid)
        before = await first
        assert before is not None
        assert second is not None
        return before.state, second.state

    _, second = asyncio.run(scenario())

    assert second is TaskState.RUNNING


def test_a_client_that_hangs_up_leaves_the_others_their_answers(database: Database, rows: TaskRows) -> None:
    uids = rows.add(2)

    async def scenario() -> TaskState | None:
        standings = Standings(database)
        impatient, patient = (asyncio.create_task(standings.find(uid)) for uid in uids)
        await asyncio.sleep(0)
        impatient.cancel()
        found = await patient
        assert impatient.cancelled()
        return found and found.state

    assert asyncio.run(scenario()) is TaskState.PENDING


def test_a_database_in_trouble_is_told_to_all_and_the_next_poll_asks_anew(database: Database) -> None:
    async def scenario() -> list[object]:
        standings = Standings(database)
        troubles: list[object] = await asyncio.gather(standings.find("a"), standings.find("b"), return_exceptions=True)
        await asyncio.to_thread(metadata.create_all, database.engine)
        return [*troubles, await standings.find("a")]

    first, second, after = asyncio.run(scenario())

    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert after is None
