"""Finds what a user's feedback was worth without looking through everyone's."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index("live_rewards_by", "live_rewards", ["model", "who", "version"])
