"""What can befall a service in a round of chaos. Each fault takes a few seconds and leaves the
workers that are meant to be there.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from shared.failpoints import FAILPOINTS, Service
from tests.chaos.world import World

Fault = Callable[[World, Service, random.Random], Awaitable[str]]
"""Does it, under load, and says in a few words what it was."""


async def _die_at_a_failpoint(world: World, service: Service, chance: random.Random) -> str:
    point = chance.choice([row.name for row in FAILPOINTS if service in row.services])
    time = (
        chance.randint(1, 4)
        if point == "dataset.recovering" or "batch" in point
        else chance.randint(1, 30)
    )
    for worker in world.of(service):
        world.stop(worker)
    world.launch(service, f"{point}=kill@{time}")
    await asyncio.sleep(chance.uniform(4, 8))
    return f"kill -9 at {point}, time {time}"


async def _die(world: World, service: Service, chance: random.Random) -> str:
    await asyncio.sleep(chance.uniform(0, 4))
    for worker in world.of(service):
        world.kill(worker)
    world.launch(service)
    return "kill -9"


async def _stop(world: World, service: Service, chance: random.Random) -> str:
    await asyncio.sleep(chance.uniform(0, 4))
    for worker in world.of(service):
        world.stop(worker)
    world.launch(service)
    return "SIGTERM"


async def _sleep(world: World, service: Service, chance: random.Random) -> str:
    await asyncio.sleep(chance.uniform(0, 3))
    sleeper = world.of(service)[0]
    assert sleeper.process is not None
    sleeper.process.send_signal(signal.SIGSTOP)
    successor = world.launch(service)
    seconds = chance.uniform(7, 12)
    await asyncio.sleep(seconds)
    sleeper.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(chance.uniform(0, 3))
    gone = chance.choice([sleeper, successor])
    (world.kill if chance.random() < 0.5 else world.stop)(gone)
    return f"SIGSTOP for {seconds:.0f} s, a successor, and one of both gone"


async def _join_and_leave(world: World, service: Service, chance: random.Random) -> str:
    second = world.launch(service)
    await asyncio.sleep(chance.uniform(3, 7))
    (world.kill if chance.random() < 0.5 else world.stop)(second)
    return "a second worker joined and left"


async def _restart_the_broker(world: World, service: Service, chance: random.Random) -> str:
    await asyncio.sleep(chance.uniform(0, 3))
    await asyncio.to_thread(world.broker.stop)
    await asyncio.sleep(chance.uniform(0, 3))
    await asyncio.to_thread(world.broker.start)
    return "the broker restarted"


FAULTS: tuple[tuple[Fault, int], ...] = (
    (_die_at_a_failpoint, 6),
    (_die, 3),
    (_stop, 2),
    (_sleep, 2),
    (_join_and_leave, 2),
    (_restart_the_broker, 1),
)
"""With how often each is chosen."""
