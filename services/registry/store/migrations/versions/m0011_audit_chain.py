"""Hash chain of the audit log. Entries that are older stay outside the chain."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("audit", sa.Column("number", number, nullable=True))
    op.add_column("audit", sa.Column("previous_hash", sa.String(512), nullable=True))
    op.add_column("audit", sa.Column("hash", sa.String(512), nullable=True))
    op.create_index("audit_number", "audit", ["number"], unique=True)
    op.create_index("audit_chain", "audit", ["previous_hash"], unique=True)
    op.create_table(
        "audit_head",
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("number", number, nullable=False),
        sa.Column("hash", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
