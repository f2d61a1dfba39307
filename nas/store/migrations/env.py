"""What Alembic runs around the revisions: on the connection that ``nas.store.migrate`` opened."""

from __future__ import annotations

from alembic import context

from nas.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
