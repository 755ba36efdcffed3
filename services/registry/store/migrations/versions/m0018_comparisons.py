"""Comparisons of versions' answers on the playground."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("comparison_id", sa.String(512), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("answers", sa.JSON, nullable=False),
        sa.Column("blind", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("choice", sa.String(512), nullable=True),
        sa.Column("voter", sa.String(512), nullable=True),
        sa.PrimaryKeyConstraint("comparison_id"),
    )
    op.create_index("ix_comparisons_created_at", "comparisons", ["created_at"])
