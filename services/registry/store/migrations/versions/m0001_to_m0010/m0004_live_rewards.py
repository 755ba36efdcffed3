"""Rewards of live feedback by version, and holds."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "live_rewards",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(512), nullable=False),
        sa.Column("feedback_id", sa.String(512), nullable=False),
        sa.Column("who", sa.String(512), nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("reward", sa.Double, nullable=False),
        sa.Column("move", sa.Integer, nullable=False),
        sa.UniqueConstraint("model", "feedback_id"),
    )
    op.create_index("live_rewards_of", "live_rewards", ["model", "version", "id"])
    op.create_table(
        "holds",
        sa.Column("model", sa.String(512), primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(512), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
