"""Refused requests in the audit log: by whom, and why."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.registry.api import authorization
from services.registry.api.audit.refusals import MAX_PER_MINUTE
from services.registry.api.authorization import COOKIE
from services.registry.store.audit_chain import chain_entries
from shared.auth.bearer_tokens import parse_tokens
from shared.clock import ManualClock
from shared.errors import Unavailable
from tests.registry.deploy.test_deployment import Stage
from tests.support.registry_events import NOW, DatabaseFixture

ADA, BOB = "the-token-of-ada-alone", "the-token-of-bob-alone"
TOKENS = parse_tokens(f"operate ada {ADA}\nread bob {BOB}\n", "tests")
ROLLBACK = "/api/models/support/rollback"
WHY = {"reason": "worse in use"}
Refusal = tuple[str, str | None, int, str]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Stage:
    stage = Stage(DatabaseFixture(f"sqlite:///{tmp_path}/registry.db"), tmp_path, clock)
    authorization.install(stage.app, lambda: TOKENS, require_tokens=False)
    stage.registry.deployer._targets = {}  # nothing to wait for
    return stage


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(stage.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refusals(stage: Stage) -> list[Refusal]:
    rows = stage.registry_db.run(lambda session: chain_entries(session, 0, 1000))
    return [
        (row.actor, row.operator, row.evidence["status"], row.reason)
        for row in rows
        if row.action == "refused"
    ]


@pytest.mark.parametrize(
    ("token", "headers", "expected"),
    [
        (BOB, {}, ("reader", "bob", 403, "forbidden: this token may only read")),
        (ADA, {}, ("operator", "ada", 409, "no version to move to: support has no previous")),
        (ADA, {"If-Match": '"aliases-0"'}, ("operator", "ada", 412, "precondition failed: ")),
    ],
)
async def test_refused_request_names_caller_and_reason(
    stage: Stage,
    http: httpx.AsyncClient,
    token: str,
    headers: dict[str, str],
    expected: Refusal,
) -> None:
    answer = await http.post(ROLLBACK, json=WHY, headers=bearer(token) | headers)
    assert answer.status_code == expected[2]
    ((*who, reason),) = refusals(stage)
    assert tuple(who) == expected[:3]
    assert reason.startswith(expected[3])


async def test_requests_from_browsers_are_recorded(stage: Stage, http: httpx.AsyncClient) -> None:
    """Another site's page sends the cookie; a form was confirmed for an earlier champion."""
    http.cookies.set(COOKIE, ADA)
    stage.promote("r1")
    form = {"to": str(stage.registry_db.aliases.previous), "champion": "v9", "reason": "why"}
    foreign = await http.post(
        "/models/support/rollback", data=form, headers={"Origin": "http://evil.example"}
    )
    late = await http.post(
        "/models/support/rollback", data=form, headers={"Origin": "http://127.0.0.1"}
    )
    assert (foreign.status_code, late.status_code) == (403, 409)
    (first, second) = refusals(stage)
    assert first[:3] == ("operator", "ada", 403)
    assert "own pages only" in first[3]
    assert second[:3] == ("operator", "ada", 409)
    assert "no longer v9" in second[3]


async def test_callers_without_a_name_write_nothing(stage: Stage, http: httpx.AsyncClient) -> None:
    """No valid token, an undeclared model, and requests that are not refused."""
    for headers in ({}, bearer("not-a-token-of-anybody")):
        assert (await http.post(ROLLBACK, json=WHY, headers=headers)).status_code == 401
    for token, path, status in (
        (BOB, "/api/models/undeclared/rollback", 403),
        (ADA, "/api/models/undeclared/rollback", 404),
        (ADA, "/api/models/support/hold", 200),
    ):
        answer = await http.post(path, json=WHY, headers=bearer(token))
        assert answer.status_code == status
    assert refusals(stage) == []


async def test_flood_of_refused_requests_is_limited(
    stage: Stage, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    for _ in range(MAX_PER_MINUTE + 5):
        assert (await http.post(ROLLBACK, json=WHY, headers=bearer(BOB))).status_code == 403
    assert len(refusals(stage)) == MAX_PER_MINUTE
    clock.advance(60)
    await http.post(ROLLBACK, json=WHY, headers=bearer(BOB))
    rows = stage.registry_db.run(lambda session: chain_entries(session, 0, 1000))
    assert len(refusals(stage)) == MAX_PER_MINUTE + 1
    assert rows[-1].evidence["omitted"] == 5


async def test_database_error_does_not_hide_the_refusal(
    stage: Stage, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> None:
        raise Unavailable("the database does not respond")

    monkeypatch.setattr(stage.registry.database, "run", run)
    answer = await http.post(ROLLBACK, json=WHY, headers=bearer(BOB))
    assert answer.status_code == 403
    assert answer.json()["title"] == "forbidden"
