"""Runs `ratchet demo`: starts a separate stack, runs the rounds and writes the report."""

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

MODEL_PAGE, STYLESHEET = "/models/support", "/static/pages.css"
TARGET_EXACT_SHARE = 0.9  # of exact answers: the task is learned
MARKER = ".ratchet-demo"  # a folder without this file is not emptied
# like the truncated output of a broken producer
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
    """Run the demo on a separate stack, on free ports, and write `report.json` into `state`.

    It trains `rounds` good batches, and up to `extra_rounds` more until the share of exact answers
    reaches `TARGET_EXACT_SHARE`. Returns None if it was interrupted.
    """
    _empty(state)
    clock = SystemClock()
    ports = Ports(**{field.name: free_port() for field in fields(Ports)})
    log = LogView(state / "ratchet.log", clock, terminal=False)
    started_at = clock.monotonic()
    reports: list[DemoReport] = []
    console.out.print(f"log     {state / 'ratchet.log'}", highlight=False)

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

        # Serving and training do not overlap in the demo, so that serving may use all cores.
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
        f"explore the result: ratchet up --state {state / 'stack'}",
        highlight=False,
    )
    return report


async def _drive(
    rounds: int,
    extra_rounds: int,
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
    watch_task = asyncio.create_task(watcher.run())
    registry = RegistryClient(local_url(ports.registry), operator_token(state / "stack"))
    unseen = [make_ticket(f"unseen-{seed}", number) for number in range(tickets)]
    demo = DemoScenario(application, watcher, registry, view, clock, unseen, seed)
    try:
        _, base = await demo.ask_unseen()
        view.add_base_row(base)
        finished_rounds: list[RoundResult] = []
        while len(finished_rounds) < rounds or (
            len(finished_rounds) < rounds + extra_rounds
            and finished_rounds[-1].exact < TARGET_EXACT_SHARE
        ):
            finished_rounds.append(await demo.good_round(len(finished_rounds)))
            view.add_round_row(f"round {len(finished_rounds)}", finished_rounds[-1])
        await application.send_raw(MALFORMED_EVENT)
        poisoned = await demo.poisoned_round(len(finished_rounds)) if poison else None
        rollback = await demo.roll_back_and_forward() if poison else None
        view.show_activity("counting the outcome of every event")
        events = await settled_event_counts(
            bootstrap_servers, FsspecStore(str(state / "stack" / "objects")), application.sent
        )
        page = await asyncio.to_thread(_standalone_page, registry)
        (state / "page.html").write_text(page, encoding="utf-8")
    finally:
        watch_task.cancel()
        registry.close()
        await application.close()
        await producer.stop()
    return DemoReport(
        base=BaseResult(exact=base),
        rounds=tuple(finished_rounds),
        poisoned=poisoned,
        rollback=rollback,
        events=events,
        wall_seconds=clock.monotonic() - started_at,
    )


def _standalone_page(registry: RegistryClient) -> str:
    """Return the model's page with its style sheet inlined, to be viewed without the stack."""
    style = f"<style>{registry.get_text(STYLESHEET)}</style>"
    return registry.get_text(MODEL_PAGE).replace(
        f'<link rel="stylesheet" href="{STYLESHEET}">', style
    )


async def settled_event_counts(
    bootstrap_servers: str, store: ObjectStore, sent: int, attempts: int = 30
) -> EventCounts:
    """Return the counts once the streams have processed everything that was sent, or the last
    counts after `attempts` seconds.
    """
    for _ in range(attempts):
        counts = count_events(
            reconcile(
                await read_records(bootstrap_servers, TOPICS_NEEDED),
                lambda artefact: read_manifest(store, artefact),
            )
        )
        if counts.balanced and counts.sent == sent:
            break
        await asyncio.sleep(1)
    return counts


def _empty(state: Path) -> None:
    """Empty the demo's folder. Raises Misconfigured if another program's files are in it."""
    if state.exists() and any(state.iterdir()) and not (state / MARKER).exists():
        raise Misconfigured(
            f"{state} is not empty and not a demo folder; choose another with --state"
        )
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / MARKER).touch()
