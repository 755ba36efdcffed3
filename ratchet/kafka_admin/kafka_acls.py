"""Who may do what on the bus: rights of users, made from the topic table. A user may do what the
flow shows, and nothing else.

applications ── the four services ── the autoscaler, which sees how far behind groups are ──
operators, with the command line
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TOPICS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
    Topic,
    dead_letter_topic,
)

Operation = Literal["Describe", "Read", "Write"]


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group: whose it is, what it consumes, and whether what it cannot process goes to
    the dead letters.
    """

    name: str
    service: str
    topics: tuple[str, ...]
    dead_letters: bool = True


CONSUMER_GROUPS: tuple[ConsumerGroup, ...] = (
    ConsumerGroup("ratchet-feedback", "feedback", (FEEDBACK_RECEIVED,)),
    ConsumerGroup("ratchet-dataset", "dataset", (FEEDBACK_SCORED,)),
    ConsumerGroup("ratchet-trainer", "trainer", (TRAINING_BATCHES,)),
    ConsumerGroup(
        "ratchet-registry",
        "registry",
        (
            DATASET_WITHDRAWALS,
            TRAINING_BATCHES,
            TRAINING_PROGRESS,
            TRAINING_CHECKPOINTS,
            TRAINING_ROLLBACKS,
        ),
    ),
    ConsumerGroup("ratchet-registry-live", "registry", (FEEDBACK_SCORED,), dead_letters=False),
)

AUTOSCALED_GROUPS = ("ratchet-feedback", "ratchet-dataset")
"""The groups of the streams, which are scaled by how far behind they are."""


@dataclass(frozen=True, slots=True)
class KafkaAcl:
    """What a user may do with a topic or with a consumer group; a prefixed name stands for all that
    begin with it.
    """

    kind: Literal["topic", "group"]
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def acls_by_user() -> dict[str, tuple[KafkaAcl, ...]]:
    """The rights of every user, by the user's name, in the order of the flow."""
    of_services = {
        f"ratchet-{group.service}": _of_service(group.service) for group in CONSUMER_GROUPS
    }
    return (
        {"ratchet-application": _of_application()}
        | of_services
        | {"ratchet-autoscaler": _of_autoscaler(), "ratchet-operator": _of_operator()}
    )


def _of_service(service: str) -> tuple[KafkaAcl, ...]:
    groups = [group for group in CONSUMER_GROUPS if group.service == service]
    given_up = {
        dead_letter_topic(topic) for group in groups if group.dead_letters for topic in group.topics
    }
    topics = _on_topics(
        lambda topic: _reads(topic, service),
        lambda topic: _writes(topic, service) or topic.name in given_up,
    )
    return (*topics, *(KafkaAcl("group", group.name, ("Describe", "Read")) for group in groups))


def _of_application() -> tuple[KafkaAcl, ...]:
    topics = _on_topics(
        lambda topic: _reads(topic, "applications"), lambda topic: _writes(topic, "applications")
    )
    return (*topics, KafkaAcl("group", "ratchet-application", ("Describe", "Read"), prefixed=True))


def _of_autoscaler() -> tuple[KafkaAcl, ...]:
    scaled = [group for group in CONSUMER_GROUPS if group.name in AUTOSCALED_GROUPS]
    topics = [KafkaAcl("topic", topic, ("Describe",)) for group in scaled for topic in group.topics]
    return (*topics, *(KafkaAcl("group", group.name, ("Describe",)) for group in scaled))


def _of_operator() -> tuple[KafkaAcl, ...]:
    """Operators read everything, put dead letters back, and say beside a letter that they did."""
    return tuple(_on_topics(lambda topic: True, lambda topic: not topic.compacted))


def _on_topics(
    reads: Callable[[Topic], bool], writes: Callable[[Topic], bool]
) -> Iterator[KafkaAcl]:
    for topic in TOPICS:
        wanted: tuple[Operation, ...] = (
            *(("Read",) if reads(topic) else ()),
            *(("Write",) if writes(topic) else ()),
        )
        if wanted:
            yield KafkaAcl("topic", topic.name, ("Describe", *wanted))


def _reads(topic: Topic, who: str) -> bool:
    return who in topic.consumers


def _writes(topic: Topic, who: str) -> bool:
    return who in topic.producer.split(", ")
