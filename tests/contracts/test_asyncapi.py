"""The AsyncAPI document is valid by AsyncAPI's own parser, and matches the code."""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from ratchet.contracts.asyncapi import asyncapi_document
from shared.errors import ContractViolation
from shared.events import EVENTS, Position
from shared.messaging.codec import decode
from shared.messaging.dead_letters import DLQ_PREFIX, DeadLetterInfo
from shared.messaging.topics import FEEDBACK_SCORED, TOPICS, dead_letter_topic
from tests.contracts.committed import DOCS, EXAMPLES
from tests.support.programs import require_program

NODE = Path(__file__).parent / "node"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
MESSAGES = DOCUMENT["components"]["messages"]
OPERATIONS = DOCUMENT["operations"]


@pytest.fixture(scope="session")
def parser() -> Path:
    """The folder of AsyncAPI's parser, installed once per version."""
    require_program("node")
    npm = require_program("npm")
    package_file = (NODE / "package.json").read_bytes()
    folder = Path(".ratchet/node") / sha256(package_file).hexdigest()[:12]
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_bytes(package_file)
        install = [
            npm,
            "install",
            "--ignore-scripts",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
        ]
        subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
        (folder / "installed").touch()
    return folder.absolute() / "node_modules"


def parsed(parser: Path, path: Path) -> Any:
    environment = {**os.environ, "NODE_PATH": str(parser)}
    command = [require_program("node"), str(NODE / "validate.cjs"), str(path)]
    result = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=120
    )
    return json.loads(result.stdout)


def test_the_parser_accepts_the_document(parser: Path) -> None:
    report = parsed(parser, DOCS / "asyncapi.yaml")
    assert [
        diagnostic for diagnostic in report["diagnostics"] if diagnostic["code"] not in NOT_MEANT
    ] == []
    assert report["channels"] == [topic.name for topic in TOPICS]
    fields = {event.type_name(): list(event.model_fields) for event in EVENTS}
    assert report["fields"] == fields | {"DeadLetter": []}, "the payloads are the schemas"


# Recommendations that do not apply here: an application identifier, contacts, tags, and the newest
# version of AsyncAPI.
NOT_MEANT = {"asyncapi-id", "asyncapi3-tags", "asyncapi-info-contact", "asyncapi-latest-version"}


def test_the_parser_rejects_a_broken_document(parser: Path, tmp_path: Path) -> None:
    shutil.copytree(DOCS / "schemas", tmp_path / "schemas")
    wrong = tmp_path / "asyncapi.yaml"
    bad: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    bad["channels"]["feedback.received"]["bindings"]["kafka"]["partitions"] = 0
    bad["operations"]["trainer.send.training.progress"]["channel"]["$ref"] = "#/channels/nowhere"
    wrong.write_text(yaml.safe_dump(bad), encoding="utf-8")
    error_paths = {
        diagnostic["path"]
        for diagnostic in parsed(parser, wrong)["diagnostics"]
        if diagnostic["severity"] == 0
    }
    for expected_path in (
        "channels.feedback.received.bindings.kafka",
        "operations.trainer.send.training.progress",
    ):
        assert any(diagnostic.startswith(expected_path) for diagnostic in error_paths), (
            expected_path,
            error_paths,
        )


def test_channels_match_the_topic_table() -> None:
    assert list(DOCUMENT["channels"]) == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        channel = DOCUMENT["channels"][topic.name]
        kafka = channel["bindings"]["kafka"]
        assert (channel["address"], kafka["topic"], kafka["partitions"]) == (
            topic.name,
            topic.name,
            topic.partitions,
        )
        settings = {
            name: value[0] if isinstance(value, list) else str(value)
            for name, value in kafka["topicConfiguration"].items()
        }
        assert settings == topic.settings
        expected = [event.__name__ for event in topic.events] or (
            ["DeadLetter"] if topic.name.endswith(".dlq") else []
        )
        assert list(channel.get("messages", {})) == expected


def test_operations_match_producers_and_consumers() -> None:
    for topic in TOPICS:
        for event in topic.events:
            reference = {"$ref": f"#/channels/{topic.name}/messages/{event.__name__}"}
            senders = [
                name
                for name, operation in OPERATIONS.items()
                if operation["action"] == "send" and reference in operation["messages"]
            ]
            readers = [
                name
                for name, operation in OPERATIONS.items()
                if operation["action"] == "receive" and reference in operation["messages"]
            ]
            assert senders == [
                f"{producer}.send.{topic.name}"
                for producer in topic.producers
                if event in topic.written_by(producer)
            ]
            assert senders, event
            assert readers == [f"{service}.receive.{topic.name}" for service in topic.consumers]
    assert f"dataset.send.{FEEDBACK_SCORED}" in OPERATIONS
    assert {name for name in OPERATIONS if name.startswith("consumer.send.")} == {
        f"consumer.send.{dead_letter_topic(topic.name)}" for topic in TOPICS if topic.events
    }


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_message_examples_decode_as_their_type(event: Any) -> None:
    message = MESSAGES[event.__name__]
    [example] = message["examples"]
    assert example["payload"] == EXAMPLES[event.type_name()]
    headers = [(name, value.encode()) for name, value in example["headers"].items()]
    topic = next(topic for topic in TOPICS if event in topic.events)
    decoded = decode(json.dumps(example["payload"]).encode(), headers, *topic.events)
    assert isinstance(decoded.event, event)
    described = {"components": DOCUMENT["components"], **message["headers"]}
    fits = jsonschema_rs.Draft202012Validator(described)
    assert fits.is_valid(example["headers"])
    assert not fits.is_valid(example["headers"] | {"ce_type": "ratchet.Other.v1"})


def test_dead_letter_headers_match_the_code() -> None:
    error = ContractViolation("expected a number", "reward")
    position = Position(topic="t", partition=0, offset=1)
    notice = DeadLetterInfo.for_error(
        position, [], error, "dataset", datetime(2026, 5, 4, tzinfo=UTC)
    )
    written = {name for name, _ in notice.headers()}
    headers = MESSAGES["DeadLetter"]["headers"]
    assert set(headers["properties"]) == set(headers["required"]) == written
    assert all(name.startswith(DLQ_PREFIX) for name in written)


def test_the_document_has_plain_values_only() -> None:
    """No YAML anchors or aliases, which not every parser supports."""
    text = (DOCS / "asyncapi.yaml").read_text(encoding="utf-8")
    assert "&id" not in text
    assert yaml.safe_load(text) == json.loads(
        json.dumps(asyncapi_document(DOCUMENT["info"]["version"], EXAMPLES))
    )
