"""The tables, in the order of the flow. The migrations in `migrations/` create them; a test
compares both.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

Json = dict[str, Any]

Offset = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware time in UTC. SQLite drops the time zone and PostgreSQL returns the session's,
    so it is set again on reading.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_ENDED = text("answer <> 'reevaluate'")


class TableBase(DeclarativeBase):
    """Base class of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        Json: JSON,
        list[Any]: JSON,
        str: String(512),
        float: Double,
    }


class BatchRow(TableBase):
    """A batch as announced by `BatchReady`: its offsets, its manifest and its counts. Its examples
    are in the object store.
    """

    __tablename__ = "batches"

    batch_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    shard: Mapped[int]
    number: Mapped[int]
    lane: Mapped[str]
    manifest_uri: Mapped[str]
    manifest_digest: Mapped[str]
    counts: Mapped[Json]
    offsets: Mapped[list[Any]]
    closed_at: Mapped[datetime]


class TrainingRequestRow(TableBase):
    """A training request of an operator, for an imported dataset or for a file of this name, with
    the builder's newest answer. `fingerprint` identifies the HTTP request.
    """

    __tablename__ = "training_requests"
    __table_args__ = (Index("training_requests_of", "model", "requested_at"),)

    request_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    lane: Mapped[str]
    dataset: Mapped[str | None]
    file: Mapped[str | None]
    hyperparameters: Mapped[Json]
    operator: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str]
    state: Mapped[str]
    detail: Mapped[str] = mapped_column(Text)
    batch_id: Mapped[str | None]
    counts: Mapped[Json | None]
    requested_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class RunRow(TableBase):
    """A training run, one for each batch. `state` is its phase while it runs, then its outcome;
    `control_number` counts the operators' decisions to cancel or resume it, null if none.
    """

    __tablename__ = "runs"
    __table_args__ = (Index("runs_batch", "model", "batch_id", unique=True),)

    run_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    batch_id: Mapped[str]
    lane: Mapped[str | None]
    parent_version: Mapped[str | None]
    state: Mapped[str]
    step: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int] = mapped_column(default=0)
    evaluation: Mapped[int] = mapped_column(default=0)
    control_number: Mapped[int | None]
    version: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    advice: Mapped[str] = mapped_column(Text, default="")
    configuration: Mapped[Json | None]
    metrics: Mapped[Json | None]
    verdict: Mapped[Json | None]
    started_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class RunPointRow(TableBase):
    """One step of a run's loss curve."""

    __tablename__ = "run_points"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    learning_rate: Mapped[float | None]
    gradient_norm: Mapped[float | None]
    tokens_per_second: Mapped[float | None]
    at: Mapped[datetime]


class OutcomeRow(TableBase):
    """Handled outcomes: one per run and evaluation, and one that ends the run."""

    __tablename__ = "outcomes"
    __table_args__ = (
        Index(
            "outcomes_ended", "run_id", unique=True, sqlite_where=_ENDED, postgresql_where=_ENDED
        ),
    )

    run_id: Mapped[str] = mapped_column(primary_key=True)
    evaluation: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    answer: Mapped[str]


class VersionRow(TableBase):
    """A version. Immutable except `merged_*`, the current location of its merged file."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model", "number"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    created_at: Mapped[datetime]
    run_id: Mapped[str | None] = mapped_column(unique=True)
    batch_id: Mapped[str | None]
    lane: Mapped[str | None]
    parent: Mapped[str | None]
    adapter_uri: Mapped[str | None]
    adapter_digest: Mapped[str | None]
    base_digest: Mapped[str | None]
    model_digest: Mapped[str]
    training_loss: Mapped[float | None]
    epochs: Mapped[int | None]
    configuration: Mapped[Json | None]
    metrics: Mapped[Json | None]
    probes: Mapped[list[Any]]
    merged_path: Mapped[str | None]
    merged_digest: Mapped[str | None]


class TrainedWithoutRow(TableBase):
    """Offset in `dataset.withdrawals` up to which a version's run left out withdrawn examples; a
    version without a row left out none.
    """

    __tablename__ = "trained_without"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    through: Mapped[int] = mapped_column(Offset)


class WithdrawalRow(TableBase):
    """A withdrawal announced by the dataset service, or one part of it, for one user."""

    __tablename__ = "withdrawals"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    shard: Mapped[int]
    forgotten: Mapped[str]
    user: Mapped[str]
    reason: Mapped[str | None] = mapped_column(Text)
    waiting: Mapped[int]
    part: Mapped[int]
    at: Mapped[datetime]


class WithdrawnExampleRow(TableBase):
    """A withdrawn member of a batch, with the offset in `dataset.withdrawals` that withdrew it
    first.
    """

    __tablename__ = "withdrawn_examples"

    model: Mapped[str] = mapped_column(primary_key=True)
    feedback_id: Mapped[str] = mapped_column(primary_key=True)
    batch_id: Mapped[str]
    user: Mapped[str]
    offset: Mapped[int] = mapped_column(Offset)


class AliasRow(TableBase):
    """The aliases of a model. Every change of the model's state locks this row. `move` counts the
    moves of the champion.
    """

    __tablename__ = "aliases"

    model: Mapped[str] = mapped_column(primary_key=True)
    champion: Mapped[str | None]
    previous: Mapped[str | None]
    challenger: Mapped[str | None]
    move: Mapped[int] = mapped_column(default=0)


class LiveRewardRow(TableBase):
    """Reward of live feedback on an answer of a version, in order of `id`. `feedback_id` and `who`
    are digests of an event and a user. `known`: the user was known by then, so the reward counts.
    `move` is the current champion move at that time.
    """

    __tablename__ = "live_rewards"
    __table_args__ = (
        UniqueConstraint("model", "feedback_id"),
        Index("live_rewards_of", "model", "version", "id"),
        Index("live_rewards_by", "model", "who", "version"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str]
    version: Mapped[str]
    feedback_id: Mapped[str]
    who: Mapped[str]
    known: Mapped[bool]
    reward: Mapped[float]
    move: Mapped[int]


class FeedbackUserRow(TableBase):
    """A user, as a digest, who gave feedback on a model: the times at which the registry received
    the first and, to a day, the newest.
    """

    __tablename__ = "feedback_users"
    __table_args__ = (Index("feedback_users_seen", "model", "last_seen"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(primary_key=True)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]


class HoldRow(TableBase):
    """A hold on a model: only people move its champion."""

    __tablename__ = "holds"

    model: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    actor: Mapped[str]
    operator: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text)


class TrainingPauseRow(TableBase):
    """The newest decision to pause or resume training of a model. `since` and `operator` are set
    while it is paused; `number` counts the decisions.
    """

    __tablename__ = "training_pauses"

    model: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    since: Mapped[datetime | None]
    operator: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text)


class CanaryTrialRow(TableBase):
    """A canary trial of a challenger against `champion`, with its rule. `frozen_seconds` is the
    time on hold since it began. `heard_before` is the newest id of `live_rewards` at its start, for
    replicas of earlier releases.
    """

    __tablename__ = "trials"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    champion: Mapped[str]
    rule: Mapped[Json]
    began: Mapped[datetime]
    frozen_seconds: Mapped[float] = mapped_column(default=0.0)
    heard_before: Mapped[int]


class CanaryTargetRow(TableBase):
    """A challenger's deployment on a target: `ready` after verification, else `failed` with the
    reason.
    """

    __tablename__ = "trial_places"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    digest: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]


class CanaryRewardRow(TableBase):
    """A pair of rewards: one of the challenger on trial, and the champion's next one, null until it
    arrives. Users and events are digests, as in `live_rewards`.
    """

    __tablename__ = "trial_rewards"
    __table_args__ = (UniqueConstraint("model", "feedback_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str]
    feedback_id: Mapped[str]
    who: Mapped[str]
    reward: Mapped[float]
    other_feedback_id: Mapped[str | None]
    other_who: Mapped[str | None]
    other_reward: Mapped[float | None]


class AuditRow(TableBase):
    """Audit of decisions: actor, action, time, reason and evidence. Append-only. `operator` is the
    name of the token's owner, null for components and for tokens without a name. The last three
    columns are the hash chain, null in entries of releases without it.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_number", "number", unique=True),
        Index("audit_chain", "previous_hash", unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(index=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    operator: Mapped[str | None]
    action: Mapped[str]
    from_version: Mapped[str | None]
    to_version: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[Json]
    number: Mapped[int | None] = mapped_column(Offset)
    previous_hash: Mapped[str | None]
    hash: Mapped[str | None]


class AuditHeadRow(TableBase):
    """Number and hash of the newest entry of the audit log's hash chain."""

    __tablename__ = "audit_head"

    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Offset)
    hash: Mapped[str]


class AdapterRemovalRow(TableBase):
    """Decision of the retention rule to remove a run's adapter, with or without a version.
    Append-only.
    """

    __tablename__ = "removals"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    version: Mapped[str | None]
    uri: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class AdapterRemovalDoneRow(TableBase):
    """Completion of a removal, with the number of deleted objects. Append-only."""

    __tablename__ = "removals_done"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    objects: Mapped[int]
    at: Mapped[datetime]


class IdempotencyKeyRow(TableBase):
    """A champion move requested with an idempotency key: digest of the request, the decision, and
    the response, null until it is known.
    """

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    model: Mapped[str]
    from_version: Mapped[str | None]
    to_version: Mapped[str]
    move: Mapped[int]
    answer: Mapped[Json | None]
    at: Mapped[datetime] = mapped_column(index=True)


class OutboxRow(TableBase):
    """An event written in the transaction of its decision; `published_at` is null until sent."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_waiting", "published_at", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(unique=True)
    topic: Mapped[str]
    key: Mapped[str]
    value: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[Json]
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]


class WaitingReportRow(TableBase):
    """The dataset service's newest report of the examples of a shard that wait for a batch."""

    __tablename__ = "waiting_reports"

    model: Mapped[str] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    reported_at: Mapped[datetime]
    status: Mapped[Json]


class ComparisonRow(TableBase):
    """Answers of versions to one prompt, in the order in which they are shown, and the vote on
    them; `choice` is null until there is one.
    """

    __tablename__ = "comparisons"

    comparison_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    prompt: Mapped[str] = mapped_column(Text)
    answers: Mapped[list[Any]]
    blind: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(index=True)
    choice: Mapped[str | None]
    voter: Mapped[str | None]


class WebhookPositionRow(TableBase):
    """Number of the newest audit entry that has become deliveries of webhooks."""

    __tablename__ = "webhook_positions"

    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Offset)


class WebhookDeliveryRow(TableBase):
    """The delivery of an audit entry to a webhook, with the result of its last attempt. `due_at` is
    the time of the next attempt; `ended_at` is null until it is delivered or given up.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint", "number"),
        Index("webhook_due", "endpoint", "ended_at", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    endpoint: Mapped[str]
    number: Mapped[int] = mapped_column(Offset)
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    result: Mapped[str]


class DeploymentRow(TableBase):
    """A deployment of a version on a target and its result. `move` is the champion move that it
    carries out.
    """

    __tablename__ = "deployments"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(index=True)
    target: Mapped[str]
    version: Mapped[str]
    move: Mapped[int]
    state: Mapped[str]
    step: Mapped[str | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str | None]
    seconds: Mapped[float]
    finding: Mapped[Json | None]
    at: Mapped[datetime]


class LeaseRow(TableBase):
    """A lease; free when `holder` is null. `term` counts the holders, `beat` the heartbeats."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str | None]
    term: Mapped[int] = mapped_column(default=0)
    beat: Mapped[int] = mapped_column(default=0)
