"""`ratchet demo`: a stack of its own, the rounds, and the report."""

import asyncio
import os
import shutil
from dataclasses import fields
from pathlib import Path

from ratchet import console
from ratchet.demo.accounting import Account, account
from ratchet.demo.application import Application
from ratchet.demo.report import Base, Report, Round
from ratchet.demo.rounds import Demo
from ratchet.demo.tickets import ticket
from ratchet.demo.view import View
from ratchet.demo.watching import Watcher, read_all
from ratchet.local_stack.log_view import LogView
from ratchet.local_stack.ports import LOOPBACK, free_port
from ratchet.local_stack.processes import Layout, Ports, url
from ratchet.local_stack.supervisor import Supervisor
from ratchet.local_stack.token_store import operator_token
from ratchet.local_stack.up import run_stack, run_until_interrupted
from ratchet.reconciliation import TOPICS_NEEDED, reconcile
from ratchet.registry_client import RegistryClient
from ratchet.serving.settings import ServingSettings
from shared.clock import Clock, SystemClock
from shared.config.settings import read
from shared.errors import Misconfigured
from shared.kafka.client import KafkaProducer
from shared.storage.object_store import FsspecStore, ObjectStore
from shared.storage.snapshots import read_manifest

PAGE, STYLE = "/models/support", "/static/pages.css"
ENOUGH = 0.9  # of the answers are exact: the task is learnt
MARKER = ".ratchet-demo"  # a folder without it is somebody else's and is not emptied
# what a broken producer might send: cut off in the middle
ODD_BYTES = b'{"model": "support", "input": "Hello"'


def run_demo(
    rounds: int,
    more: int,
    tickets: int,
    state: Path,
    models: Path,
    bases: Path,
    seed: int,
    *,
    poison: bool = True,
) -> Report | None:
    """Run the demo on a stack of its own, on free ports, and write `report.json` into `state`; None
    when it was interrupted.

    It has `rounds` good batches, and up to `more` further ones until `ENOUGH` answers are exact.
    """
    _empty(state)
    clock = SystemClock()
    ports = Ports(**{field.name: free_port() for field in fields(Ports)})
    log = LogView(state / "ratchet.log", clock, terminal=False)
    started_at = clock.monotonic()
    reports: list[Report] = []
    console.out.print(
        f"everything the processes say is in {state / 'ratchet.log'}", highlight=False
    )

    with View(console.out) as view:
        view.now("starting Kafka, serving and four services")

        async def drive(supervisor: Supervisor) -> None:
            reports.append(
                await _drive(
                    rounds, more, tickets, ports, seed, poison, view, clock, started_at, state
                )
            )

        # It asks while nothing trains, so that all cores may answer, unless somebody says how many.
        threads = read(ServingSettings).threads or os.cpu_count() or 1
        layout = Layout(state / "stack", bases, models, serving_threads=threads)
        finished = run_until_interrupted(run_stack(layout, ports, None, log.line, drive))
    if not finished:
        return None
    report = reports[0]
    report.write(state / "report.json")
    console.out.print(
        f"report  {state / 'report.json'}\npage    {state / 'page.html'}", highlight=False
    )
    console.out.print(
        f"look around with the stack still on: ratchet up --state {state / 'stack'}",
        highlight=False,
    )
    return report


async def _drive(
    rounds: int,
    more: int,
    tickets: int,
    ports: Ports,
    seed: int,
    poison: bool,
    view: View,
    clock: Clock,
    started_at: float,
    state: Path,
) -> Report:
    bootstrap_servers = f"{LOOPBACK}:{ports.kafka}"
    producer = KafkaProducer(bootstrap_servers)
    await producer.start()
    application = Application(url(ports.serving), producer, clock)
    watcher = Watcher(bootstrap_servers, clock, on_event=view.on_event)
    watching = asyncio.create_task(watcher.run())
    registry = RegistryClient(url(ports.registry), operator_token(state / "stack"))
    unseen = [ticket(f"unseen-{seed}", number) for number in range(tickets)]
    demo = Demo(application, watcher, registry, view, clock, unseen, seed)
    try:
        _, base = await demo.ask_unseen()
        view.base(base)
        learnt: list[Round] = []
        while len(learnt) < rounds or (len(learnt) < rounds + more and learnt[-1].exact < ENOUGH):
            learnt.append(await demo.good_round(len(learnt)))
            view.round(f"round {len(learnt)}", learnt[-1])
        await application.send_raw(ODD_BYTES)
        poisoned = await demo.poisoned_round(len(learnt)) if poison else None
        rollback = await demo.roll_back_and_return() if poison else None
        view.now("accounting for every event")
        events = await settled_account(
            bootstrap_servers, FsspecStore(str(state / "stack" / "objects")), application.sent
        )
        page = await asyncio.to_thread(_page_by_itself, registry)
        (state / "page.html").write_text(page, encoding="utf-8")
    finally:
        watching.cancel()
        registry.close()
        await application.close()
        await producer.stop()
    return Report(
        base=Base(exact=base),
        rounds=tuple(learnt),
        poisoned=poisoned,
        rollback=rollback,
        events=events,
        wall_seconds=clock.monotonic() - started_at,
    )


def _page_by_itself(registry: RegistryClient) -> str:
    """The model's page with its style in it, so that it can be looked at when nothing runs any
    more.
    """
    style = f"<style>{registry.text(STYLE)}</style>"
    return registry.text(PAGE).replace(f'<link rel="stylesheet" href="{STYLE}">', style)


async def settled_account(
    bootstrap_servers: str, store: ObjectStore, sent: int, attempts: int = 30
) -> Account:
    """The account once the streams have taken everything that was sent; the last one if they do not
    within `attempts` seconds.
    """
    for _ in range(attempts):
        found = account(
            reconcile(
                await read_all(bootstrap_servers, TOPICS_NEEDED),
                lambda artefact: read_manifest(store, artefact),
            )
        )
        if found.balanced and found.sent == sent:
            break
        await asyncio.sleep(1)
    return found


def _empty(state: Path) -> None:
    """Empty the demo's own folder. Raises Misconfigured when it is not the demo's."""
    if state.exists() and any(state.iterdir()) and not (state / MARKER).exists():
        raise Misconfigured(
            f"{state} is not empty and not a demo's folder: name another with --state"
        )
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / MARKER).touch()
