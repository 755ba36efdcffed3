"""Number of operators' decisions on a run."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("runs", sa.Column("control_number", sa.Integer, nullable=True))
