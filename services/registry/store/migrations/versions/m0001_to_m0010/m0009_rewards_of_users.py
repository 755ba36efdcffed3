"""Index to find a user's rewards without scanning all of them."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index("live_rewards_by", "live_rewards", ["model", "who", "version"])
