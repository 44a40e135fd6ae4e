"""Who this installation is."""

import secrets

from sqlalchemy import insert, select

from private_api.storage.database import Transaction
from private_api.storage.schema import db_now, platform


def installation_id(tx: Transaction) -> str:
    """The id of this installation, made at its first start."""
    known = tx.execute(select(platform.c.installation)).scalar_one_or_none()
    if known is not None:
        return str(known)
    fresh = secrets.token_hex(8)
    tx.execute(insert(platform).values(id=1, installation=fresh, created_at=db_now()))
    return fresh
