"""The token file of a local stack, and its use by the command line."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.cli.commands import app
from ratchet.local_stack.processes import Ports, StackLayout, process_specs
from ratchet.local_stack.token_store import ensure_tokens_file, operator_token, token_for
from ratchet.registry_client import RegistryClient
from shared.auth.bearer_tokens import parse_tokens
from shared.errors import SettingsError, Unavailable
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATE, READ
from tests.support.registry_events import DatabaseFixture


def test_the_token_file_is_created_once_for_its_owner_only(tmp_path: Path) -> None:
    path = ensure_tokens_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    token = operator_token(tmp_path)
    assert token is not None
    assert parse_tokens(path.read_text(), "the file").role_of(token) == "operate"
    assert ensure_tokens_file(tmp_path) == path
    assert operator_token(tmp_path) == token
    assert sorted(tmp_path.iterdir()) == [path]


def test_only_the_registry_gets_the_tokens_file(tmp_path: Path) -> None:
    specs = {
        spec.name: spec
        for spec in process_specs(
            StackLayout(tmp_path, tmp_path, tmp_path), Ports(), "127.0.0.1:9092"
        )
    }
    assert specs["registry"].environment["RATCHET_TOKENS_FILE"] == str(ensure_tokens_file(tmp_path))
    assert ["RATCHET_TOKENS_FILE" in spec.environment for spec in specs.values()].count(True) == 1


def test_the_local_token_is_sent_to_local_registries_only(tmp_path: Path) -> None:
    ensure_tokens_file(tmp_path)
    own = operator_token(tmp_path)
    assert (
        token_for("http://127.0.0.1:8080", tmp_path, None)
        == token_for("http://localhost:8080", tmp_path, None)
        == own
    )
    assert token_for("http://registry.example", tmp_path, None) is None
    assert (
        token_for("http://registry.example", tmp_path, "given")
        == token_for("http://127.0.0.1:8080", tmp_path, "given")
        == "given"
    )


def test_the_first_operator_token_is_used(tmp_path: Path) -> None:
    assert operator_token(tmp_path) is None
    (tmp_path / "tokens").write_text(
        f"read {READ}\noperate {OPERATE}\noperate an-older-token-of-ours\n"
    )
    assert operator_token(tmp_path) == OPERATE
    (tmp_path / "tokens").write_text("operate")
    with pytest.raises(SettingsError, match="line 1"):
        operator_token(tmp_path)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Sixty versions, the newest served, without deploy targets."""
    registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    stage = Stage(registry_db, tmp_path)
    stage.registry.deployer._targets = {}
    for run in range(60):
        stage.promote(f"r{run}")
    yield stage
    registry_db.close()


def ratchet(*words: str, **environment: str) -> tuple[int, Any]:
    """Run a command; return its exit status and its JSON output or exception."""
    result = CliRunner().invoke(app, [*words, "--json"], env=environment)
    return result.exit_code, json.loads(
        result.stdout
    ) if result.exit_code == 0 else result.exception


def test_rollback_uses_the_local_or_the_explicit_token(stage: Stage, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with serving(stage.app) as address:
        command = ("rollback", "support", "--registry", address, "--state", str(state))
        status, error = ratchet(*command)
        assert status != 0
        assert "needs an operate token" in str(error)
        (state / "tokens").write_text(f"operate {OPERATE}\n")
        champion = stage.registry_db.champion
        status, moved = ratchet(*command)
        assert (status, moved["from"], moved["to"]) == (0, champion, stage.registry_db.champion)
        status, error = ratchet(*command, RATCHET_TOKEN=READ)
        assert "may only read" in str(error)
        status, moved = ratchet(*command, RATCHET_TOKEN=OPERATE)
        assert (status, moved["to"]) == (0, champion)


def test_lists_contain_all_pages(stage: Stage, tmp_path: Path) -> None:
    with serving(stage.app) as address:
        options = ("support", "--registry", address, "--state", str(tmp_path))
        versions, history = (
            ratchet("versions", *options)[1]["items"],
            ratchet("history", *options)[1]["items"],
        )
    assert [version["number"] for version in versions] == list(range(60, -1, -1))
    assert len(history) == 121


def test_a_lost_response_is_retried_with_the_same_key() -> None:
    """The server closes the connection after the first request and answers the second."""
    heads: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        for answer in (
            b"",
            b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{"to": "v"}',
        ):
            connection, _ = listening.accept()
            with connection:
                heads.append(connection.recv(65_536))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        with RegistryClient(f"http://127.0.0.1:{listening.getsockname()[1]}", OPERATE) as client:
            assert client.post("/api/models/support/rollback", {"reason": "x"}) == {"to": "v"}
        thread.join(10)
    keys = [
        line
        for head in heads
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key:")
    ]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    with (
        RegistryClient("http://127.0.0.1:1") as client,
        pytest.raises(Unavailable, match="is `ratchet up` running"),
    ):
        client.get("/api/models")
