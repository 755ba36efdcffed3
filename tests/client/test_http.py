"""The HTTP transport, against the intake and against servers with unexpected or no responses."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ratchet_client import AsyncClient
from ratchet_client.event import FeedbackRecord
from ratchet_client.http import HttpTransport
from ratchet_client.transport import RecordRefused, TransportUnavailable
from shared.auth.bearer_tokens import tokens_for_role
from tests.client.fake_transport import record
from tests.feedback.intake.test_parsing import EVENT
from tests.support.intake_server import LIMITS, running_intake

TOKEN = "a-token-that-may-send"
TOKENS = tokens_for_role("send", [TOKEN], "tests")


def support_record(number: int, size: int = 0) -> FeedbackRecord:
    original = record(number, size)
    return FeedbackRecord(
        original.event_id,
        original.key,
        original.value.replace(b'"model":"m"', b'"model":"support"'),
    )


@asynccontextmanager
async def server_with(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()


async def test_records_are_in_kafka_when_a_send_returns() -> None:
    async with running_intake(lambda: TOKENS) as intake:
        transport = HttpTransport(intake.url, TOKEN)
        await transport.send([support_record(1), support_record(2)])
        await transport.send([support_record(3)])
        assert intake.kafka.delivered == ["e1", "e2", "e3"]
        without = HttpTransport(intake.url, None)
        with pytest.raises(TransportUnavailable, match="401"):
            await without.send([support_record(4)])
        await without.close()
        await transport.close()


async def test_an_oversized_request_is_split() -> None:
    async with running_intake() as intake:
        transport = HttpTransport(intake.url, None)
        await transport.send(
            [support_record(number) for number in range(2 * LIMITS.max_events + 1)]
        )
        assert intake.kafka.delivered == [
            f"e{number}" for number in range(2 * LIMITS.max_events + 1)
        ]
        with pytest.raises(RecordRefused) as refused:
            await transport.send(
                [
                    *(support_record(number, 3_000) for number in range(3)),
                    support_record(9, LIMITS.max_body_bytes),
                ]
            )
        assert refused.value.index == 3
        await transport.close()


async def test_the_refused_record_is_named() -> None:
    async with running_intake() as intake:
        transport = HttpTransport(intake.url, None)
        with pytest.raises(RecordRefused, match="no model file declares 'm'") as refused:
            await transport.send([support_record(1), support_record(2), record(3)])
        assert refused.value.index == 2
        assert intake.kafka.delivered == []
        await transport.close()


async def test_retry_after_is_respected() -> None:
    async with running_intake() as intake:
        transport = HttpTransport(intake.url, None)
        intake.kafka.available = False
        with pytest.raises(TransportUnavailable, match="503") as away:
            await transport.send([support_record(1)])
        assert away.value.retry_after == 5
        await transport.close()


async def test_a_closed_connection_is_reopened() -> None:
    connections = 0

    async def respond_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with server_with(respond_once) as url:
        transport = HttpTransport(url, None)
        for number in range(3):
            await transport.send([support_record(number)])
        await transport.close()
    assert connections == 3
    with pytest.raises(TransportUnavailable, match="does not respond"):
        await transport.send([support_record(1)])


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 500 No\r\n\r\n",
        b"SSH-2.0-no\r\n\r\n",
    ],
)
async def test_an_unknown_response_counts_as_an_outage(response: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    async with server_with(respond) as url:
        transport = HttpTransport(url, None)
        with pytest.raises(TransportUnavailable):
            await transport.send([support_record(1), support_record(2)])
        await transport.close()


async def test_the_client_sends_to_the_intake(tmp_path: Path) -> None:
    async with (
        running_intake(lambda: TOKENS) as intake,
        AsyncClient(url=intake.url, token=TOKEN, spool=tmp_path) as ratchet,
    ):
        feedback: Any = {
            name: value for name, value in EVENT.items() if name not in ("occurred_at", "event_id")
        }
        ids = [await ratchet.record_feedback(**feedback) for _ in range(30)]
        assert await ratchet.flush()
        assert (intake.kafka.delivered, ratchet.counts.sent, ratchet.counts.dropped) == (
            ids,
            30,
            {},
        )


async def test_a_hanging_server_blocks_neither_record_nor_close(
    tmp_path: Path,
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with server_with(hang) as url:
        ratchet = AsyncClient(url=url, spool=tmp_path, safe_within=0.1)
        for number in range(3):
            await ratchet.record_feedback(
                model="m", input="q", output=f"a{number}", feedback_type="accepted"
            )
        started = time.monotonic()
        await ratchet.close(seconds=1)
        assert time.monotonic() - started < 5
    assert (ratchet.counts.spooled, ratchet.counts.dropped) == (3, {})
