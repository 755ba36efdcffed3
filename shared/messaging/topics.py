"""The topics: one table, from which code, manifests and documents are made or against which they
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
    TrainingProgressed,
    TrainingRolledBack,
    UserForgotten,
    VersionDeployed,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
    WaitEnded,
    WithdrawalRequested,
)

FEEDBACK_RECEIVED = "feedback.received"
FEEDBACK_SCORED = "feedback.scored"
DATASET_ENTRIES = "dataset.entries"
DATASET_WITHDRAWALS = "dataset.withdrawals"
TRAINING_BATCHES = "training.batches"
TRAINING_PROGRESS = "training.progress"
TRAINING_CHECKPOINTS = "training.checkpoints"
TRAINING_ROLLBACKS = "training.rollbacks"
MODELS_VERSIONS = "models.versions"

DEAD_LETTER_SUFFIX = ".dlq"

MAX_APPLICATION_RECORD_BYTES = (1 << 20) + 12
"""Bytes of the largest record that an application may send, which is Kafka's own default."""
MAX_RECORD_BYTES = 4 << 20
"""Bytes of the largest record of our own: what a service makes of a record that was accepted always
fits.
"""
MAX_DEAD_LETTER_BYTES = 16 << 20
"""Bytes of the largest dead letter: a record that came compressed is larger here than where it
stood.
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """One row: what stands on a topic, who writes and reads it, how it is keyed and how long it is
    kept. Where there are several producers, `writes` says what one of them writes, where that is
    not all.
    """

    name: str
    key: str
    events: tuple[type[Event], ...]
    producer: str
    consumers: tuple[str, ...]
    retention: timedelta | None
    partitions: int = 1
    compacted: bool = False
    max_record_bytes: int = MAX_RECORD_BYTES
    events_by_producer: Mapping[str, tuple[type[Event], ...]] = field(
        default_factory=dict, hash=False
    )

    @property
    def producers(self) -> tuple[str, ...]:
        """Who writes events here."""
        return tuple(self.producer.split(", "))

    def written_by(self, producer: str) -> tuple[type[Event], ...]:
        """The events that one of the producers writes here."""
        return self.events_by_producer.get(producer, self.events)

    @property
    def settings(self) -> dict[str, str]:
        """The topic's configuration, in Kafka's names."""
        size = {"max.message.bytes": str(self.max_record_bytes)}
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
        "applications, feedback",
        ("feedback",),
        timedelta(days=14),
        4,
        max_record_bytes=MAX_APPLICATION_RECORD_BYTES,
        # What comes over HTTP.
        events_by_producer={"feedback": (FeedbackReceived,)},
    ),
    Topic(
        FEEDBACK_SCORED,
        "model or model#shard",
        # The last is the dataset service's own: what it decides follows from this log alone, the
        # end of a wait as well.
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
    # Kept for ever: what was withdrawn stays so, however old a snapshot is.
    Topic(
        DATASET_WITHDRAWALS,
        "model",
        (ExamplesWithdrawn,),
        "dataset",
        ("trainer", "registry"),
        None,
        4,
    ),
    Topic(
        TRAINING_BATCHES,
        "model",
        (BatchReady,),
        "dataset",
        ("trainer", "registry"),
        timedelta(days=365),
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
    """Where records of `topic` go that can never be processed."""
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
    # The changelog of the dataset's table: as many partitions as feedback.scored, an event's entry
    # stands where the event does.
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
"""Every topic: those of the flow, in its order, each followed by its dead letters; then those that
hold a service's state.
"""
