"""Reports of the examples that wait for a batch."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "waiting_reports",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("shard", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("model", "shard"),
    )
