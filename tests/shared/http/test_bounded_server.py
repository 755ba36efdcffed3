"""The server of every service under silent, slow and broken clients."""

import logging
import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock
from shared.http import bounded_server
from shared.http.bounded_server import MAX_BODY_BYTES
from shared.http.health_server import serve_health
from shared.observability.health import Health
from tests.support.app_server import serving
from tests.support.silent_connections import silent_connections


@pytest.fixture
def port() -> Iterator[int]:
    port = free_port()
    stop = serve_health(Health(SystemClock()), CollectorRegistry(), "127.0.0.1", port)
    yield port
    stop()


def status_of_probe(port: int) -> int:
    return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code


def send_slowly(client: socket.socket, count: int) -> None:
    for _ in range(count):
        client.sendall(b"G")
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT"])
def test_probes_answer_beside_many_silent_connections(port: int, sent: bytes) -> None:
    with silent_connections(port, sent):
        assert [status_of_probe(port) for _ in range(5)] == [200] * 5
    assert status_of_probe(port) == 200


def test_the_oldest_silent_connection_is_replaced(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "MAX_CONNECTIONS", 2)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as first,
        socket.create_connection(("127.0.0.1", port), timeout=5) as second,
    ):
        time.sleep(0.2)
        assert status_of_probe(port) == 200
        assert first.recv(1) == b"", "closed"
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert second.recv(15) == b"HTTP/1.1 200 OK"


def test_connections_that_served_a_request_are_kept(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "MAX_CONNECTIONS", 1)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/healthz").status_code == 200
        assert status_of_probe(port) == 503
        assert client.get("/healthz").status_code == 200


def test_slow_clients_are_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "ARRIVAL_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with pytest.raises(OSError):  # noqa: PT011 (a reset or a broken pipe)
            send_slowly(client, 100)
        assert status_of_probe(port) == 200


def test_broken_clients_leave_no_log_lines(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", b"\x00\xff\r\n\r\n") * 20:
            client = socket.create_connection(("127.0.0.1", port), timeout=5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(sent)
            client.close()
        assert status_of_probe(port) == 200
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == [
        record for record in caplog.records if record.name.startswith("httpx")
    ]


def test_a_port_in_use_is_named(port: int) -> None:
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
        bounded_server.listen("127.0.0.1", port)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_long_body_is_refused_before_it_is_read(chunked: bool) -> None:
    """The application is never called; memory stays at the limit."""
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1 << 20
            yield b" " * (1 << 20)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    with serving(app) as url:
        headers = {} if chunked else {"Content-Length": str(64 << 20)}
        tracemalloc.start()
        try:
            answer = httpx.post(url, content=pieces(), headers=headers)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "the limit is 65536 bytes" in answer.json()["detail"]
    assert peak < 16 << 20


def test_a_body_at_the_limit_is_passed_on() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/", echo, methods=["POST"])])
    with serving(app) as url:
        assert httpx.post(url, content=b" " * MAX_BODY_BYTES).text == str(MAX_BODY_BYTES)
        assert httpx.post(url, content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413
