"""Bringing the database to the schema of this code, at each start."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from contracts.errors import Conflict
from private_api.migrations import HEAD
from private_api.storage.database import Database
from service_kit.logging import get_logger

log = get_logger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"

_LOCK_NUMBER = 0x1F5E7
"""Of PostgreSQL's advisory lock: two processes that start at once migrate one after the other."""


def migrate(database: Database) -> None:
    """Upgrade to the newest revision that this code knows.

    Raises
    ------
    Conflict
        The database was written by a newer version.
    Unavailable
        The database is away.
    """
    if database.write_sync(_revision) != HEAD:
        database.write_sync(_upgrade)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    before = _revision(connection)
    try:
        if before is not None:
            ScriptDirectory.from_config(config).get_revision(before)
        command.upgrade(config, "head")
    except CommandError as error:
        raise Conflict(
            f"The database is at revision {before}, which this version does not know; it was written by a newer one. "
            "Install that version again, or restore the database from before its start."
        ) from error
    log.info("database_migrated", before=before, now=HEAD)
