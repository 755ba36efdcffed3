"""Deliveries of webhooks, and the position in the audit log up to which they exist."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "webhook_positions",
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("number", number, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("endpoint", sa.String(512), nullable=False),
        sa.Column("number", number, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", instant, nullable=False),
        sa.Column("ended_at", instant, nullable=True),
        sa.Column("result", sa.String(512), nullable=False),
        sa.UniqueConstraint("endpoint", "number"),
    )
    op.create_index("webhook_due", "webhook_deliveries", ["endpoint", "ended_at", "due_at"])
