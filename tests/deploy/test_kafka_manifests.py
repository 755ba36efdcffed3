"""Topics, users and scaling triggers match the topic table and the code: every user has exactly the
ACLs that it needs.
"""

import ast
from pathlib import Path

import pytest

import shared.messaging.topics
from ratchet.kafka_admin.kafka_acls import (
    AUTOSCALED_GROUPS,
    CONSUMER_GROUPS,
    KafkaAcl,
    acls_by_user,
)
from services.dataset.builder.settings import BuilderSettings
from services.dataset.settings import DatasetSettings
from services.feedback.settings import FeedbackSettings
from services.registry import app as registry
from services.trainer.settings import TrainerSettings
from shared.messaging.topics import DEAD_LETTER_SUFFIX, TOPICS
from shared.observability.metrics import CATALOGUE
from tests.deploy.rendering import EVERYTHING, OVERLAYS, combination, of_kind, overlay

SERVICES = ("feedback", "dataset", "trainer", "registry")
TOPICS_BY_NAME = {topic.name: topic for topic in TOPICS}


def test_every_topic_of_the_table_is_a_manifest() -> None:
    manifests = of_kind(combination(EVERYTHING), "KafkaTopic")
    assert manifests.keys() == TOPICS_BY_NAME.keys()
    for name, manifest in manifests.items():
        assert manifest["spec"]["partitions"] == TOPICS_BY_NAME[name].partitions
        assert {
            key: str(value) for key, value in manifest["spec"]["config"].items()
        } == TOPICS_BY_NAME[name].settings


def test_topics_and_users_belong_to_the_kafka_cluster() -> None:
    (cluster,) = of_kind(combination(EVERYTHING), "Kafka")
    manifests = of_kind(combination(EVERYTHING), "KafkaTopic", "KafkaUser", "KafkaNodePool")
    assert len(manifests) == len(TOPICS) + 7 + 1
    assert {
        manifest["metadata"]["labels"]["strimzi.io/cluster"] for manifest in manifests.values()
    } == {cluster}


def test_consumer_groups_match_the_services() -> None:
    by_service = {
        service: {group.name for group in CONSUMER_GROUPS if group.service == service}
        for service in SERVICES
    }
    assert by_service == {
        "feedback": {FeedbackSettings().feedback_group},
        "dataset": {DatasetSettings().dataset_group, BuilderSettings().builder_group},
        "trainer": {TrainerSettings().trainer_group},
        "registry": {registry.GROUP, registry.LIVE_GROUP},
    }
    (main,) = [group for group in CONSUMER_GROUPS if group.name == registry.GROUP]
    assert main.topics == registry.TOPICS


@pytest.mark.parametrize("service", SERVICES)
def test_acls_of_a_service_match_the_topics_in_its_code(service: str) -> None:
    allowed = {acl.name for acl in acls_by_user()[f"ratchet-{service}"] if acl.kind == "topic"}
    imported = {
        getattr(shared.messaging.topics, name)
        for path in sorted(Path("services", service).rglob("*.py"))
        for name in _topics_in(path)
    }
    assert len(imported) >= 2
    assert {name for name in allowed if not name.endswith(DEAD_LETTER_SUFFIX)} == imported


def test_acls_of_every_user() -> None:
    """The expected ACLs, written by hand, so that every change is visible in a diff."""
    assert {
        user: {_short(acl) for acl in acls}
        for user, acls in acls_by_user().items()
        if user != "ratchet-operator"
    } == {
        "ratchet-application": {
            "w feedback.received",
            "r models.versions",
            "group ratchet-application*",
        },
        "ratchet-feedback": {
            "rw feedback.received",
            "w feedback.received.dlq",
            "w feedback.scored",
            "group ratchet-feedback",
        },
        "ratchet-dataset": {
            "rw feedback.scored",
            "w feedback.scored.dlq",
            "rw dataset.entries",
            "w dataset.withdrawals",
            "w dataset.waiting",
            "r training.requests",
            "w training.requests.dlq",
            "w training.answers",
            "rw training.batches",
            "group ratchet-dataset",
            "group ratchet-builder",
        },
        "ratchet-trainer": {
            "r dataset.withdrawals",
            "r training.controls",
            "r training.batches",
            "w training.batches.dlq",
            "w training.progress",
            "rw training.checkpoints",
            "rw training.rollbacks",
            "r models.versions",
            "group ratchet-trainer",
        },
        "ratchet-registry": {
            "w feedback.received",
            "r feedback.scored",
            "r dataset.withdrawals",
            "w dataset.withdrawals.dlq",
            "r dataset.waiting",
            "w dataset.waiting.dlq",
            "w training.requests",
            "r training.answers",
            "w training.answers.dlq",
            "r training.batches",
            "w training.batches.dlq",
            "r training.progress",
            "w training.progress.dlq",
            "r training.checkpoints",
            "w training.checkpoints.dlq",
            "r training.rollbacks",
            "w training.rollbacks.dlq",
            "w models.versions",
            "w training.controls",
            "group ratchet-registry",
            "group ratchet-registry-live",
        },
        "ratchet-autoscaler": {
            "- feedback.received",
            "- feedback.scored",
            "describe group ratchet-feedback",
            "describe group ratchet-dataset",
        },
    }


def test_operators_read_all_topics_and_write_no_state() -> None:
    operations_by_topic = {acl.name: acl.operations for acl in acls_by_user()["ratchet-operator"]}
    assert operations_by_topic.keys() == TOPICS_BY_NAME.keys()
    assert {
        name for name, operations in operations_by_topic.items() if "Write" not in operations
    } == {"dataset.entries"}


@pytest.mark.parametrize("user", acls_by_user())
def test_a_kafka_user_has_its_acls_and_a_certificate(user: str) -> None:
    users = of_kind(combination(EVERYTHING), "KafkaUser")
    assert users.keys() == acls_by_user().keys()
    spec = users[user]["spec"]
    assert spec["authentication"] == {"type": "tls"}
    assert [
        (acl["resource"]["name"], tuple(acl["operations"])) for acl in spec["authorization"]["acls"]
    ] == [(acl.name, acl.operations) for acl in acls_by_user()[user]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_kafka_requires_certificates_and_creates_no_topics(name: str) -> None:
    (kafka,) = of_kind(overlay(name), "Kafka").values()
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert listener["tls"] is True
    assert listener["authentication"] == {"type": "tls"}
    assert kafka["spec"]["kafka"]["authorization"] == {"type": "simple"}
    assert kafka["spec"]["kafka"]["config"]["auto.create.topics.enable"] is False
    (nodes,) = of_kind(overlay(name), "KafkaNodePool").values()
    assert (
        kafka["spec"]["kafka"]["config"]["default.replication.factor"] == nodes["spec"]["replicas"]
    )


def test_streams_scale_by_lag_up_to_their_partitions() -> None:
    scaled = of_kind(combination(("autoscaling",)), "ScaledObject")
    assert scaled.keys() == {"feedback", "dataset"}
    deployments = of_kind(combination(("autoscaling",)), "Deployment")
    for name, scaled_object in scaled.items():
        (trigger,) = scaled_object["spec"]["triggers"]
        (group,) = [
            group
            for group in CONSUMER_GROUPS
            if group.service == name and group.name in AUTOSCALED_GROUPS
        ]
        assert (trigger["metadata"]["consumerGroup"], (trigger["metadata"]["topic"],)) == (
            group.name,
            group.topics,
        )
        assert (
            scaled_object["spec"]["maxReplicaCount"]
            == TOPICS_BY_NAME[trigger["metadata"]["topic"]].partitions
        )
        assert scaled_object["spec"]["minReplicaCount"] >= 2
        assert (
            "replicas" not in deployments[scaled_object["spec"]["scaleTargetRef"]["name"]]["spec"]
        )
        assert trigger["authenticationRef"]["name"] in of_kind(
            combination(("autoscaling",)), "TriggerAuthentication"
        )


def test_a_trainer_scales_only_by_its_window() -> None:
    assert "trainer" not in of_kind(
        overlay("production"), "ScaledObject", "HorizontalPodAutoscaler"
    )
    spec = of_kind(combination(("trainer-window",)), "ScaledObject")["trainer"]["spec"]
    window, busy = spec["triggers"]
    assert (window["type"], busy["type"]) == ("cron", "prometheus")
    # The autoscaler can only choose 0 or the maximum; it chooses 0 while no trigger is active.
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        0,
        int(window["metadata"]["desiredReplicas"]),
    )
    (metric,) = [metric for metric in CATALOGUE if metric.name == "ratchet_training_in_progress"]
    assert f"max({metric.name}{{" in busy["metadata"]["query"]
    assert "fallback" not in spec
    assert (
        "replicas"
        not in of_kind(combination(("trainer-window",)), "StatefulSet")["trainer"]["spec"]
    )


def _topics_in(path: Path) -> list[str]:
    """Return the names of topics that a module imports from the topic table."""
    imports = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    names = [
        alias.name
        for node in imports
        if node.module == "shared.messaging.topics"
        for alias in node.names
    ]
    return [name for name in names if getattr(shared.messaging.topics, name) in TOPICS_BY_NAME]


def _short(acl: KafkaAcl) -> str:
    if acl.kind == "group":
        return (
            f"{'' if 'Read' in acl.operations else 'describe '}group "
            f"{acl.name}{'*' if acl.prefixed else ''}"
        )
    letters = "".join(
        operation[0].lower() for operation in acl.operations if operation != "Describe"
    )
    return f"{letters or '-'} {acl.name}"
