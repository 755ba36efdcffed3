"""The first tables. Databases that have some of them get the missing ones."""

from alembic import op
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    tables = MetaData()
    Table(
        "runs",
        tables,
        _name("run_id"),
        _name("model", index=True),
        _name("batch_id"),
        _name("lane", nullable=True),
        _name("parent_version", nullable=True),
        _name("state"),
        _number("step"),
        _number("total_steps"),
        _number("evaluation"),
        _name("version", nullable=True),
        _text("reason"),
        _text("advice"),
        _json("configuration", nullable=True),
        _json("metrics", nullable=True),
        _json("verdict", nullable=True),
        _instant("started_at"),
        _instant("updated_at"),
        _instant("ended_at", nullable=True),
        PrimaryKeyConstraint("run_id"),
    )
    Table(
        "run_points",
        tables,
        _name("run_id"),
        _number("step"),
        _measure("loss", nullable=False),
        _measure("learning_rate"),
        _measure("gradient_norm"),
        _measure("tokens_per_second"),
        _instant("at"),
        PrimaryKeyConstraint("run_id", "step"),
    )
    Table(
        "outcomes",
        tables,
        _name("run_id"),
        _number("evaluation"),
        _name("event_id"),
        _name("answer"),
        PrimaryKeyConstraint("run_id", "evaluation"),
    )
    Table(
        "versions",
        tables,
        _name("model"),
        _name("name"),
        _number("number"),
        _instant("created_at"),
        _name("run_id", nullable=True),
        _name("batch_id", nullable=True),
        _name("lane", nullable=True),
        _name("parent", nullable=True),
        _name("adapter_uri", nullable=True),
        _name("adapter_digest", nullable=True),
        _name("base_digest", nullable=True),
        _name("model_digest"),
        _measure("training_loss"),
        _number("epochs", nullable=True),
        _json("configuration", nullable=True),
        _json("metrics", nullable=True),
        _json("probes"),
        _name("merged_path", nullable=True),
        _name("merged_digest", nullable=True),
        PrimaryKeyConstraint("model", "name"),
        UniqueConstraint("model", "number"),
        UniqueConstraint("run_id"),
    )
    Table(
        "trained_without",
        tables,
        _name("model"),
        _name("version"),
        _number("through"),
        PrimaryKeyConstraint("model", "version"),
    )
    Table(
        "withdrawals",
        tables,
        _name("event_id"),
        _name("model", index=True),
        _number("shard"),
        _name("forgotten"),
        _name("user"),
        _text("reason", nullable=True),
        _number("waiting"),
        _number("part"),
        _instant("at"),
        PrimaryKeyConstraint("event_id"),
    )
    Table(
        "withdrawn_examples",
        tables,
        _name("model"),
        _name("feedback_id"),
        _name("batch_id"),
        _name("user"),
        _number("offset"),
        PrimaryKeyConstraint("model", "feedback_id"),
    )
    Table(
        "aliases",
        tables,
        _name("model"),
        _name("champion", nullable=True),
        _name("previous", nullable=True),
        _name("challenger", nullable=True),
        _number("move"),
        PrimaryKeyConstraint("model"),
    )
    Table(
        "audit",
        tables,
        _number("id"),
        _name("model", index=True),
        _instant("at"),
        _name("actor"),
        _name("action"),
        _name("from_version", nullable=True),
        _name("to_version", nullable=True),
        _text("reason"),
        _json("evidence"),
        PrimaryKeyConstraint("id"),
    )
    Table(
        "outbox",
        tables,
        _number("id"),
        _name("event_id"),
        _name("topic"),
        _name("key"),
        Column("value", LargeBinary, nullable=False),
        _json("headers"),
        _instant("created_at"),
        _instant("published_at", nullable=True),
        PrimaryKeyConstraint("id"),
        UniqueConstraint("event_id"),
        Index("outbox_waiting", "published_at", "id"),
    )
    Table(
        "deployments",
        tables,
        _number("id"),
        _name("model", index=True),
        _name("target"),
        _name("version"),
        _number("move"),
        _name("state"),
        _name("step", nullable=True),
        _text("reason"),
        _name("digest", nullable=True),
        _measure("seconds", nullable=False),
        _json("finding", nullable=True),
        _instant("at"),
        PrimaryKeyConstraint("id"),
    )
    tables.create_all(op.get_bind())


def _name(name: str, nullable: bool = False, index: bool = False) -> Column[str]:
    return Column(name, String(512), nullable=nullable, index=index)


def _text(name: str, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _number(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _measure(name: str, nullable: bool = True) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _json(name: str, nullable: bool = False) -> Column[object]:
    return Column(name, JSON, nullable=nullable)


def _instant(name: str, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)
