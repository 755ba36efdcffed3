"""Leases of replicas; 64-bit offsets on PostgreSQL (SQLite integers need no change)."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("holder", sa.String(512), nullable=True),
        sa.Column("term", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("trained_without", "through", type_=sa.BigInteger)
        op.alter_column("withdrawn_examples", "offset", type_=sa.BigInteger)
