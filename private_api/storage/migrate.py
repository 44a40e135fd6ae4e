"""Bringing the database to the schema of this code, at each start."""

from pathlib import Path

from sqlalchemy import inspect, text

from contracts.errors import Conflict
from private_api.migrations import HEAD
from private_api.storage.database import Database, Transaction
from service_kit.logging import get_logger
from service_kit.version import VERSION

log = get_logger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"

VERSION_TABLE = "alembic_version"

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
    if database.write_sync(revision_of) != HEAD:
        database.write_sync(upgrade)


def revision_of(tx: Transaction) -> str | None:
    """The revision of the tables; None where there are none."""
    if not inspect(tx).has_table(VERSION_TABLE):
        return None
    return tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def is_known(revision: str) -> bool:
    """Whether this code can bring tables of that revision to its own."""
    from alembic.script import ScriptDirectory

    return any(known.revision == revision for known in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def upgrade(tx: Transaction, to: str = HEAD) -> None:
    """Bring the tables from where they are, or from nothing, to a revision, inside the caller's transaction.

    Raises
    ------
    Conflict
        They are at a revision that this code does not know.
    """
    from alembic import command
    from alembic.config import Config

    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    before = revision_of(tx)
    if before is not None and not is_known(before):
        raise Conflict(_refusal(tx, before))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    command.upgrade(config, to)
    log.info("database_migrated", before=before, now=to)


def _refusal(tx: Transaction, revision: str) -> str:
    software = _software(tx)
    newer = f"the newer version {software}" if software else "a newer version"
    return (
        f"The database is at schema revision {revision}, which this version, {VERSION}, does not know (its newest is "
        f"{HEAD}): {newer} wrote it. Install that version again, or let this one restore the backup from before its "
        "start: infer admin restore FILE --replace."
    )


def _software(tx: Transaction) -> str | None:
    """The version that opened the database last, if its tables tell."""
    columns = {column["name"] for column in inspect(tx).get_columns("platform")} if _has_platform(tx) else set()
    return tx.execute(text("SELECT software FROM platform")).scalar() if "software" in columns else None


def _has_platform(tx: Transaction) -> bool:
    return inspect(tx).has_table("platform")
