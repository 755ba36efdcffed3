"""`ratchet status` against a running registry and services of which one is stalled."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ratchet import console
from ratchet.cli.commands import app
from ratchet.local_stack.ports import LOOPBACK, free_port
from services.registry.handlers import HandlerContext, training_progressed, waiting_reported
from services.registry.rollout.holds import hold
from services.registry.store import audit_queries
from services.registry.training_controls import pause_training
from shared.clock import SystemClock
from shared.events import HeldBack, WaitingStatus
from shared.http.health_server import serve_health
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import NOW, DatabaseFixture, progress, waiting_report

SERVICES = ("serving", "feedback", "dataset", "builder", "trainer")


class Services:
    """Health servers of the services; the registry is a real one."""

    def __init__(self, stopping: ExitStack) -> None:
        self.ports = {name: free_port() for name in SERVICES}
        self.health = {name: Health(SystemClock(), stalled_after=5.0) for name in SERVICES}
        self.metrics = {name: Metrics(name) for name in SERVICES}
        for name, port in self.ports.items():
            registry = self.metrics[name].registry
            stopping.callback(serve_health(self.health[name], registry, LOOPBACK, port))
            self.health[name].mark_ready()


@pytest.fixture
def services() -> Iterator[Services]:
    with ExitStack() as stopping:
        yield Services(stopping)


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    stage = Stage(registry_db, tmp_path)
    stage.health.mark_ready()
    return stage


def status(stage: Stage, services: Services, *options: str) -> tuple[int, str]:
    ports = [f"--{name}-port={port}" for name, port in services.ports.items()]
    token = OPERATOR["Authorization"].removeprefix("Bearer ")
    with serving(stage.app) as address, pytest.MonkeyPatch.context() as patched:
        patched.setattr(console, "out", Console(width=250))
        where = ["--registry", address, "--token", token, *ports]
        result = CliRunner().invoke(app, ["status", *options, *where])
    return result.exit_code, result.stdout


def test_a_healthy_stack_needs_nobody(stage: Stage, services: Services) -> None:
    dataset = services.metrics["dataset"]
    dataset.set("ratchet_consumer_lag_records", 3, group="g", topic="feedback.scored")
    limited = HeldBack(limit="examples_per_user", examples=9, sources=3)
    waiting = WaitingStatus(needed=50, usable=15, held_back=(limited,), smallest_batch=50)
    stage.registry_db.run(
        lambda session: waiting_reported(session, waiting_report(waiting), HandlerContext(NOW))
    )
    stage.registry_db.run(
        lambda session: training_progressed(
            session, progress("r2", 4, 0.5), HandlerContext(NOW, 0, None)
        )
    )
    code, out = status(stage, services)
    assert code == 0, out
    for text in (
        stage.registry_db.champion,
        "24 of 50, 9 held back",
        "training, step 4 of",
        "support: 50 needed: 15 usable, 9 held back by examples_per_user (3 users); closes with 35 "
        "more (reported 2026-07-01T12:00:00Z)",
    ):
        assert text in out
    assert "nothing needs a person" in out
    code, out = status(stage, services, "--json")
    shown = json.loads(out)
    assert [(row["name"], row["state"], row["lag"]) for row in shown["services"]] == [
        ("serving", "ready", None),
        ("feedback", "ready", None),
        ("dataset", "ready", 3),
        ("builder", "ready", None),
        ("trainer", "ready", None),
        ("registry", "ready", None),
    ]
    assert shown["models"][0]["waiting"] == {"pending": 24, "held_back": 9, "needed": 50}
    assert shown["models"][0]["waiting_examples"]["usable"] == 15
    assert (code, shown["needs_a_person"]) == (0, [])


def test_what_needs_a_person_is_listed(stage: Stage, services: Services) -> None:
    services.health["trainer"].record_progress(busy=True, ago=60.0)
    services.health["dataset"].mark_ready(False)
    services.metrics["feedback"].count("ratchet_dead_letters_total", topic="feedback.received")
    services.ports["serving"] = free_port()
    stage.registry_db.run(lambda session: hold(session, "support", "ada", "wait for Bob", NOW))
    stage.promote("r1")
    stage.registry_db.database.run_sync(
        lambda session: pause_training(session, "support", "labels are checked", NOW),
        {audit_queries.OPERATOR: "ada"},
    )
    code, out = status(stage, services, "--json")
    shown = json.loads(out)
    assert code == 1
    assert [row["state"] for row in shown["services"]] == [
        "no answer",
        "ready",
        "not ready",
        "ready",
        "stalled",
        "ready",
    ]
    challenger = shown["models"][0]["challenger"]
    address = f"http://127.0.0.1:{services.ports['serving']}"
    assert shown["needs_a_person"][:6] == [
        f"serving does not answer at {address}; is `ratchet up` running?",
        "feedback sent 1 records to the dead letters since its start; see `ratchet dlq list`",
        "trainer makes no progress; read its log, and restart it if it stays so",
        "support is on hold (wait for Bob); end it with `ratchet release support`",
        "training of support is paused by ada since 2026-07-01T12:00:00Z: labels are checked; no "
        "batches wait; resume it with `ratchet resume support`",
        f"support: {challenger} waits for you; serve it with `ratchet promote support`",
    ]
    assert "needs a person:" in status(stage, services)[1]


def test_without_a_registry_the_services_are_shown(services: Services) -> None:
    ports = [f"--{name}-port={port}" for name, port in services.ports.items()]
    where = ["--registry", f"http://127.0.0.1:{free_port()}", *ports]
    result = CliRunner().invoke(app, ["status", "--json", *where])
    shown = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [row["state"] for row in shown["services"]] == ["ready"] * 5 + ["no answer"]
    assert shown["needs_a_person"][0].startswith("the registry at")
