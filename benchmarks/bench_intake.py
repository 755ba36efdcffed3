"""Throughput of the feedback service's HTTP intake, with a delivery that accepts at once.

A child process runs the intake as the service does; this process posts over kept-alive connections
until the time is up. Rounds alternate between requests of one event and of many.
"""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import structlog
import uvicorn

from benchmarks.results import Result, report
from services.feedback.intake.app import FEEDBACK_PATH, Intake, RequestLimits
from services.feedback.intake.parsing import ParsedEvent
from services.feedback.scoring import Policies
from shared.clock import SystemClock
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.http.bounded_server import listen, server_config
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.service.runtime import Runtime

CONNECTIONS = 16
ROUNDS = 3
SECONDS = 3.0
EVENTS_PER_REQUEST = (1, 20)

MODEL = {"model": "support", "base": {"training": "base", "serving": "base.gguf"}}
EVENT: dict[str, Any] = {
    "occurred_at": "2026-01-01T00:00:00Z",
    "model": "support",
    "user_id": "ada",
    "input": "a question " * 20,
    "output": "an answer " * 20,
    "feedback_type": "thumbs_up",
}


class MemoryDelivery:
    """Accepts every event at once."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        yield

    async def deliver(self, events: Sequence[ParsedEvent]) -> None:
        pass


def serve(port: Connection) -> None:
    """Run the intake until the process is killed; send its port first."""
    clock, metrics = SystemClock(), Metrics("feedback")
    log = structlog.stdlib.get_logger("benchmark")
    intake = Intake(
        RequestLimits(max_events=500, max_body_bytes=4 << 20, max_in_flight_bytes=32 << 20),
        Policies(Models({"support": ModelFile.model_validate(MODEL)}, Path())),
        MemoryDelivery(),
        None,
        Runtime("feedback", clock, log, metrics, Health(clock)),
    )
    sockets = listen("127.0.0.1", 0)
    port.send(sockets[0].getsockname()[1])
    uvicorn.Server(server_config(intake.app, max_body_bytes=None, date_header=False)).run(sockets)


def request(events: int) -> bytes:
    """Build a whole HTTP request with a number of events."""
    body = json.dumps([EVENT | {"event_id": f"e{number}"} for number in range(events)]).encode()
    head = (
        f"POST {FEEDBACK_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def post_repeatedly(port: int, data: bytes, until: float) -> int:
    """Post over one connection until a time; return the number of requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < until:
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 202"):
            raise RuntimeError(f"the intake answered {head!r}")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        count += 1
    writer.close()
    return count


async def measure(port: int, events: int, seconds: float) -> tuple[int, float]:
    """Return how many requests the intake answered, and in how many seconds."""
    started = time.perf_counter()
    data = request(events)
    counts = await asyncio.gather(
        *(post_repeatedly(port, data, started + seconds) for _ in range(CONNECTIONS))
    )
    return sum(counts), time.perf_counter() - started


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    try:
        port = receiver.recv()
        assert server.pid is not None
        rates: dict[int, list[float]] = {events: [] for events in EVENTS_PER_REQUEST}
        costs: dict[int, list[float]] = {events: [] for events in EVENTS_PER_REQUEST}
        asyncio.run(measure(port, 1, 0.5))  # warm up
        for _ in range(ROUNDS):
            for events in EVENTS_PER_REQUEST:
                before = cpu_seconds(server.pid)
                requests, seconds = asyncio.run(measure(port, events, SECONDS))
                rates[events].append(requests / seconds)
                costs[events].append((cpu_seconds(server.pid) - before) / requests * 1e6)
    finally:
        server.kill()
        server.join()
    report(
        "intake",
        [
            result
            for events in EVENTS_PER_REQUEST
            for result in (
                Result(f"requests_of_{events}_events", median(rates[events]), "requests/s"),
                Result(f"cpu_per_request_of_{events}_events", median(costs[events]), "us"),
            )
        ],
    )


if __name__ == "__main__":
    main()
