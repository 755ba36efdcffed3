"""The topic table on a cluster, with as many partitions as were asked for."""

import json
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner

from ratchet.cli import commands, topics
from ratchet.kafka_admin.topics import AppliedTopics, apply_topics
from shared.messaging.topics import Topic


@pytest.mark.kafka
async def test_partitions_come_from_the_option_or_the_topic_table(
    broker: str,
) -> None:
    asked, table = (Topic(f"sized.{name}", "", (), "", (), None, 2) for name in ("asked", "table"))
    assert await apply_topics(broker, [asked], partitions=8) == AppliedTopics(("sized.asked",), ())
    assert await apply_topics(broker, [table]) == AppliedTopics(("sized.table",), ())
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        assert [len(await producer.partitions_for(topic.name)) for topic in (asked, table)] == [
            8,
            2,
        ]


def test_the_command_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    async def applied(bootstrap_servers: str, **how: Any) -> AppliedTopics:
        told.update(how, at=bootstrap_servers)
        return AppliedTopics(("one",), ())

    monkeypatch.setattr(topics, "apply_topics", applied)
    command = [
        "topics",
        "apply",
        "--bootstrap-servers",
        "there:1",
        "--replication",
        "3",
        "--partitions",
        "64",
        "--json",
    ]
    done = CliRunner().invoke(commands.app, command)
    assert json.loads(done.output) == {"created": ["one"], "present": []}
    assert (told["at"], told["replication"], told["partitions"]) == ("there:1", 3, 64)
