"""`ratchet feedback` checks the model's name against a running registry before it sends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from ratchet.cli.commands import app
from ratchet.cli.feedback import build_event, check_declared
from ratchet.local_stack.ports import free_port
from shared.errors import BusUnavailable, CommandRefused
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import DatabaseFixture

FEEDBACK = {
    "event_id": "e1",
    "occurred_at": "2026-01-01T00:00:00Z",
    "input": "a",
    "output": "b",
    "feedback_type": "accepted",
}


@pytest.fixture
def registry(registry_db: DatabaseFixture, tmp_path: Path) -> Iterator[str]:
    with serving(Stage(registry_db, tmp_path).app) as address:
        yield address


def test_feedback_for_an_unknown_model_is_not_sent(registry: str, tmp_path: Path) -> None:
    """It fails before it connects to Kafka; feedback for a declared model gets that far."""
    where = ["--registry", registry, "--bootstrap-servers", f"127.0.0.1:{free_port()}"]
    where += ["--token", OPERATOR["Authorization"].removeprefix("Bearer ")]

    def send(model: str) -> BaseException | None:
        options = ["--model", model, "--input", "a", "--output", "b", "--event-id", "e1"]
        return CliRunner().invoke(app, ["feedback", "send", *options, *where]).exception

    refused = send("suport")
    assert isinstance(refused, CommandRefused)
    assert str(refused) == (
        f"event 'e1': the registry at {registry} knows no model 'suport'; declared: support; did "
        "you mean support; nothing was sent"
    )
    assert isinstance(send("support"), BusUnavailable)
    file = tmp_path / "feedback.jsonl"
    lines = (json.dumps({**FEEDBACK, "model": model}) + "\n" for model in ("support", "other"))
    file.write_text("".join(lines))
    imported = CliRunner().invoke(app, ["feedback", "import", str(file), *where])
    assert isinstance(imported.exception, CommandRefused)
    assert "knows no model 'other'; declared: support; nothing" in str(imported.exception)


def test_without_a_registry_feedback_is_sent_unchecked() -> None:
    """Nothing listens, or another program does."""
    event = build_event({**FEEDBACK, "model": "anything"})
    note = check_declared([event], f"http://127.0.0.1:{free_port()}", None)
    assert note is not None
    assert note.startswith("sent without a check of the model's name: the registry at")
    other = FastAPI()
    other.add_api_route("/api/models", lambda: ["not", "a", "registry"])
    with serving(other) as address:
        assert check_declared([event], address, None) is not None
