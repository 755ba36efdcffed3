"""The intake over real connections, with a fake delivery."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from shared.auth.bearer_tokens import tokens_for_role
from shared.http import bounded_server
from tests.feedback.intake.test_parsing import EVENT
from tests.support.intake_server import LIMITS, RunningIntake, running_intake

TOKEN = "a-token-that-may-send"
TOKENS = tokens_for_role("send", [TOKEN], "tests") | tokens_for_role(
    "operate", ["a-token-that-may-operate"], "tests"
)


def events(count: int, size: int = 0) -> list[dict[str, Any]]:
    return [EVENT | {"event_id": f"e{number}", "output": "x" * size} for number in range(count)]


async def post(
    client: httpx.AsyncClient, intake: RunningIntake, body: Any, **headers: str
) -> httpx.Response:
    return await client.post(f"{intake.url}/v1/feedback", json=body, headers=headers)


async def send_raw(intake: RunningIntake, request: bytes) -> bytes:
    """Send bytes and return everything until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", intake.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_accepted_events_are_delivered_over_keep_alive() -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        answer = await post(client, intake, events(3))
        assert (answer.status_code, answer.json()) == (
            202,
            {"accepted": 3, "event_ids": ["e0", "e1", "e2"]},
        )
        assert intake.kafka.delivered == ["e0", "e1", "e2"]
        assert (await post(client, intake, EVENT)).json() == {"accepted": 1, "event_ids": ["e"]}
        output = generate_latest(intake.metrics.registry).decode()
    assert 'ratchet_intake_requests_total{status="202"} 2.0' in output
    assert "ratchet_intake_events_total 4.0" in output
    assert "ratchet_intake_acknowledged_seconds_count 2.0" in output
    assert "ratchet_intake_bytes_in_flight 0.0" in output


async def test_one_invalid_event_rejects_the_whole_request() -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        answer = await post(client, intake, [EVENT, EVENT | {"validation_score": 2}])
        assert (answer.status_code, answer.headers["content-type"]) == (
            422,
            "application/problem+json",
        )
        problem = answer.json()
        assert (problem["status"], problem["index"], problem["field"]) == (
            422,
            1,
            "validation_score",
        )
        assert "event 1" in problem["detail"]
        assert intake.kafka.delivered == []


async def test_without_kafka_the_answer_has_retry_after() -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        intake.kafka.available = False
        answer = await post(client, intake, EVENT)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        intake.kafka.available = True
        assert (await post(client, intake, EVENT)).status_code == 202


async def test_requests_over_the_in_flight_budget_get_429() -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        intake.kafka.released.clear()
        first = asyncio.create_task(post(client, intake, events(1, 8_000)))
        while (
            "ratchet_intake_bytes_in_flight 8"
            not in generate_latest(intake.metrics.registry).decode()
        ):
            await asyncio.sleep(0.005)
        answer = await post(client, intake, events(1, 8_000))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert not first.done()
        intake.kafka.released.set()
        assert (await first).status_code == 202
        assert (await post(client, intake, events(1, 8_000))).status_code == 202
    assert (
        'ratchet_intake_requests_total{status="429"} 1.0'
        in generate_latest(intake.metrics.registry).decode()
    )


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_body_over_the_limit_gets_413(in_pieces: bool) -> None:
    async def pieces() -> Any:
        for _ in range(200):
            yield b" " * 1_000

    async with running_intake() as intake, httpx.AsyncClient() as client:
        content = pieces() if in_pieces else b" " * (LIMITS.max_body_bytes + 1)
        answer = await client.post(
            f"{intake.url}/v1/feedback",
            content=content,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 413
        assert (await post(client, intake, EVENT)).status_code == 202
    assert "ratchet_intake_bytes_in_flight 0.0" in generate_latest(intake.metrics.registry).decode()


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", "/v1/feedback", "application/json", 405),
        ("POST", "/v1/feedback", "text/plain", 415),
        ("POST", "/v1/feedback", "application/json; charset=utf-8", 202),
        ("POST", "/v1/elsewhere", "application/json", 404),
        ("POST", "/v1/feedback/", "application/json", 404),
        ("GET", "/v1/elsewhere", "", 404),
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 503),
        ("GET", "/metrics?name=x", "", 200),
    ],
)
async def test_status_by_method_path_and_content_type(
    method: str, path: str, content_type: str, status: int
) -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        content = json.dumps(EVENT).encode() if method == "POST" else None
        answer = await client.request(
            method, intake.url + path, content=content, headers={"Content-Type": content_type}
        )
        assert answer.status_code == status
        intake.health.mark_ready()
        assert (await client.get(f"{intake.url}/readyz")).status_code == 200
        head = await client.head(f"{intake.url}/metrics")
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer of-bad-news-and-no-token"}, 401),
        ({"Authorization": "Bearer a-token-that-may-operate"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"bearer {TOKEN}"}, 202),
        (
            {
                "Authorization": f"Bearer {TOKEN}",
                "X-Forwarded-For": "203.0.113.9",
                "Host": "feedback.example",
            },
            202,
        ),
    ],
)
async def test_with_a_token_file_a_valid_token_is_required(
    headers: dict[str, str], status: int
) -> None:
    async with running_intake(lambda: TOKENS) as intake, httpx.AsyncClient() as client:
        answer = await post(client, intake, EVENT, **headers)
        assert answer.status_code == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert TOKEN not in answer.text
        assert len(intake.kafka.delivered) == (status == 202)


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "203.0.113.9"}, {"Host": "rebound.example"}, {"Via": "1.1 proxy"}],
)
async def test_without_tokens_only_local_requests_are_accepted(headers: dict[str, str]) -> None:
    async with running_intake() as intake, httpx.AsyncClient() as client:
        assert (await post(client, intake, EVENT, **headers)).status_code == 401
        assert (await post(client, intake, EVENT, Host="localhost:8091")).status_code == 202
        assert intake.kafka.delivered == ["e"]


@pytest.mark.parametrize(
    ("request_bytes", "begins"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * (64 << 10), b"HTTP/1.1 431 "),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 OK"),
        (
            b"POST /v1/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 400 ",
        ),
    ],
)
async def test_malformed_and_old_http_requests(request_bytes: bytes, begins: bytes) -> None:
    async with running_intake() as intake:
        assert (await send_raw(intake, request_bytes)).startswith(begins)


async def test_expect_100_continue_is_answered() -> None:
    body = json.dumps(EVENT).encode()
    head = (
        "POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(body)}\r\n"
    )
    async with running_intake() as intake:
        output = await send_raw(
            intake, f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode() + body
        )
    assert [line for line in output.split(b"\r\n") if line.startswith(b"HTTP/")] == [
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 202 Accepted",
    ]


async def test_a_body_that_does_not_arrive_frees_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded_server, "ARRIVAL_SECONDS", 0.2)
    head = (
        b"POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        b"application/json\r\nContent-Length: 9000\r\n\r\n"
    )
    async with running_intake() as intake, httpx.AsyncClient() as client:
        assert await send_raw(intake, head + b"[") == b""
        assert (await post(client, intake, events(1, 8_000))).status_code == 202


async def test_a_connection_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "MAX_CONNECTIONS", 1)
    async with running_intake() as intake, httpx.AsyncClient() as client:
        assert (await client.get(f"{intake.url}/healthz")).status_code == 200
        answer = await send_raw(intake, b"")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert (await client.get(f"{intake.url}/healthz")).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"GET /healthz HTT",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /he",
    ],
)
async def test_a_connection_without_a_whole_request_is_closed(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "ARRIVAL_SECONDS", 0.2)
    async with running_intake() as intake:
        async with asyncio.timeout(5):
            answer = await send_raw(intake, request_bytes)
    assert answer.count(b"HTTP/1.1 200 OK") == request_bytes.count(b"\r\n\r\n")


async def test_time_spent_on_delivery_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "ARRIVAL_SECONDS", 0.2)
    async with running_intake() as intake, httpx.AsyncClient() as client:
        intake.kafka.released.clear()
        posting = asyncio.create_task(post(client, intake, EVENT))
        await asyncio.sleep(0.6)
        assert not posting.done()
        intake.kafka.released.set()
        assert (await posting).status_code == 202


async def test_an_early_answer_arrives_before_the_body_ends() -> None:
    size = 4 << 20
    head = (
        "POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    async with running_intake() as intake:
        reader, writer = await asyncio.open_connection("127.0.0.1", intake.port)
        writer.write(head.encode() + b" " * 1_000)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        writer.write(b" " * (size - 1_000))
        await writer.drain()
        assert b"the limit is 10000" in await reader.read()
        writer.close()


async def test_a_refused_request_gets_no_100_continue() -> None:
    head = (
        b"POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    )
    async with running_intake() as intake:
        reader, writer = await asyncio.open_connection("127.0.0.1", intake.port)
        writer.write(head)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 415 ")
        writer.close()


async def test_a_malformed_body_is_answered_and_frees_its_budget() -> None:
    head = (
        b"POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    async with running_intake() as intake, httpx.AsyncClient() as client:
        answer = await send_raw(intake, head + b"no chunk\r\n")
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"application/problem+json" in answer
        assert (await post(client, intake, events(1, 8_000))).status_code == 202
    assert "ratchet_intake_bytes_in_flight 0.0" in generate_latest(intake.metrics.registry).decode()


async def test_shutdown_waits_for_requests_in_flight() -> None:
    async with httpx.AsyncClient() as client:
        async with running_intake() as intake:
            intake.kafka.released.clear()
            posting = asyncio.create_task(post(client, intake, EVENT))
            await asyncio.sleep(0.2)
            asyncio.get_running_loop().call_later(0.3, intake.kafka.released.set)
        assert (await posting).status_code == 202
        with pytest.raises(httpx.ConnectError):
            await post(client, intake, EVENT)
