"""Batches as announced, for the data of a version."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "batches",
        *(sa.Column(name, sa.String(512), nullable=False) for name in ("batch_id", "model")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("shard", "number")),
        *(
            sa.Column(name, sa.String(512), nullable=False)
            for name in ("lane", "manifest_uri", "manifest_digest")
        ),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("counts", "offsets")),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_index("ix_batches_model", "batches", ["model"])
