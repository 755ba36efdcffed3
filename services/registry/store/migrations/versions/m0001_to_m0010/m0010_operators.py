"""Names of the operators in the audit log and of holds."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for table in ("audit", "holds"):
        op.add_column(table, sa.Column("operator", sa.String(512), nullable=True))
