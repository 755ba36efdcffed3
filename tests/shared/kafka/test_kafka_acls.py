"""Documented Kafka rights of each service: sufficient for it, and all that the topics require."""

import asyncio
import json
import re
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.config.settings import KafkaSettings
from shared.errors import BusUnavailable
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.security import kafka_security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.topics import (
    DATASET_ENTRIES,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    MODELS_VERSIONS,
    TOPICS,
    TRAINING_BATCHES,
    dead_letter_topic,
)
from tests.support.secured_broker import PASSWORD, SecuredBroker
from tests.support.service_process import ServiceProcess, read, send

SERVICES = ("feedback", "dataset", "trainer", "registry")


@dataclass(frozen=True)
class ServiceAcls:
    """The ACLs of a service: a row of the table in the docs."""

    reads: frozenset[str]
    writes: frozenset[str]
    groups: frozenset[str]


def documented_acls() -> dict[str, ServiceAcls]:
    """Return the table of docs/security.md, by service."""
    rows = re.findall(
        r"^\| `(\w+)`(?:, with its builder)? \| (.*) \| (.*) \| (.*) \|$",
        Path("docs/security.md").read_text(),
        re.MULTILINE,
    )
    acls_by_service = {
        name: ServiceAcls(*(frozenset(re.findall("`([^`]+)`", cell)) for cell in cells))
        for name, *cells in rows
    }
    assert tuple(acls_by_service) == SERVICES
    return acls_by_service


def test_the_documented_acls_match_the_topic_table() -> None:
    letters = {topic.name for topic in TOPICS if topic.name.endswith(".dlq")}
    for name, acls in documented_acls().items():
        consumed = {topic.name for topic in TOPICS if name in topic.consumers}
        produced = {topic.name for topic in TOPICS if name in topic.producer.split(", ")}
        assert acls.reads >= consumed
        assert acls.writes - letters == produced
        assert acls.reads | acls.writes <= {topic.name for topic in TOPICS}
        assert {dead_letter_topic(topic) for topic in acls.reads} >= acls.writes & letters


def mentions(record: Record, word: bytes) -> bool:
    return word in (record.key or b"") + (record.value or b"")


async def first_mentioning(secure_broker: SecuredBroker, topic: str, word: bytes) -> Record:
    async with aclosing(read(secure_broker.open, topic)) as records:
        async for record in records:
            if mentions(record, word):
                return record
    raise AssertionError(f"nothing on {topic} mentions {word!r}")


def settings(folder: Path) -> dict[str, str]:
    return {
        "RATCHET_DATABASE": f"sqlite:///{folder / 'registry.db'}",
        "RATCHET_MERGED": str(folder / "merged"),
    }


@pytest.mark.kafka
@pytest.mark.timeout(150)
async def test_services_work_with_the_documented_acls_over_tls(
    secure_broker: SecuredBroker, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.yaml").write_text(
        "model: m\nbase: {training: base, serving: base.gguf}\ncuration: {batch_size: 2}\n"
    )
    documented_by_service = documented_acls()
    for name, principal in {
        "feedback": "User:feedback",
        "dataset": "User:CN=dataset",
        "registry": "User:registry",
    }.items():
        await secure_broker.grant(
            principal,
            documented_by_service[name].reads,
            documented_by_service[name].writes,
            documented_by_service[name].groups,
        )
    services = [
        ServiceProcess(
            "feedback", secure_broker.scram, tmp_path, **secure_broker.as_user("feedback")
        ),
        ServiceProcess(
            "dataset", secure_broker.mutual, tmp_path, **secure_broker.as_certificate("dataset")
        ),
        ServiceProcess(
            "registry",
            secure_broker.scram,
            tmp_path,
            **secure_broker.as_user("registry"),
            **settings(tmp_path),
        ),
    ]
    try:
        await asyncio.gather(*(service.start() for service in services))
        await send(
            secure_broker.open,
            FEEDBACK_RECEIVED,
            [(b"k", feedback(number), []) for number in range(20)],
        )
        await send(secure_broker.open, FEEDBACK_RECEIVED, [(b"k", b"no event", [])])
        await send(secure_broker.open, FEEDBACK_SCORED, [(b"k", b"no event either", [])])
        await first_mentioning(secure_broker, FEEDBACK_SCORED, b"said-7")
        await first_mentioning(secure_broker, dead_letter_topic(FEEDBACK_RECEIVED), b"no event")
        await first_mentioning(secure_broker, DATASET_ENTRIES, b"said-7")
        await first_mentioning(secure_broker, TRAINING_BATCHES, b"manifest")
        await first_mentioning(
            secure_broker, dead_letter_topic(FEEDBACK_SCORED), b"no event either"
        )
        await send(secure_broker.open, TRAINING_BATCHES, [(b"m", b"no batch", [])])
        await first_mentioning(secure_broker, dead_letter_topic(TRAINING_BATCHES), b"no batch")
        await first_mentioning(secure_broker, MODELS_VERSIONS, b"base")
    finally:
        statuses = [service.stop(30) for service in services]
    assert statuses == [0, 0, 0], [service.log for service in services]
    assert not any(PASSWORD in service.log for service in services)


def feedback(number: int) -> bytes:
    words = " ".join(f"{number}-{index}" for index in range(8))
    fields: dict[str, Any] = {
        "event_id": f"said-{number}",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": "m",
        "user_id": f"u{number}",
    }
    return json.dumps(
        fields | {"input": f"ask {words}", "output": f"say {words}", "feedback_type": "thumbs_up"}
    ).encode()


@pytest.mark.kafka
async def test_the_trainers_acls_are_neither_more_nor_less(
    secure_broker: SecuredBroker,
) -> None:
    acls = documented_acls()["trainer"]
    await secure_broker.grant("User:trainer", acls.reads, acls.writes, acls.groups)
    environment = {
        name.removeprefix("RATCHET_").lower(): value
        for name, value in secure_broker.as_user("trainer").items()
    }
    security = kafka_security(KafkaSettings.model_validate(environment))
    producer = KafkaProducer(secure_broker.scram, security)
    reader = KafkaTopicReader(
        secure_broker.scram, sorted(acls.reads - {TRAINING_BATCHES}), security
    )
    (group,) = acls.groups
    consumer = KafkaConsumer(secure_broker.scram, group, [TRAINING_BATCHES], security=security)
    await producer.start()
    await reader.start()
    await consumer.start()
    try:
        for topic in acls.writes:
            await producer.send(topic, b"trainer", b"no event of the trainer", [])
        assert {record.topic for record in await reader.read_new()} >= acls.reads & acls.writes
        await send(secure_broker.open, TRAINING_BATCHES, [(b"trainer", b"for the trainer", [])])
        async for record in consumer.records():
            await consumer.commit(record)
            if mentions(record, b"for the trainer"):
                consumer.stop_after_current()
        with pytest.raises(
            BusUnavailable, match=r"could not write to models\.versions: .*Authorization"
        ):
            await producer.send(MODELS_VERSIONS, b"trainer", b"a version of its own making", [])
    finally:
        await consumer.stop()
        await reader.stop()
        await producer.stop()
