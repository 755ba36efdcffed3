"""Random rounds of faults on a real broker: `make chaos ROUNDS=n SEED=s`, or `python -m tests.chaos
--rounds n --seed s`.

The seed determines the load and the faults; their exact timing depends on the machine. The last
line of output is JSON; the exit status is 1 if an event was lost or used twice.
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
from tests.chaos.harness import ChaosHarness

SERVICES: tuple[Service, ...] = ("feedback", "dataset")


async def run_rounds(harness: ChaosHarness, rounds: int, seed: int) -> Reconciliation:
    """Inject one fault after the other under load, then wait until every record is processed and
    reconcile.
    """
    rng = random.Random(seed)
    for service in SERVICES:
        harness.launch(service)
    faults, weights = zip(*FAULTS, strict=True)
    for number in range(1, rounds + 1):
        (fault,) = rng.choices(faults, weights)
        service, count = rng.choice(SERVICES), rng.randint(30, 250)
        sending = asyncio.create_task(harness.send(count, seconds=rng.uniform(1, 6)))
        description = await fault(harness, service, rng)
        await sending
        harness.restart_exited_workers()
        print(f"round {number}/{rounds}: {count} events, {service}: {description}", flush=True)
    await harness.settle()
    for worker in harness.workers_of("dataset"):
        harness.stop(worker)
    harness.launch("dataset")
    await harness.send(100)
    await harness.settle()
    return await harness.reconciled()


def main() -> int:
    """Run the rounds and return the exit status."""
    parser = argparse.ArgumentParser(description="Random rounds of faults on a real broker.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-") as folder:
        harness = ChaosHarness(Path(folder), arguments.seed)
        try:
            harness.open()
            reconciliation = asyncio.run(run_rounds(harness, arguments.rounds, arguments.seed))
        finally:
            harness.close()
    for fault in (*reconciliation.lost, *reconciliation.duplicated):
        print(fault)
    print(
        json.dumps(
            {
                "rounds": arguments.rounds,
                "kills": harness.kills,
                "sent": len(harness.accepted),
                "lost": len(reconciliation.lost),
                "doubled": len(reconciliation.duplicated),
                "seed": arguments.seed,
            }
        )
    )
    return 1 if reconciliation.lost or reconciliation.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
