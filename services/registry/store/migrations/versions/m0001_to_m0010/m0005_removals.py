"""Adapter removals: the decision of the retention rule, and its completion. Append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TABLES = ("removals", "removals_done")
_SAYS = "what was removed stays written down"


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "removals",
        sa.Column("run_id", sa.String(512), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(512), nullable=True),
        sa.Column("uri", sa.String(512), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_removals_model", "removals", ["model"])
    op.create_table(
        "removals_done",
        sa.Column("run_id", sa.String(512), nullable=False),
        sa.Column("objects", sa.Integer, nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    for table in _TABLES:
        if op.get_bind().dialect.name == "postgresql":
            op.execute(
                f"CREATE TRIGGER {table}_stay BEFORE UPDATE OR DELETE ON {table} FOR EACH "
                f"ROW EXECUTE FUNCTION refuse('{_SAYS}')"
            )
            op.execute(
                f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT "
                f"EXECUTE FUNCTION refuse('{_SAYS}')"
            )
        else:
            for name, change in (("stay", "UPDATE"), ("last", "DELETE")):
                op.execute(
                    f"CREATE TRIGGER {table}_{name} BEFORE {change} ON {table} BEGIN SELECT "
                    f"RAISE(ABORT, '{_SAYS}'); END"
                )
