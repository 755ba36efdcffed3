"""What Alembic runs around the steps: all of them in the transaction of the connection that it is
given.
"""

from alembic import context

from services.registry.store.tables import TableBase

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TableBase.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
