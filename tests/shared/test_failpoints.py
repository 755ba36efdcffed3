"""Failpoints: a closed catalogue, a validated setting, and no effect by default."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shared.config.settings import read_settings
from shared.errors import SettingsError, Unavailable
from shared.failpoints import (
    FAILPOINTS,
    NAMES,
    FailpointTrigger,
    arm,
    parse_failpoints,
    reach,
    reach_in_thread,
)
from shared.kafka.streams import StreamSettings

LOG = structlog.stdlib.get_logger("test")
CALL = re.compile(r"""reach(?:_in_thread)?\("([^"]+)"\)""")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm((), LOG)


def test_each_failpoint_is_in_the_code_exactly_once() -> None:
    sources = [*Path("services").rglob("*.py"), Path("shared/kafka/streams.py")]
    uses = Counter(
        name for source in sources for name in CALL.findall(source.read_text(encoding="utf-8"))
    )
    assert uses == Counter(NAMES)
    assert len(NAMES) > 8


def test_the_docs_list_all_failpoints() -> None:
    rows = [
        f"| `{row.name}` | {', '.join(row.services)} | {row.durable} | {row.not_durable} |"
        for row in FAILPOINTS
    ]
    assert "\n".join(rows) in Path("docs/delivery.md").read_text(encoding="utf-8")


def test_triggers_are_parsed_from_one_line() -> None:
    assert parse_failpoints(
        "dataset.announced=kill@3, stream.delivered=pause:1.5,feedback.scored=fail"
    ) == (
        FailpointTrigger("dataset.announced", "kill", 0, 3),
        FailpointTrigger("stream.delivered", "pause", 1.5, 1),
        FailpointTrigger("feedback.scored", "fail", 0, 1),
    )
    assert parse_failpoints("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "dataset.nowhere=kill",
            "unknown failpoint 'dataset.nowhere'; expected one of feedback.scored, "
            "dataset.recovering,",
        ),
        (
            "dataset.decided=explode",
            "expected kill, pause:SECONDS, stall:SECONDS or fail after dataset.decided=",
        ),
        ("dataset.decided=pause", "expected kill, pause:SECONDS"),
        ("dataset.decided=kill:3", "expected kill, pause:SECONDS"),
        ("dataset.decided=kill@0", "expected name=action"),
        ("dataset.decided", "expected name=action"),
    ],
)
def test_an_invalid_trigger_stops_the_service_at_start(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setenv("RATCHET_FAILPOINTS", text)
    with pytest.raises(SettingsError) as error:
        read_settings(StreamSettings)
    assert "RATCHET_FAILPOINTS" in str(error.value)
    assert expected in str(error.value)


def test_no_failpoint_is_armed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_FAILPOINTS", raising=False)
    assert read_settings(StreamSettings).failpoints == ()


async def test_a_failpoint_triggers_once_at_the_given_visit() -> None:
    arm(parse_failpoints("dataset.decided=fail@2"), LOG)
    await reach("dataset.decided")
    await reach("dataset.entry_sent")
    with pytest.raises(Unavailable, match=r"dataset\.decided"):
        await reach("dataset.decided")
    await reach("dataset.decided")


async def test_a_stall_in_a_thread_does_not_block_the_loop() -> None:
    arm(parse_failpoints("dataset.data_written=stall:0.2"), LOG)
    started = time.monotonic()
    stalled = asyncio.create_task(asyncio.to_thread(reach_in_thread, "dataset.data_written"))
    await asyncio.sleep(0.01)
    assert time.monotonic() - started < 0.15
    await stalled
    assert time.monotonic() - started >= 0.2
