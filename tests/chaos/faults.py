"""Faults of a chaos round. Each takes a few seconds and leaves the expected workers running."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from shared.failpoints import FAILPOINTS, Service
from tests.chaos.harness import ChaosHarness

Fault = Callable[[ChaosHarness, Service, random.Random], Awaitable[str]]
"""Injects a fault under load and returns a short description."""


async def _kill_at_a_failpoint(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    point = rng.choice([row.name for row in FAILPOINTS if service in row.services])
    time = (
        rng.randint(1, 4)
        if point == "dataset.recovering" or "batch" in point
        else rng.randint(1, 30)
    )
    for worker in harness.workers_of(service):
        harness.stop(worker)
    harness.launch(service, f"{point}=kill@{time}")
    await asyncio.sleep(rng.uniform(4, 8))
    return f"kill -9 at {point}, time {time}"


async def _kill(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    await asyncio.sleep(rng.uniform(0, 4))
    for worker in harness.workers_of(service):
        harness.kill(worker)
    harness.launch(service)
    return "kill -9"


async def _stop(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    await asyncio.sleep(rng.uniform(0, 4))
    for worker in harness.workers_of(service):
        harness.stop(worker)
    harness.launch(service)
    return "SIGTERM"


async def _suspend(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    await asyncio.sleep(rng.uniform(0, 3))
    suspended = harness.workers_of(service)[0]
    assert suspended.process is not None
    suspended.process.send_signal(signal.SIGSTOP)
    successor = harness.launch(service)
    seconds = rng.uniform(7, 12)
    await asyncio.sleep(seconds)
    suspended.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(rng.uniform(0, 3))
    worker = rng.choice([suspended, successor])
    (harness.kill if rng.random() < 0.5 else harness.stop)(worker)
    return f"SIGSTOP for {seconds:.0f} s, a successor, and one of the two stopped"


async def _join_and_leave(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    second = harness.launch(service)
    await asyncio.sleep(rng.uniform(3, 7))
    (harness.kill if rng.random() < 0.5 else harness.stop)(second)
    return "a second worker joined and left"


async def _restart_the_broker(harness: ChaosHarness, service: Service, rng: random.Random) -> str:
    await asyncio.sleep(rng.uniform(0, 3))
    await asyncio.to_thread(harness.broker.stop)
    await asyncio.sleep(rng.uniform(0, 3))
    await asyncio.to_thread(harness.broker.start)
    return "the broker restarted"


FAULTS: tuple[tuple[Fault, int], ...] = (
    (_kill_at_a_failpoint, 6),
    (_kill, 3),
    (_stop, 2),
    (_suspend, 2),
    (_join_and_leave, 2),
    (_restart_the_broker, 1),
)
"""Faults with their weights."""
