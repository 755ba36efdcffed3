"""Random rounds of faults on a real broker: `make chaos ROUNDS=n SEED=s`, or `python -m tests.chaos
--rounds n --seed s`.

The seed fixes what is sent and which faults are chosen; when exactly they strike is up to the
machine. Ends with one line of JSON, and with status 1 if anything was lost or used twice.
"""

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
from pathlib import Path

from ratchet.reconciliation import Reconciliation
from shared.failpoints import Service
from tests.chaos.faults import FAULTS
from tests.chaos.world import World

SERVICES: tuple[Service, ...] = ("feedback", "dataset")


async def play(world: World, rounds: int, seed: int) -> Reconciliation:
    """Let one fault after the other strike under load, then bring everything to rest and say what
    became of it.
    """
    chance = random.Random(seed)
    for service in SERVICES:
        world.launch(service)
    faults, weights = zip(*FAULTS, strict=True)
    for number in range(1, rounds + 1):
        (fault,) = chance.choices(faults, weights)
        service, count = chance.choice(SERVICES), chance.randint(30, 250)
        sending = asyncio.create_task(world.send(count, seconds=chance.uniform(1, 6)))
        said = await fault(world, service, chance)
        await sending
        world.restart_the_dead()
        print(f"round {number}/{rounds}: {count} events, {service}: {said}", flush=True)
    await world.settle()
    for worker in world.of("dataset"):
        world.stop(worker)
    world.launch("dataset")
    await world.send(100)
    await world.settle()
    return await world.reconciled()


def main() -> int:
    """The exit status."""
    arguments = argparse.ArgumentParser(description="Random rounds of faults on a real broker.")
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    chosen = arguments.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-") as folder:
        world = World(Path(folder), chosen.seed)
        try:
            world.open()
            found = asyncio.run(play(world, chosen.rounds, chosen.seed))
        finally:
            world.close()
    for fault in (*found.lost, *found.duplicated):
        print(fault)
    print(
        json.dumps(
            {
                "rounds": chosen.rounds,
                "kills": world.kills,
                "sent": len(world.accepted),
                "lost": len(found.lost),
                "doubled": len(found.duplicated),
                "seed": chosen.seed,
            }
        )
    )
    return 1 if found.lost or found.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
