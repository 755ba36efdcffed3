"""`ratchet audit` against a running registry, and against a database that someone has changed."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from ratchet import console
from ratchet.cli import commands
from services.registry.rollout.holds import hold, release
from services.registry.store.audit_queries import OPERATOR as OPERATOR_KEY
from shared.audit_chain import BrokenChain, ChainVerifier
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import NOW, DatabaseFixture

Run = Callable[..., tuple[int, Any, BaseException | None]]


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    """A registry with five entries: version 0, and a hold and a release, twice."""
    for _ in range(2):
        for change in (hold, release):
            work = partial(change, model="support", actor="operator", reason="a look", now=NOW)
            registry_db.database.run_sync(work, {OPERATOR_KEY: "ada"})
    return Stage(registry_db, tmp_path)


@pytest.fixture
def address(stage: Stage) -> Iterator[str]:
    with serving(stage.app) as address:
        yield address


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(console, "out", Console(width=250))
    monkeypatch.setenv("RATCHET_TOKEN", OPERATOR["Authorization"].removeprefix("Bearer "))

    def run(*arguments: str) -> tuple[int, Any, BaseException | None]:
        result = CliRunner().invoke(commands.app, ["audit", *arguments, "--registry", address])
        out = json.loads(result.stdout) if "--json" in arguments else result.stdout
        return result.exit_code, out, result.exception

    return run


def tamper(url: str, statement: str) -> None:
    """Change the log as its database's administrator can, who switches the triggers off first."""
    engine = create_engine(url)
    table = " ON audit" if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        for trigger in ("audit_stays", "audit_lasts"):
            connection.execute(text(f"DROP TRIGGER {trigger}{table}"))
        connection.execute(text(statement))
    engine.dispose()


def test_log_is_shown_with_who_asked(run: Run) -> None:
    status, out, _ = run("show", "support", "--json")
    assert status == 0
    shown = [(row["number"], row["action"], row["operator"]) for row in out["items"]]
    assert shown == [
        (1, "found", None),
        (2, "hold", "ada"),
        (3, "release", "ada"),
        (4, "hold", "ada"),
        (5, "release", "ada"),
    ]
    _, table, _ = run("show", "support")
    assert "a look" in table
    assert "ada" in table
    assert len(run("show", "support", "--since", "2026-07-01T12:00:00Z", "--json")[1]["items"]) == 5
    assert run("show", "support", "--since", "2026-07-01T12:00:01Z", "--json")[1]["items"] == []
    assert run("show", "another", "--json")[1]["items"] == []


def test_unbroken_chain_is_verified_up_to_its_head(run: Run, stage: Stage) -> None:
    status, out, _ = run("verify", "--json")
    newest = run("show", "support", "--json")[1]["items"][-1]
    assert (status, out["entries"], out["broken"]) == (0, 5, None)
    assert out["head"] == newest["hash"]
    assert "5 entries, unbroken; head " + out["head"] in run("verify")[1]
    stage.registry_db.run(partial(hold, model="support", actor="operator", reason="later", now=NOW))
    status, text_out, _ = run("verify", "--expect", out["head"])
    assert status == 0
    assert "entry 5 has the expected hash" in text_out


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit SET reason = 'harmless' WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET operator = 'bob' WHERE number = 2", "entry 2 was changed"),
        ("DELETE FROM audit WHERE number = 2", "entry 2 is missing"),
        ("UPDATE audit SET number = NULL, hash = NULL WHERE number = 4", "entry 4 is missing"),
    ],
)
def test_verification_names_the_first_broken_entry(
    run: Run, database_url: str, statement: str, found: str
) -> None:
    tamper(database_url, statement)
    status, _, error = run("verify")
    assert status == 1
    assert isinstance(error, BrokenChain)
    assert found in str(error)
    status, out, _ = run("verify", "--json")
    assert status == 1
    assert found in out["broken"]


def test_removed_end_is_found_by_an_expected_hash_only(run: Run, database_url: str) -> None:
    head = run("verify", "--json")[1]["head"]
    tamper(database_url, "DELETE FROM audit WHERE number >= 4")
    assert run("verify")[0] == 0
    status, _, error = run("verify", "--expect", head)
    assert status == 1
    assert "no entry has the expected hash" in str(error)


def test_every_page_of_the_api_continues_the_chain(address: str) -> None:
    verifier, path = ChainVerifier(), "/api/audit?limit=2"
    filtered = httpx.get(
        f"{address}/api/audit",
        params={"model": "support", "since": "2026-07-01T14:00:00+02:00", "limit": 2},
        headers=OPERATOR,
    )
    while path:
        answer = httpx.get(address + path, headers=OPERATOR)
        for entry in answer.json()["items"]:
            verifier.add(entry)
        path = answer.links["next"]["url"] if answer.json()["next"] else ""
    assert verifier.number == 5
    second = httpx.get(address + filtered.links["next"]["url"], headers=OPERATOR).json()
    assert [entry["number"] for entry in second["items"]] == [3, 4]
    mixed = httpx.get(
        f"{address}/api/audit", params={"cursor": filtered.json()["next"]}, headers=OPERATOR
    )
    assert mixed.status_code == 422
