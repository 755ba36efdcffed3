"""Triggers and indexes that refuse changed versions, rewritten history and second outcomes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_VERSION = (
    "model, name, number, created_at, run_id, batch_id, lane, parent, adapter_uri, "
    "adapter_digest, base_digest, model_digest, "
    "training_loss, epochs, configuration, metrics, probes"
)

_GUARDS = (
    ("versions_stay", "UPDATE OF " + _VERSION, "versions", "a version never changes"),
    ("versions_last", "DELETE", "versions", "a version is never removed"),
    ("audit_stays", "UPDATE", "audit", "the history is only added to"),
    ("audit_lasts", "DELETE", "audit", "the history is only added to"),
)


def upgrade() -> None:
    op.create_index("runs_batch", "runs", ["model", "batch_id"], unique=True)
    ended = sa.text("answer <> 'reevaluate'")
    op.create_index(
        "outcomes_ended",
        "outcomes",
        ["run_id"],
        unique=True,
        sqlite_where=ended,
        postgresql_where=ended,
    )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        for name, change, table, says in _GUARDS:
            op.execute(
                f"CREATE TRIGGER {name} BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT, "
                f"'{says}'); END"
            )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = "
        "'integrity_constraint_violation'; END $$"
    )
    for name, change, table, says in _GUARDS:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {change} ON {table} FOR EACH ROW EXECUTE FUNCTION "
            f"refuse('{says}')"
        )
    for table in ("versions", "audit"):
        op.execute(
            f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT "
            "EXECUTE FUNCTION refuse('never emptied')"
        )
