"""Reading the whole database for a backup: every row of every table, and which stored files the rows name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from private_api.records import Blob
from private_api.storage.database import Transaction
from private_api.storage.schema import metadata

Values = dict[str, Any]
"""One row by the names of its columns: text, numbers, booleans, None, and what JSON holds."""

_ROWS_AT_ONCE = 500

_FILES: Mapping[str, Sequence[str]] = {"models": ("content",), "tasks": ("input", "output")}
"""Columns ``X_blob``, ``X_sha256``, ``X_size`` by table. An uncommitted upload of an attempt dies with the attempt."""


def table_names() -> list[str]:
    """All tables, those first that others refer to."""
    return [table.name for table in metadata.sorted_tables]


def rows_of(tx: Transaction, name: str) -> Iterator[Values]:
    """Every row of a table in the order of its key, a few in memory at a time."""
    table = metadata.tables[name]
    query = select(table).order_by(*table.primary_key.columns)
    answer = tx.execute(query, execution_options={"stream_results": True, "yield_per": _ROWS_AT_ONCE})
    for row in answer.mappings():
        yield dict(row)


def files_of(name: str, row: Values) -> Iterator[Blob]:
    """The stored files that a row of the table names."""
    for kind in _FILES.get(name, ()):
        if row[f"{kind}_blob"] is not None:
            yield Blob(row[f"{kind}_blob"], row[f"{kind}_sha256"], row[f"{kind}_size"])
