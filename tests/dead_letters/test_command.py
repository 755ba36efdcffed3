"""The commands of `ratchet dlq` on a real broker, with the feedback service."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet.local_stack.ports import free_port
from shared.errors import Misconfigured
from shared.events import FeedbackReceived, FeedbackScored
from shared.messaging.codec import Header, decode
from shared.messaging.dead_letters import DeadLetterInfo, original_headers
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, dead_letter_topic
from tests.dead_letters.kafka_access import (
    MODEL_FILE,
    all_committed,
    put,
    read_all,
    service,
    set_max_message_bytes,
)
from tests.dead_letters.test_malformed_input import golden_event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

DLQ = dead_letter_topic(FEEDBACK_RECEIVED)
HELLO = golden_event(FeedbackReceived)
TRACE: list[Header] = [("trace", None), ("trace", b"\xff"), ("ratchet_dlq_reason", b"not kept")]


def ratchet(broker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"RATCHET_BOOTSTRAP_SERVERS": broker, "PATH": "/usr/bin:/bin", "COLUMNS": "240"}
    command = (sys.executable, "-m", "ratchet", "dlq", *arguments)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def run_json(broker: str, *arguments: str) -> Any:
    result = ratchet(broker, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


async def test_dead_letters_are_listed_shown_and_replayed(
    broker_apart: str, tmp_path: Path
) -> None:
    """Two causes: a model that is declared later, and bytes that can never be decoded."""
    undeclared = [
        json.dumps(HELLO | {"event_id": f"o{number}", "model": "other"}).encode()
        for number in range(3)
    ]
    broken = b'{"model": "other", \x1b]0;owned\x07'
    records: list[tuple[bytes | None, bytes, list[Header]]] = [
        (b"k", value, TRACE) for value in undeclared
    ]
    records += [(None, broken, [("h", None)]), (b"k", json.dumps(HELLO).encode(), [])]

    async def run_feedback() -> None:
        running = service("feedback", broker_apart, tmp_path)
        await running.start()
        try:
            await all_committed(broker_apart, running, "ratchet-feedback", FEEDBACK_RECEIVED)
        finally:
            assert running.stop() == 0, running.log

    assert ratchet(broker_apart, "list").stdout == "no dead letters match\n"
    await put(broker_apart, FEEDBACK_RECEIVED, records)
    await run_feedback()

    listed = run_json(broker_apart, "list")
    assert (listed["matching"], len(listed["letters"])) == (4, 4)
    assert sorted((reason["letters"], reason["field"]) for reason in listed["reasons"]) == [
        (1, ""),
        (3, "model"),
    ]
    assert {
        (letter["attempt"], letter["replayed"], letter["service"]) for letter in listed["letters"]
    } == {(1, None, "feedback")}
    assert run_json(broker_apart, "list", FEEDBACK_SCORED)["matching"] == 0
    assert (
        run_json(
            broker_apart,
            "list",
            FEEDBACK_RECEIVED,
            "--model",
            "other",
            "--since",
            "1h",
            "--limit",
            "2",
        )["matching"]
        == 3
    )
    table = ratchet(broker_apart, "list").stdout
    assert "no model file declares 'other'" in table
    assert "4 of 4 shown" in table
    (broken_id,) = (letter["id"] for letter in listed["letters"] if letter["field"] == "")

    shown = run_json(broker_apart, "show", broken_id)
    assert (shown["key"], shown["value"], shown["headers"]) == (
        None,
        {"text": broken.decode()},
        [{"name": "h", "value": None}],
    )
    page = ratchet(broker_apart, "show", shown["source"]).stdout
    assert "\\x1b]0;owned\\x07" in page
    assert "\x1b" not in page
    assert run_json(
        broker_apart, "show", next(letter["id"] for letter in listed["letters"] if letter["field"])
    )["headers"] == [
        {"name": "trace", "value": None},
        {"name": "trace", "value": {"base64": "/w=="}},
    ]

    assert (
        run_json(broker_apart, "replay", "--reason", "no model file", "--dry-run")["replayed"] == 0
    )
    assert len(await read_all(broker_apart, FEEDBACK_RECEIVED)) == len(records)
    (tmp_path / "models" / "other.yaml").write_text(MODEL_FILE.replace("support", "other"))
    first = run_json(broker_apart, "replay", "--reason", "no model file", "--limit", "2")
    assert (first["replayed"], first["left"]) == (2, 1)
    second = run_json(broker_apart, "replay", "--field", "model")
    assert (second["replayed"], second["already"], second["left"]) == (1, 2, 0)
    assert run_json(broker_apart, "replay", "--id", broken_id)["replayed"] == 1
    rejected = ratchet(broker_apart, "replay", "--id", broken_id)
    assert (rejected.returncode, rejected.stdout) == (
        1,
        "0 replayed\n1 skipped, replayed before; --again replays them as well\n",
    )
    await run_feedback()

    received = await read_all(broker_apart, FEEDBACK_RECEIVED)
    replayed = [record for record in received if "ratchet_replay_of" in dict(record.headers)]
    assert sorted(record.value or b"" for record in replayed) == sorted([*undeclared, broken])
    positions = {(record.value, record.partition) for record in received if record not in replayed}
    assert {(record.value, record.partition) for record in replayed} <= positions, (
        "published to the source partition"
    )
    for record in replayed:
        assert original_headers(record.headers) == (
            (("h", None),) if record.value == broken else tuple(TRACE[:2])
        )
    events = [
        decode(record.value, record.headers, FeedbackScored).event
        for record in await read_all(broker_apart, FEEDBACK_SCORED)
    ]
    assert sorted(event.event_id for event in events) == ["e1", "o0", "o1", "o2"]
    letters = [
        info
        for letter in await read_all(broker_apart, DLQ)
        if (info := DeadLetterInfo.from_headers(letter.headers))
    ]
    assert sorted(info.attempt for info in letters) == [1, 1, 1, 1, 2]
    listed = run_json(broker_apart, "list")["letters"]
    assert [(letter["attempt"], letter["replayed"] is None) for letter in listed] == [
        (1, False)
    ] * 4 + [(2, True)]

    exhausted = run_json(broker_apart, "replay", "--attempts", "2")
    assert (exhausted["replayed"], exhausted["already"], exhausted["exhausted"]) == (0, 4, 1)
    assert (
        ratchet(broker_apart, "replay", "--reason", "nothing like it").stdout
        == "no dead letters match\n"
    )


async def test_a_replay_over_the_topic_size_limit_is_explained(
    broker_apart: str, tmp_path: Path
) -> None:
    running = service("feedback", broker_apart, tmp_path)
    await put(broker_apart, FEEDBACK_RECEIVED, [(b"k", b"x" * 5000, [])])
    await running.start()
    try:
        await all_committed(broker_apart, running, "ratchet-feedback", FEEDBACK_RECEIVED)
    finally:
        assert running.stop() == 0, running.log
    await set_max_message_bytes(broker_apart, FEEDBACK_RECEIVED, 1000)
    rejected = ratchet(broker_apart, "replay")
    assert rejected.returncode == 1
    assert rejected.stderr.startswith(
        f"error: a record is too large for {FEEDBACK_RECEIVED}; raise its max.message.bytes"
    )
    with pytest.raises(Misconfigured):
        await put(broker_apart, FEEDBACK_RECEIVED, [(b"k", b"x" * 5000, [])])
    await set_max_message_bytes(broker_apart, FEEDBACK_RECEIVED, 10_000)
    assert run_json(broker_apart, "replay")["replayed"] == 1


def test_an_unknown_letter_or_topic_is_a_one_line_error(broker: str) -> None:
    for arguments, words in (
        (
            ("list", "no.such.topic"),
            "there is no topic no.such.topic.dlq here; there are dataset.waiting.dlq, ",
        ),
        (
            ("show", f"{DLQ}/0/987654321"),
            f"there is no dead letter with the position or source position {DLQ}/0/987654321",
        ),
        (("show", "17"), "expected topic/partition/offset, found '17'"),
        (
            ("list", "--since", "[/]yesterday"),
            "expected a time like 2026-01-31T12:00:00Z or 12h, found '[/]yesterday'",
        ),
        (("replay", "--id", f"{DLQ}/99/1"), ""),
    ):
        result = ratchet(broker, *arguments)
        assert result.returncode == 1, arguments
        assert words in result.stderr
        assert "Traceback" not in result.stderr + result.stdout


def test_an_unavailable_broker_is_a_one_line_error() -> None:
    for arguments in (("list",), ("show", f"{DLQ}/0/0"), ("replay",)):
        result = ratchet(f"127.0.0.1:{free_port()}", *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith("error: no Kafka broker answers")
        assert "Traceback" not in result.stderr + result.stdout
