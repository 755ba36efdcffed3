"""Training requests of operators."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "training_requests",
        sa.Column("request_id", sa.String(512), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("lane", sa.String(512), nullable=False),
        sa.Column("dataset", sa.String(512), nullable=True),
        sa.Column("file", sa.String(512), nullable=True),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("operator", sa.String(512), nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(512), nullable=False),
        sa.Column("state", sa.String(512), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("batch_id", sa.String(512), nullable=True),
        sa.Column("counts", sa.JSON, nullable=True),
        sa.Column("requested_at", instant, nullable=False),
        sa.Column("updated_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("training_requests_of", "training_requests", ["model", "requested_at"])
