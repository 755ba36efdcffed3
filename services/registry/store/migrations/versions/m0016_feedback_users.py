"""Users by the time of their first feedback, taken over from the versions that they rated."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "feedback_users",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("who", sa.String(512), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "who"),
    )
    op.create_index("feedback_users_seen", "feedback_users", ["model", "last_seen"])
    # Earlier releases stored no times: the version that a user rated was created before.
    op.execute(
        "INSERT INTO feedback_users (model, who, first_seen, last_seen) "
        "SELECT live_rewards.model, live_rewards.who, "
        "MIN(versions.created_at), MAX(versions.created_at) "
        "FROM live_rewards JOIN versions ON versions.model = live_rewards.model "
        "AND versions.name = live_rewards.version "
        "GROUP BY live_rewards.model, live_rewards.who"
    )
