"""Topics: one table from which code, manifests and documents are generated or against which they
are checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from shared.events import (
    BatchReady,
    CheckpointSaved,
    DeploymentFailed,
    Event,
    ExamplesWithdrawn,
    FeedbackReceived,
    FeedbackScored,
    RunCancelled,
    RunResumed,
    TrainingPaused,
    TrainingProgressed,
    TrainingRequestAnswered,
    TrainingRequested,
    TrainingResumed,
    TrainingRolledBack,
    UserForgotten,
    VersionDeployed,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
    WaitEnded,
    WaitingReported,
    WithdrawalRequested,
)

FEEDBACK_RECEIVED = "feedback.received"
FEEDBACK_SCORED = "feedback.scored"
DATASET_ENTRIES = "dataset.entries"
DATASET_WITHDRAWALS = "dataset.withdrawals"
DATASET_WAITING = "dataset.waiting"
TRAINING_REQUESTS = "training.requests"
TRAINING_ANSWERS = "training.answers"
TRAINING_BATCHES = "training.batches"
TRAINING_CONTROLS = "training.controls"
TRAINING_PROGRESS = "training.progress"
TRAINING_CHECKPOINTS = "training.checkpoints"
TRAINING_ROLLBACKS = "training.rollbacks"
MODELS_VERSIONS = "models.versions"

DEAD_LETTER_SUFFIX = ".dlq"

MAX_APPLICATION_RECORD_BYTES = (1 << 20) + 12
"""Maximum record size for applications, in bytes: Kafka's default."""
MAX_RECORD_BYTES = 4 << 20
"""Maximum size of a record that Ratchet writes, in bytes.

Large enough for the result of any accepted record.
"""
MAX_DEAD_LETTER_BYTES = 16 << 20
"""Maximum size of a dead letter, in bytes: compressed records are stored uncompressed here."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its events, producers, consumers, key and retention.

    With several producers, `events_by_producer` lists the events of those that do not write all of
    them. `append_time`: records get the time at which the broker appends them, and retention counts
    from it.
    """

    name: str
    key: str
    events: tuple[type[Event], ...]
    producer: str
    consumers: tuple[str, ...]
    retention: timedelta | None
    partitions: int = 1
    compacted: bool = False
    append_time: bool = False
    max_record_bytes: int = MAX_RECORD_BYTES
    events_by_producer: Mapping[str, tuple[type[Event], ...]] = field(
        default_factory=dict, hash=False
    )

    @property
    def producers(self) -> tuple[str, ...]:
        """The producers of this topic."""
        return tuple(self.producer.split(", "))

    def written_by(self, producer: str) -> tuple[type[Event], ...]:
        """Return the events that a producer writes to this topic."""
        return self.events_by_producer.get(producer, self.events)

    @property
    def settings(self) -> dict[str, str]:
        """The topic configuration, with Kafka's names."""
        size = {"max.message.bytes": str(self.max_record_bytes)}
        if self.append_time:
            size["message.timestamp.type"] = "LogAppendTime"
        if self.compacted:
            return {"cleanup.policy": "compact"} | size
        if self.retention is None:
            return {"cleanup.policy": "delete", "retention.ms": "-1"} | size
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(int(self.retention.total_seconds() * 1000)),
        } | size


_EVENT_TOPICS: tuple[Topic, ...] = (
    Topic(
        FEEDBACK_RECEIVED,
        "conversation or user; free",
        (FeedbackReceived, UserForgotten),
        "applications, feedback, registry",
        ("feedback",),
        timedelta(days=14),
        4,
        # Retention counts from the arrival: imported feedback is older than it. Wrong clocks of
        # producers do no harm either.
        append_time=True,
        max_record_bytes=MAX_APPLICATION_RECORD_BYTES,
        # From the HTTP intake, and from votes on the registry's pages.
        events_by_producer={"feedback": (FeedbackReceived,), "registry": (FeedbackReceived,)},
    ),
    Topic(
        FEEDBACK_SCORED,
        "model or model#shard",
        # The dataset service writes WaitEnded itself: its decisions depend on this log alone.
        (FeedbackScored, WithdrawalRequested, WaitEnded),
        "feedback, dataset",
        ("dataset", "registry"),
        timedelta(days=90),
        4,
        events_by_producer={
            "feedback": (FeedbackScored, WithdrawalRequested),
            "dataset": (WaitEnded,),
        },
    ),
    # Never deleted: a withdrawal applies to snapshots of any age.
    Topic(
        DATASET_WITHDRAWALS,
        "model",
        (ExamplesWithdrawn,),
        "dataset",
        ("trainer", "registry"),
        None,
        4,
    ),
    # The newest report of each shard is enough.
    Topic(
        DATASET_WAITING,
        "model or model#shard",
        (WaitingReported,),
        "dataset",
        ("registry",),
        None,
        4,
        compacted=True,
    ),
    Topic(
        TRAINING_REQUESTS,
        "model",
        (TrainingRequested,),
        "registry",
        ("dataset",),
        timedelta(days=30),
        4,
    ),
    Topic(
        TRAINING_ANSWERS,
        "model",
        (TrainingRequestAnswered,),
        "dataset",
        ("registry",),
        timedelta(days=30),
        4,
    ),
    # The dataset service reads it to find the newest batch of feedback of a model.
    Topic(
        TRAINING_BATCHES,
        "model",
        (BatchReady,),
        "dataset",
        ("dataset", "trainer", "registry"),
        timedelta(days=365),
        4,
    ),
    # Never deleted: a pause or a cancellation holds however old it is.
    Topic(
        TRAINING_CONTROLS,
        "model",
        (TrainingPaused, TrainingResumed, RunCancelled, RunResumed),
        "registry",
        ("trainer",),
        None,
        4,
    ),
    Topic(
        TRAINING_PROGRESS,
        "run_id",
        (TrainingProgressed,),
        "trainer",
        ("registry",),
        timedelta(days=7),
        4,
    ),
    Topic(
        TRAINING_CHECKPOINTS,
        "model",
        (CheckpointSaved,),
        "trainer",
        ("registry", "trainer"),
        timedelta(days=365),
        4,
    ),
    Topic(
        TRAINING_ROLLBACKS,
        "model",
        (TrainingRolledBack,),
        "trainer",
        ("registry", "trainer"),
        timedelta(days=365),
        4,
    ),
    Topic(
        MODELS_VERSIONS,
        "model",
        (
            VersionRegistered,
            VersionPromoted,
            VersionRolledBack,
            VersionWithdrawn,
            VersionDeployed,
            DeploymentFailed,
        ),
        "registry",
        ("trainer", "applications"),
        timedelta(days=365),
        4,
    ),
)


def dead_letter_topic(topic: str) -> str:
    """Return the name of the dead-letter topic of `topic`."""
    return topic + DEAD_LETTER_SUFFIX


def _dead_letters(topic: Topic) -> Topic:
    return Topic(
        dead_letter_topic(topic.name),
        "as the source",
        (),
        "the consumer that gave up",
        (),
        timedelta(days=30),
        topic.partitions,
        max_record_bytes=MAX_DEAD_LETTER_BYTES,
    )


_STATE_TOPICS: tuple[Topic, ...] = (
    # The changelog of the dataset's table. It has as many partitions as feedback.scored, and an
    # event's entry is in the same partition as the event.
    Topic(
        DATASET_ENTRIES,
        "model#shard|feedback_id",
        (),
        "dataset",
        ("dataset",),
        None,
        4,
        compacted=True,
    ),
)

TOPICS: tuple[Topic, ...] = (
    tuple(row for topic in _EVENT_TOPICS for row in (topic, _dead_letters(topic))) + _STATE_TOPICS
)
"""Every topic: event topics in the order of the flow, each followed by its dead-letter topic, then
the topics with a service's state.
"""
