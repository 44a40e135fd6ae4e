"""Filling a database from a backup, inside one transaction of the caller: all of it is there afterwards, or nothing."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from contracts.errors import Conflict, InvalidRequest
from private_api.storage.database import Transaction
from private_api.storage.dump import Values
from private_api.storage.migrate import VERSION_TABLE

_ROWS_AT_ONCE = 500
_NUMBERS_SKIPPED = 1_000_000
"""Tasks posted after the backup had numbers too, and containers of theirs may still run: theirs are not given again."""
_OURS = {VERSION_TABLE, "platform"}
_MAY_HAVE_ROWS = _OURS


def holds_nothing(tx: Transaction) -> bool:
    """Whether the database has no tables, or the platform's own as its first start leaves them.

    Raises
    ------
    Conflict
        The tables are of something else.
    """
    present = _tables(tx)
    if not present.tables:
        return True
    if not present.tables.keys() >= _OURS:
        raise Conflict("The database that DATABASE_URL names holds tables of something else; name one of its own.")
    others = [table for name, table in present.tables.items() if name not in _MAY_HAVE_ROWS]
    return all(tx.execute(select(1).select_from(table).limit(1)).first() is None for table in others)


def drop_everything(tx: Transaction) -> None:
    """Remove all tables, also those that a newer version made."""
    _tables(tx).drop_all(tx)


def check_tables(tx: Transaction, names: Iterable[str]) -> None:
    """Refuse rows that the schema has no tables for.

    Raises
    ------
    InvalidRequest
        The tables of the schema are not these.
    """
    expected = _tables(tx).tables.keys() - {VERSION_TABLE}
    if set(names) != expected:
        raise InvalidRequest(
            "The backup's tables are not those of its schema revision; it was not made by this platform."
        )


def load_rows(tx: Transaction, name: str, rows: Iterable[Values]) -> None:
    """Insert the rows of one table as they are; numbers given from now on are higher.

    Raises
    ------
    InvalidRequest
        The rows do not fit the table.
    """
    table = Table(name, MetaData(), autoload_with=tx, resolve_fks=False)
    columns = set(table.columns.keys())
    remaining = iter(rows)
    try:
        while batch := list(islice(remaining, _ROWS_AT_ONCE)):
            if any(row.keys() != columns for row in batch):
                raise InvalidRequest(f"The backup's table {name!r} has other columns than its schema revision.")
            tx.execute(insert(table), batch)
    except OperationalError:
        raise  # the database's own trouble: away, or its disk full
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise InvalidRequest(f"A row of the backup's table {name!r} does not fit its schema ({said}).") from error
    _skip_numbers(tx, table)


def _skip_numbers(tx: Transaction, table: Table) -> None:
    key = _numbering(table)
    if key is None:
        return
    last = (tx.execute(select(func.max(key))).scalar_one() or 0) + _NUMBERS_SKIPPED
    if tx.dialect.name == "sqlite":
        tx.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        tx.execute(
            text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), {"name": table.name, "last": last}
        )
    else:
        sequence = select(func.setval(func.pg_get_serial_sequence(table.name, key.name), last))
        tx.execute(sequence)


def _numbering(table: Table) -> Column[Any] | None:
    """The column in which the database numbers rows by itself."""
    keys = list(table.primary_key.columns)
    return keys[0] if len(keys) == 1 and isinstance(keys[0].type, Integer) else None


def _tables(tx: Transaction) -> MetaData:
    present = MetaData()
    if inspect(tx).get_table_names():
        present.reflect(tx)
    return present
