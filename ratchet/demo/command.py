"""`ratchet demo`: a stack of its own, the rounds, and the report."""

import asyncio
import os
import shutil
from dataclasses import fields
from pathlib import Path

from ratchet import console
from ratchet.demo.accounting import EventCounts, count_events
from ratchet.demo.application import DemoApplication
from ratchet.demo.event_watcher import EventWatcher, read_records
from ratchet.demo.report import BaseResult, DemoReport, RoundResult
from ratchet.demo.rounds import DemoScenario
from ratchet.demo.tickets import make_ticket
from ratchet.demo.view import DemoView
from ratchet.local_stack.log_view import LogView
from ratchet.local_stack.ports import LOOPBACK, free_port
from ratchet.local_stack.processes import Ports, StackLayout, local_url
from ratchet.local_stack.stack import run_stack, run_until_interrupted
from ratchet.local_stack.supervisor import Supervisor
from ratchet.local_stack.token_store import operator_token
from ratchet.reconciliation import TOPICS_NEEDED, reconcile
from ratchet.registry_client import RegistryClient
from ratchet.serving.settings import ServingSettings
from shared.clock import Clock, SystemClock
from shared.config.settings import read_settings
from shared.errors import Misconfigured
from shared.kafka.client import KafkaProducer
from shared.storage.object_store import FsspecStore, ObjectStore
from shared.storage.snapshots import read_manifest

PAGE, STYLE = "/models/support", "/static/pages.css"
TARGET_EXACT_SHARE = 0.9  # of the answers are exact: the task is learnt
MARKER = ".ratchet-demo"  # a folder without it is somebody else's and is not emptied
# what a broken producer might send: cut off in the middle
MALFORMED_EVENT = b'{"model": "support", "input": "Hello"'


def run_demo(
    rounds: int,
    extra_rounds: int,
    tickets: int,
    state: Path,
    models: Path,
    bases: Path,
    seed: int,
    *,
    poison: bool = True,
) -> DemoReport | None:
    """Run the demo on a stack of its own, on free ports, and write `report.json` into `state`; None
    when it was interrupted.

    It has `rounds` good batches, and up to `more` further ones until `ENOUGH` answers are exact.
    """
    _empty(state)
    clock = SystemClock()
    ports = Ports(**{field.name: free_port() for field in fields(Ports)})
    log = LogView(state / "ratchet.log", clock, terminal=False)
    started_at = clock.monotonic()
    reports: list[DemoReport] = []
    console.out.print(
        f"everything the processes say is in {state / 'ratchet.log'}", highlight=False
    )

    with DemoView(console.out) as view:
        view.show_activity("starting Kafka, serving and four services")

        async def drive(supervisor: Supervisor) -> None:
            reports.append(
                await _drive(
                    rounds,
                    extra_rounds,
                    tickets,
                    ports,
                    seed,
                    poison,
                    view,
                    clock,
                    started_at,
                    state,
                )
            )

        # It asks while nothing trains, so that all cores may answer, unless somebody says how many.
        threads = read_settings(ServingSettings).threads or os.cpu_count() or 1
        layout = StackLayout(state / "stack", bases, models, serving_threads=threads)
        finished = run_until_interrupted(run_stack(layout, ports, None, log.write_line, drive))
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
    view: DemoView,
    clock: Clock,
    started_at: float,
    state: Path,
) -> DemoReport:
    bootstrap_servers = f"{LOOPBACK}:{ports.kafka}"
    producer = KafkaProducer(bootstrap_servers)
    await producer.start()
    application = DemoApplication(local_url(ports.serving), producer, clock)
    watcher = EventWatcher(bootstrap_servers, clock, on_event=view.on_event)
    watching = asyncio.create_task(watcher.run())
    registry = RegistryClient(local_url(ports.registry), operator_token(state / "stack"))
    unseen = [make_ticket(f"unseen-{seed}", number) for number in range(tickets)]
    demo = DemoScenario(application, watcher, registry, view, clock, unseen, seed)
    try:
        _, base = await demo.ask_unseen()
        view.add_base_row(base)
        learnt: list[RoundResult] = []
        while len(learnt) < rounds or (
            len(learnt) < rounds + more and learnt[-1].exact < TARGET_EXACT_SHARE
        ):
            learnt.append(await demo.good_round(len(learnt)))
            view.add_round_row(f"round {len(learnt)}", learnt[-1])
        await application.send_raw(MALFORMED_EVENT)
        poisoned = await demo.poisoned_round(len(learnt)) if poison else None
        rollback = await demo.roll_back_and_forward() if poison else None
        view.show_activity("accounting for every event")
        events = await settled_event_counts(
            bootstrap_servers, FsspecStore(str(state / "stack" / "objects")), application.sent
        )
        page = await asyncio.to_thread(_page_by_itself, registry)
        (state / "page.html").write_text(page, encoding="utf-8")
    finally:
        watching.cancel()
        registry.close()
        await application.close()
        await producer.stop()
    return DemoReport(
        base=BaseResult(exact=base),
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
    style = f"<style>{registry.get_text(STYLE)}</style>"
    return registry.get_text(PAGE).replace(f'<link rel="stylesheet" href="{STYLE}">', style)


async def settled_event_counts(
    bootstrap_servers: str, store: ObjectStore, sent: int, attempts: int = 30
) -> EventCounts:
    """The account once the streams have taken everything that was sent; the last one if they do not
    within `attempts` seconds.
    """
    for _ in range(attempts):
        found = count_events(
            reconcile(
                await read_records(bootstrap_servers, TOPICS_NEEDED),
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
