"""Kafka ACLs of every user, derived from the topic table. A user may do only what the pipeline
needs.

The users are the applications, the four services, the autoscaler, which reads the lag of consumer
groups, and operators with the command line.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from shared.messaging.topics import (
    DATASET_WAITING,
    DATASET_WITHDRAWALS,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TOPICS,
    TRAINING_ANSWERS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_REQUESTS,
    TRAINING_ROLLBACKS,
    Topic,
    dead_letter_topic,
)

Operation = Literal["Describe", "Read", "Write"]


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group of a service. `dead_letters`: records that it cannot process are
    dead-lettered.
    """

    name: str
    service: str
    topics: tuple[str, ...]
    dead_letters: bool = True


CONSUMER_GROUPS: tuple[ConsumerGroup, ...] = (
    ConsumerGroup("ratchet-feedback", "feedback", (FEEDBACK_RECEIVED,)),
    ConsumerGroup("ratchet-dataset", "dataset", (FEEDBACK_SCORED,)),
    # The builder: a process of the dataset service.
    ConsumerGroup("ratchet-builder", "dataset", (TRAINING_REQUESTS,)),
    ConsumerGroup("ratchet-trainer", "trainer", (TRAINING_BATCHES,)),
    ConsumerGroup(
        "ratchet-registry",
        "registry",
        (
            DATASET_WITHDRAWALS,
            DATASET_WAITING,
            TRAINING_ANSWERS,
            TRAINING_BATCHES,
            TRAINING_PROGRESS,
            TRAINING_CHECKPOINTS,
            TRAINING_ROLLBACKS,
        ),
    ),
    ConsumerGroup("ratchet-registry-live", "registry", (FEEDBACK_SCORED,), dead_letters=False),
)

AUTOSCALED_GROUPS = ("ratchet-feedback", "ratchet-dataset")
"""The groups of the stream services, which are scaled by their lag."""


@dataclass(frozen=True, slots=True)
class KafkaAcl:
    """Operations that a user may perform on a topic or a consumer group.

    If `prefixed`, `name` is a prefix of resource names.
    """

    kind: Literal["topic", "group"]
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def acls_by_user() -> dict[str, tuple[KafkaAcl, ...]]:
    """Return the ACLs of every user, by user name, in pipeline order."""
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
    dead_letter_topics = {
        dead_letter_topic(topic) for group in groups if group.dead_letters for topic in group.topics
    }
    topics = _on_topics(
        lambda topic: _reads(topic, service),
        lambda topic: _writes(topic, service) or topic.name in dead_letter_topics,
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
    """Operators read all topics, replay dead letters, and mark them as replayed. They write no
    state of a service: its topics are compacted and have no events.
    """
    return tuple(
        _on_topics(lambda topic: True, lambda topic: bool(topic.events) or not topic.compacted)
    )


def _on_topics(
    reads: Callable[[Topic], bool], writes: Callable[[Topic], bool]
) -> Iterator[KafkaAcl]:
    for topic in TOPICS:
        operations: tuple[Operation, ...] = (
            *(("Read",) if reads(topic) else ()),
            *(("Write",) if writes(topic) else ()),
        )
        if operations:
            yield KafkaAcl("topic", topic.name, ("Describe", *operations))


def _reads(topic: Topic, component: str) -> bool:
    return component in topic.consumers


def _writes(topic: Topic, component: str) -> bool:
    return component in topic.producer.split(", ")
