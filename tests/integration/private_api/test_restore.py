"""Restoring: rows and files as they were, in either database, and live tasks that wait again."""

import string
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Boolean, Column, Double, Integer, String, insert, text

from contracts.queue import QUEUE_CPU
from contracts.task_state import TaskState
from contracts.tasks import Outcome
from private_api.storage import loading
from private_api.storage.database import Database
from private_api.storage.dump import Values
from private_api.storage.migrate import migrate, upgrade
from private_api.storage.schema import metadata
from service_kit.version import VERSION
from tests.support.admin import MODEL, PLATFORM, TABLES, Place, lines, write_backup
from tests.support.private_api import Api, make_zip, running, settings


def _values(column: "Column[Any]") -> st.SearchStrategy[Any]:
    kinds: list[tuple[type, st.SearchStrategy[Any]]] = [
        (Boolean, st.booleans()),
        (JSON, st.dictionaries(_text(20), st.none() | st.booleans() | _floats() | _text(20), max_size=3)),
        (Double, _floats()),
        (Integer, st.integers(-(2**31), 2**31 - 1)),
        (String, _text(getattr(column.type, "length", None) or 200)),
    ]
    values = next(strategy for kind, strategy in kinds if isinstance(column.type, kind))
    return values | st.none() if column.nullable else values


def _floats() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False)


def _text(longest: int) -> st.SearchStrategy[str]:
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
    return st.text(alphabet, max_size=min(longest, 40))


@st.composite
def _row(draw: st.DrawFn, table: str, **fixed: Any) -> Values:
    columns = metadata.tables[table].columns
    return {column.name: fixed[column.name] if column.name in fixed else draw(_values(column)) for column in columns}


@st.composite
def _stored(draw: st.DrawFn, folder: str, kind: str, *, is_there: bool) -> Values:
    token = draw(st.text(string.hexdigits, min_size=1, max_size=32))
    return {
        f"{kind}_blob": f"{folder}/{token}" if is_there else None,
        f"{kind}_sha256": draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        f"{kind}_size": draw(st.integers(0, 2**53)),
    }


@st.composite
def _platforms(draw: st.DrawFn) -> dict[str, list[Values]]:
    """Rows of every table that a backup brings back unchanged: no task runs, and all pending ones wait for a message."""
    models = [
        draw(
            _row(
                "models",
                id=n,
                uid=f"m{n}",
                deleted_at=1.0 if n else None,
                **draw(_stored("models", "content", is_there=n > 0)),
            )
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    tasks = []
    for n in range(draw(st.integers(0, 4))):
        state = draw(st.sampled_from([state for state in TaskState if state is not TaskState.RUNNING]))
        is_pending = state is TaskState.PENDING
        mark = {"outbox": True, "published_at": None} if is_pending else {}
        blobs = draw(_stored("inputs", "input", is_there=is_pending)) | draw(
            _stored("outputs", "output", is_there=n == 1)
        )
        tasks.append(draw(_row("tasks", id=n, uid=f"t{n}", model_id=0, state=state.value, **mark, **blobs)))
    attempts = [
        draw(_row("attempts", task_id=task["id"], number=k)) for task in tasks for k in range(draw(st.integers(0, 2)))
    ]
    return {"platform": [draw(_row("platform", id=1))], "models": models, "tasks": tasks, "attempts": attempts}


def _fill(place: Place, rows: dict[str, list[Values]]) -> None:
    for folder in ("inputs", "outputs", "models"):
        (place.data_dir / folder).mkdir(parents=True)
    with closing(Database(place.database_url)) as database:
        migrate(database)
        with database.alone() as tx:
            for table in metadata.sorted_tables:
                if rows[table.name]:
                    tx.execute(insert(table), rows[table.name])


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_platforms())
def test_whatever_the_rows_are_they_come_back_equal(rows: dict[str, list[Values]]) -> None:
    with TemporaryDirectory() as folder:
        first, second = (Place(f"sqlite:///{folder}/{n}.db", Path(folder) / n) for n in ("first", "second"))
        _fill(first, rows)

        first.back_up(Path(folder) / "b.tar")
        second.restore(Path(folder) / "b.tar")

        assert second.rows() == first.rows()
        assert {name: len(found) for name, found in second.rows().items()} == {name: len(rows[name]) for name in rows}


@hypothesis_settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(_platforms())
def test_rows_travel_to_postgresql_and_back(postgres_url: str, rows: dict[str, list[Values]]) -> None:
    with TemporaryDirectory() as folder:
        first, last = (Place(f"sqlite:///{folder}/{n}.db", Path(folder) / n) for n in ("first", "last"))
        between = Place(postgres_url, Path(folder) / "between")
        _fill(first, rows)

        first.back_up(Path(folder) / "1.tar")
        between.restore(Path(folder) / "1.tar", replace=True)
        between.back_up(Path(folder) / "2.tar")
        last.restore(Path(folder) / "2.tar")

        assert between.rows() == first.rows()
        assert last.rows() == first.rows()


def test_a_platform_moves_from_sqlite_to_postgresql_and_goes_on(
    backup: Path, postgres_url: str, tmp_path: Path
) -> None:
    place = Place(postgres_url, tmp_path / "moved")

    place.restore(backup)

    with running(place.settings) as api:
        by_state = {row["state"]: row["uid"] for row in place.rows()["tasks"]}
        assert api.poll(by_state["finished"]).content == make_zip({"mask": b"m"})
        api.claim(by_state["pending"])
        assert api.succeed(by_state["pending"]).json() == {"state": "finished"}
        assert api.poll(api.new_task()).status_code == 551


def test_numbers_that_may_have_been_given_since_the_backup_are_not_given_again(backup: Path, target: Place) -> None:
    target.restore(backup)

    with running(target.settings) as api:
        api.new_task("other")
    rows = target.rows()
    assert max(row["id"] for row in rows["tasks"]) == 1_000_003
    assert max(row["id"] for row in rows["models"]) == 1_000_002


# --- live tasks


def test_a_running_task_waits_again_at_no_cost_and_its_old_attempt_is_fenced(
    target: Place, sqlite_place: Place, sqlite_api: Api, tmp_path: Path
) -> None:
    uid = sqlite_api.new_task()
    sqlite_api.claim(uid, "c1")
    sqlite_api.put_output(uid, 1, "c1")
    sqlite_place.back_up(tmp_path / "b.tar")

    report = target.restore(tmp_path / "b.tar")

    assert report.waiting == 1
    with running(settings(target.database_url, target.data_dir, max_attempts=1)) as api:
        late = [api.heartbeat(uid, 1, "c1"), api.put_output(uid, 1, "c1"), api.finish(uid, Outcome.SUCCEEDED, 1, "c1")]
        assert [answer.status_code for answer in late] == [409, 409, 409]
        assert api.claim(uid, "c1").json()["attempt"] == 2
        assert api.heartbeat(uid, 1, "c1").status_code == 409
        assert api.succeed(uid, 2, "c1").json() == {"state": "finished"}
        assert [attempt["outcome"] for attempt in api.status(uid)["attempts"]] == ["handed_back", "succeeded"]


def test_published_tasks_are_marked_for_a_new_message(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path
) -> None:
    uid = sqlite_api.new_task()
    sqlite_api.execute("UPDATE tasks SET outbox = 0, published_at = 1")
    sqlite_place.back_up(tmp_path / "b.tar")

    other.restore(tmp_path / "b.tar")

    assert [(row["uid"], row["outbox"], row["published_at"], row["queue"]) for row in other.rows()["tasks"]] == [
        (uid, True, None, QUEUE_CPU)
    ]


# --- refusals


def test_a_running_private_api_is_not_restored_into(
    sqlite_place: Place, sqlite_api: Api, backup_elsewhere: Path
) -> None:
    said = sqlite_place.command("restore", str(backup_elsewhere), "--replace")

    assert said.returncode == 1
    assert b"private_api runs on" in said.stderr
    assert said.stderr.count(b"\n") == 1


@pytest.fixture
def backup_elsewhere(tmp_path: Path) -> Path:
    """Of one model, and nothing else."""
    write_backup(tmp_path / "elsewhere.tar", TABLES)
    return tmp_path / "elsewhere.tar"


def test_a_target_that_holds_tasks_is_refused_and_stays(sqlite_place: Place, backup: Path) -> None:
    before = sqlite_place.rows(), sqlite_place.files()

    assert "--replace" in sqlite_place.refusal(backup)

    assert (sqlite_place.rows(), sqlite_place.files()) == before


def test_a_folder_with_files_and_no_rows_is_refused(other: Place, backup: Path) -> None:
    (other.data_dir / "outputs").mkdir(parents=True)
    (other.data_dir / "outputs" / "1-1-x").write_bytes(b"whose?")

    assert "no rows for them" in other.refusal(backup)

    assert other.files() == {"outputs/1-1-x": b"whose?"}


@pytest.mark.parametrize("replace", [False, True])
def test_tables_of_something_else_are_never_dropped(target: Place, backup: Path, replace: bool) -> None:
    with closing(Database(target.database_url)) as database:
        database.write_sync(lambda tx: tx.execute(text("CREATE TABLE recipes (name TEXT)")))

    assert "something else" in target.refusal(backup, replace=replace)

    with closing(Database(target.database_url)) as database:
        assert database.write_sync(lambda tx: tx.execute(text("SELECT count(*) FROM recipes")).scalar_one()) == 0


def test_a_platform_that_never_worked_counts_as_empty(target: Place, backup: Path) -> None:
    with running(target.settings):
        pass

    target.restore(backup)

    assert len(target.rows()["tasks"]) == 2


def test_replacing_gives_up_the_old_rows_and_files(sqlite_place: Place, backup: Path) -> None:
    with running(sqlite_place.settings) as api:
        before = sqlite_place.files()
        api.new_task()
        api.new_task("another")

    sqlite_place.restore(backup, replace=True)

    assert sqlite_place.files() == before
    assert [row["human_readable_id"] for row in sqlite_place.rows()["models"]] == ["m"]


def test_a_backup_of_a_newer_schema_is_refused_with_both_versions(other: Place, tmp_path: Path) -> None:
    write_backup(tmp_path / "new.tar", TABLES, revision="0999", software="9.8.7")

    said = other.command("restore", str(tmp_path / "new.tar"))

    assert said.returncode == 1
    assert b"9.8.7" in said.stderr
    assert VERSION.encode() in said.stderr
    assert other.rows() == {}


def test_a_backup_of_a_newer_format_is_refused_with_its_version(other: Place, tmp_path: Path) -> None:
    write_backup(tmp_path / "new.tar", TABLES, format=2, software="9.8.7", chapters=[])

    assert "version 9.8.7" in other.refusal(tmp_path / "new.tar")


def test_a_backup_of_an_older_schema_is_upgraded_on_its_way_in(target: Place, tmp_path: Path) -> None:
    without = {name: value for name, value in PLATFORM.items() if name != "software"}
    write_backup(tmp_path / "old.tar", {**TABLES, "platform": lines(without)}, revision="0001", software="0.0.9")

    target.restore(tmp_path / "old.tar")

    rows = target.rows()
    assert rows["platform"] == [{**without, "software": None}]
    assert rows["models"] == [MODEL]


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({**TABLES, "recipes": b""}, "tables are not those"),
        ({**TABLES, "models": lines({**MODEL, "colour": "red"})}, "other columns"),
        ({**TABLES, "models": lines(MODEL, MODEL)}, "does not fit"),
        ({**TABLES, "models": lines({**MODEL, "use_gpu": "perhaps"})}, "does not fit"),
        ({**TABLES, "attempts": lines({"task_id": 5, "number": 1})}, "other columns"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused_and_leave_nothing(
    target: Place, tmp_path: Path, tables: dict[str, bytes], reason: str
) -> None:
    write_backup(tmp_path / "odd.tar", tables)

    assert reason in target.refusal(tmp_path / "odd.tar")

    assert (target.rows(), target.files()) == ({}, {})


def test_numbering_begins_above_the_gap_where_a_table_was_empty(database_url: str) -> None:
    with closing(Database(database_url)) as database, database.alone() as tx:
        upgrade(tx)
        loading.load_rows(tx, "models", [MODEL])
        loading.load_rows(tx, "tasks", [])
        posted = tx.execute(
            insert(metadata.tables["tasks"]).values(
                uid="u", model_id=1, queue="q", state="pending", attempt=0, handed_back=0, outbox=True, created_at=0.0,
                input_sha256="", input_size=0,
            )
        )  # fmt: skip
        assert posted.inserted_primary_key == (1_000_001,)
