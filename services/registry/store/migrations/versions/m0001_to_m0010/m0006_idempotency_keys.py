"""Idempotency keys of requests that move the champion."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("request", sa.String(512), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("from_version", sa.String(512), nullable=True),
        sa.Column("to_version", sa.String(512), nullable=False),
        sa.Column("move", sa.Integer, nullable=False),
        sa.Column("answer", sa.JSON, nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_idempotency_keys_at", "idempotency_keys", ["at"])
