"""Who this installation is."""

import secrets

from sqlalchemy import insert, select, update

from private_api.storage.database import Transaction
from private_api.storage.schema import db_now, platform
from service_kit.version import VERSION


def installation_id(tx: Transaction) -> str:
    """The id of this installation, made at its first start."""
    known = known_installation(tx)
    if known is not None:
        return known
    fresh = secrets.token_hex(8)
    tx.execute(insert(platform).values(id=1, installation=fresh, created_at=db_now(), software=VERSION))
    return fresh


def note_software(tx: Transaction) -> None:
    """Remember that this version opened the database; one that comes to it later and is too old can say so."""
    tx.execute(update(platform).where(platform.c.software.is_distinct_from(VERSION)).values(software=VERSION))


def known_installation(tx: Transaction) -> str | None:
    """The id of this installation; None before its first start."""
    return tx.execute(select(platform.c.installation)).scalar_one_or_none()
