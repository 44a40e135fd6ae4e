"""Who wrote the database last: so that an older version, refusing it, can name the one to install."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("platform", sa.Column("software", sa.String(64)))
