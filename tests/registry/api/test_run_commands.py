"""`ratchet runs`, `pause`, `resume` and `promote` against a running registry."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ratchet import console
from ratchet.cli import commands
from ratchet.registry_client import RegistryRequestRefused
from services.registry.handlers import (
    HandlerContext,
    batch_ready,
    training_progressed,
    training_rolled_back,
)
from services.registry.rollout.holds import hold
from shared.identity import run_identity
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import (
    NOW,
    DatabaseFixture,
    announcement,
    progress,
    rejection,
)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    return Stage(registry_db, tmp_path)


@pytest.fixture
def address(stage: Stage) -> Iterator[str]:
    with serving(stage.app) as address:
        yield address


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(console, "out", Console(width=250))
    monkeypatch.setenv("RATCHET_TOKEN", OPERATOR["Authorization"].removeprefix("Bearer "))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(commands.app, [*arguments, "--registry", address])
        return result.exit_code, result.stdout

    return run


def test_runs_are_listed_and_shown_with_their_verdict(stage: Stage, run: Run) -> None:
    database = stage.registry_db
    context = HandlerContext(NOW, 0, None)
    database.run(
        lambda session: training_rolled_back(session, rejection("r1", database.champion), context)
    )
    database.run(lambda session: training_progressed(session, progress("r2", 4, 0.5), context))
    status, out = run("runs", "list", "support", "--json")
    assert status == 0
    listed = {row["run_id"]: (row["state"], row["step"]) for row in json.loads(out)["items"]}
    assert listed == {"r1": ("rejected", 0), "r2": ("training", 4)}
    _, table = run("runs", "list", "support")
    [line] = [line for line in table.splitlines() if "r1" in line]
    assert "rejected" in line
    assert "worse" in line
    status, shown = run("runs", "show", "r1")
    assert status == 0
    for text in ("look at the batch", "held-out examples", "rank", "- "):
        assert text in shown
    assert "4 of" in run("runs", "show", "r2")[1]
    assert json.loads(run("runs", "show", "r1", "--json")[1])["state"] == "rejected"


def test_training_is_paused_and_resumed(stage: Stage, run: Run) -> None:
    """A pause is announced once, and shown with the waiting batches next to the runs."""
    database, context = stage.registry_db, HandlerContext(NOW, 0, None)
    database.run(lambda session: training_progressed(session, progress("r1", 4, 0.5), context))
    database.run(lambda session: batch_ready(session, announcement(7), context))
    status, out = run("pause", "support", "--reason", "labels")
    assert status == 0
    assert "labels; 1 batch waits" in out
    assert "run r1 has started and is completed" in out
    run("pause", "support")
    assert "labels; 1 batch waits" in run("runs", "list", "support")[1]
    assert json.loads(run("resume", "support", "--json")[1])["pause"] is None
    assert run("resume", "support")[1] == "training of support is not paused\n"
    assert database.controls == [("TrainingPaused", 1), ("TrainingResumed", 2)]


def test_runs_are_cancelled_and_resumed(stage: Stage, run: Run) -> None:
    """A run in training, and a waiting one, which is listed at the top."""
    database, context = stage.registry_db, HandlerContext(NOW, 0, None)
    database.run(lambda session: training_progressed(session, progress("r1", 4, 0.5), context))
    database.run(lambda session: batch_ready(session, announcement(7), context))
    waiting = run_identity("batch 7")
    listed = run("runs", "list", "support")[1]
    assert listed.index(waiting) < listed.index("r1")
    status, out = run("runs", "cancel", "r1", "--reason", "wrong labels")
    assert status == 0
    assert out == "run r1 is cancelled by operator: wrong labels\n"
    assert "wrong labels" in run("runs", "cancel", "r1")[1], "the first reason stays"
    assert "cancelled by operator: wrong labels" in run("runs", "show", "r1")[1]
    assert "run r1 has started" not in run("pause", "support")[1]
    assert json.loads(run("runs", "resume", "r1", "--json")[1])["state"] == "waiting"
    assert run("runs", "resume", "r1")[1] == "run r1 is not cancelled, its state is waiting\n"
    assert json.loads(run("runs", "cancel", waiting, "--json")[1])["state"] == "cancelled"
    assert database.controls == [
        ("RunCancelled", 1),
        ("TrainingPaused", 1),
        ("RunResumed", 2),
        ("RunCancelled", 1),
    ]


def test_runs_that_cannot_be_cancelled_are_named(stage: Stage, address: str) -> None:
    stage.promote("r1")
    token = {"RATCHET_TOKEN": OPERATOR["Authorization"].removeprefix("Bearer ")}
    for run_id, message in {"r1": "has made", "r9": "unknown run 'r9'"}.items():
        arguments = ["runs", "cancel", run_id, "--registry", address]
        result = CliRunner().invoke(commands.app, arguments, env=token)
        assert isinstance(result.exception, RegistryRequestRefused)
        assert message in str(result.exception)


def test_versions_have_aliases_run_and_results(stage: Stage, run: Run) -> None:
    base = stage.registry_db.champion
    stage.promote("r1")
    status, out = run("versions", "support")
    assert status == 0, out
    promoted, first = (
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in out.splitlines()
        if f"│ {base[:2]}" in line or "r1" in line
    )
    assert promoted[1:6] == ["champion", base, "r1", "adaptive", "+0.500"]
    assert first[:2] == [base, "previous"]


def test_a_missing_token_names_the_state_folder(address: str, tmp_path: Path) -> None:
    arguments = ["rollback", "support", "--registry", address, "--state", str(tmp_path)]
    result = CliRunner().invoke(commands.app, arguments, env={"RATCHET_TOKEN": ""})
    assert isinstance(result.exception, RegistryRequestRefused)
    assert "--state names the state folder" in str(result.exception)


def test_a_challenger_is_promoted_by_hand(stage: Stage, run: Run) -> None:
    database = stage.registry_db
    database.run(lambda session: hold(session, "support", "operator", "wait", NOW))
    before = database.champion
    stage.promote("r1")
    assert database.champion == before, "the hold keeps the champion"
    status, out = run("promote", "support", "--reason", "looks good")
    assert status == 0, out
    assert database.champion != before
    assert out.startswith(database.champion)
