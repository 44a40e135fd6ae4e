"""How the database came to its present schema: one file per revision in ``versions``, run by Alembic."""

HEAD = "0002"
"""The newest revision. Known without Alembic, so that a start on a current database need not load it."""
