"""A newer version brings the database to its own schema and keeps what is in it; an older one refuses it."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, insert, select, text

from private_api.migrations import HEAD
from private_api.storage.database import Database, Transaction
from private_api.storage.dump import Values
from private_api.storage.migrate import MIGRATIONS, VERSION_TABLE, migrate, upgrade
from service_kit.version import VERSION
from tests.support.admin import TABLES, Place, write_backup
from tests.support.private_api import TOKEN, Api, running

START_SECONDS = 60
OLDER = [one.revision for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions() if one.revision != HEAD]


def _value(column: "Column[Any]") -> Any:
    """Something that the column takes, and that refers to the first row wherever it refers to one."""
    if isinstance(column.type, Boolean):
        return False
    if isinstance(column.type, Integer):
        return 1
    if isinstance(column.type, Float):
        return 1.25
    if isinstance(column.type, String):
        return column.name[:16]
    return {"a": [1, None]}


def _tables(tx: Transaction) -> list[Table]:
    present = MetaData()
    present.reflect(tx)
    return [table for table in present.sorted_tables if table.name != VERSION_TABLE]


def _rows(tx: Transaction, tables: list[Table]) -> dict[str, list[Values]]:
    return {table.name: [dict(row) for row in tx.execute(select(table)).mappings()] for table in tables}


@pytest.mark.parametrize("revision", OLDER)
def test_an_upgrade_from_every_older_schema_keeps_its_rows(database_url: str, revision: str) -> None:
    with closing(Database(database_url)) as database:
        with database.alone() as tx:
            upgrade(tx, revision)
            tables = _tables(tx)
            for table in tables:
                tx.execute(insert(table).values({column.name: _value(column) for column in table.columns}))
            before = _rows(tx, tables)

        migrate(database)

        with database.alone() as tx:
            now = _rows(tx, _tables(tx))
    kept = {
        name: [{column: row[column] for column in old} for row, old in zip(now[name], rows, strict=True)]
        for name, rows in before.items()
    }
    assert kept == before
    assert all(rows for rows in before.values())


def test_an_upgraded_platform_works_and_its_tasks_with_it(place: Place) -> None:
    with closing(Database(place.database_url)) as database, database.alone() as tx:
        upgrade(tx, OLDER[-1])
        tx.execute(text("INSERT INTO platform (id, installation, created_at) VALUES (1, 'first', 1)"))

    with running(place.settings) as api:
        assert api.http.get("/internal/platform").json()["installation"] == "first"
        assert api.poll(api.new_task()).status_code == 551
    assert place.rows()["platform"][0]["software"] == VERSION


def _as_if_by_a_newer_version(place: Place) -> None:
    with closing(Database(place.database_url)) as database, database.alone() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        tx.execute(text("UPDATE platform SET software = '9.8.7'"))
        tx.execute(text("CREATE TABLE queues (task_id BIGINT REFERENCES tasks (id))"))


def _start(place: Place) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "private_api"],
        env={**place.environment, "INTERNAL_TOKEN": TOKEN, "PORT": "0"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def test_a_downgrade_is_refused_with_one_line_that_names_both_versions(place: Place, api: Api) -> None:
    api.close()
    _as_if_by_a_newer_version(place)

    said = _start(Place(place.database_url, place.data_dir.parent / "another"))

    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "9.8.7" in said.stderr
    assert VERSION in said.stderr
    assert "infer admin restore" in said.stderr


def test_a_database_without_a_word_of_its_version_is_refused_too(database_url: str, tmp_path: Path) -> None:
    place = Place(database_url, tmp_path / "data")
    with closing(Database(database_url)) as database, database.alone() as tx:
        tx.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        tx.execute(text("INSERT INTO alembic_version VALUES ('9999')"))

    said = _start(place)

    assert said.returncode == 2
    assert "a newer version wrote it" in said.stderr


def test_the_way_back_is_the_backup_from_before(place: Place, tmp_path: Path) -> None:
    with running(place.settings) as api:
        uid = api.new_task()
        place.back_up(tmp_path / "before.tar")
    _as_if_by_a_newer_version(place)
    assert _start(place).returncode == 2

    assert "--replace" in place.refusal(tmp_path / "before.tar")
    place.restore(tmp_path / "before.tar", replace=True)

    with running(place.settings) as api:
        assert api.poll(uid).status_code == 551


def test_a_backup_is_made_by_the_version_that_runs(place: Place, tmp_path: Path) -> None:
    with running(place.settings):
        pass
    _as_if_by_a_newer_version(place)

    said = place.command("backup", str(tmp_path / "b.tar"))

    assert said.returncode == 1
    assert b"schema revision 9999" in said.stderr
    assert list(tmp_path.glob("b.tar*")) == []


def test_a_start_remembers_its_version(place: Place, tmp_path: Path) -> None:
    write_backup(tmp_path / "old.tar", TABLES)
    place.restore(tmp_path / "old.tar")
    with closing(Database(place.database_url)) as database, database.alone() as tx:
        tx.execute(text("UPDATE platform SET software = '0.0.1'"))

    with running(place.settings):
        assert place.rows()["platform"][0]["software"] == VERSION
