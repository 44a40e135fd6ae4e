"""Alembic's entry: runs the revisions on the connection that private_api opened."""

from alembic import context

from private_api.storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
