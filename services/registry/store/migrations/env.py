"""Alembic environment: runs all migrations in the transaction of the given connection."""

from alembic import context

from services.registry.store.tables import TableBase

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TableBase.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
