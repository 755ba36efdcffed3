"""`ratchet topics apply`: creation of topics and number of partitions."""

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
    explicit, table = (
        Topic(f"sized.{name}", "", (), "", (), None, 2) for name in ("explicit", "table")
    )
    assert await apply_topics(broker, [explicit], partitions=8) == AppliedTopics(
        ("sized.explicit",), ()
    )
    assert await apply_topics(broker, [table]) == AppliedTopics(("sized.table",), ())
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        assert [len(await producer.partitions_for(topic.name)) for topic in (explicit, table)] == [
            8,
            2,
        ]


def test_the_command_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}

    async def fake_apply(bootstrap_servers: str, **options: Any) -> AppliedTopics:
        arguments.update(options, bootstrap_servers=bootstrap_servers)
        return AppliedTopics(("one",), ())

    monkeypatch.setattr(topics, "apply_topics", fake_apply)
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
    result = CliRunner().invoke(commands.app, command)
    assert json.loads(result.output) == {"created": ["one"], "present": []}
    assert (
        arguments["bootstrap_servers"],
        arguments["replication"],
        arguments["partitions"],
    ) == ("there:1", 3, 64)
