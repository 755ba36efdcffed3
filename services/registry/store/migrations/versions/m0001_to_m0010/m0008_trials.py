"""Canary trials: the trial, its targets, and the rewards of both versions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "trials",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(512), nullable=False),
        sa.Column("champion", sa.String(512), nullable=False),
        sa.Column("rule", sa.JSON, nullable=False),
        sa.Column("began", instant, nullable=False),
        sa.Column("frozen_seconds", sa.Double, nullable=False),
        sa.Column("heard_before", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "trial_places",
        *(
            sa.Column(name, sa.String(512), nullable=False)
            for name in ("model", "version", "target", "state")
        ),
        sa.Column("digest", sa.String(512), nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "target"),
    )
    op.create_table(
        "trial_rewards",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        *(
            sa.Column(name, sa.String(512), nullable=False)
            for name in ("model", "feedback_id", "who")
        ),
        sa.Column("reward", sa.Double, nullable=False),
        sa.Column("other_feedback_id", sa.String(512), nullable=True),
        sa.Column("other_who", sa.String(512), nullable=True),
        sa.Column("other_reward", sa.Double, nullable=True),
        sa.UniqueConstraint("model", "feedback_id"),
    )
