"""Conditional and idempotent champion moves over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select, update

from services.registry.api.idempotency import KEY_LIFETIME, RESPONSE_DEADLINE
from services.registry.handlers import checkpoint_saved
from services.registry.store.tables import AuditRow, IdempotencyKeyRow
from tests.registry.deploy.test_deployment import DeployerRunning, Stage
from tests.support.credentials import OPERATOR
from tests.support.registry_events import CONTEXT, DatabaseFixture, checkpoint

MODEL, PROMOTE, ROLLBACK = (
    "/api/models/support",
    "/api/models/support/promote",
    "/api/models/support/rollback",
)
WHY = {"reason": "worse in use"}


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    stage = Stage(registry_db, tmp_path)
    stage.promote("r1")
    return stage


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of a registry with a running deployer."""
    transport = httpx.ASGITransport(stage.app)
    async with (
        DeployerRunning(stage),
        httpx.AsyncClient(
            transport=transport, base_url="http://registry", headers=OPERATOR
        ) as client,
    ):
        yield client


def moves(stage: Stage) -> list[str]:
    rows = stage.registry_db.run(
        lambda session: session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    )
    return [row.action for row in rows if row.action == "roll_back"]


def key(value: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": f'"{value or uuid4()}"'}


async def tag(client: httpx.AsyncClient, path: str = MODEL) -> str:
    return str((await client.get(path)).headers["etag"])


async def test_etag_identifies_aliases(stage: Stage, http: httpx.AsyncClient) -> None:
    first = await tag(http)
    assert (
        first
        == await tag(http)
        == await tag(http, f"{MODEL}/aliases/champion")
        == await tag(http, f"{MODEL}/aliases/previous")
    )
    stage.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", "v9_20200101_000000"), CONTEXT)
    )
    challenged = await tag(http)
    for _ in range(2):
        await http.post(ROLLBACK, json=WHY)
    after = await tag(http)
    assert len({first, challenged, after}) == 3, "a move there and back changes the tag"


async def test_outdated_if_match_moves_nothing(stage: Stage, http: httpx.AsyncClient) -> None:
    seen = await tag(http)
    newest = stage.promote("r2")
    answer = await http.post(ROLLBACK, json=WHY, headers={"If-Match": seen})
    assert answer.status_code == 412
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["current"] == {
        "champion": newest,
        "previous": stage.registry_db.aliases.previous,
        "challenger": None,
        "etag": answer.headers["etag"],
    }
    assert newest in answer.json()["detail"]
    assert (moves(stage), stage.registry_db.champion) == ([], newest)
    assert (
        await http.post(
            ROLLBACK, json=WHY, headers={"If-Match": f'"another", {answer.headers["etag"]}'}
        )
    ).status_code == 200
    assert len(moves(stage)) == 1


@pytest.mark.parametrize(
    ("if_match", "status"),
    [("*", 200), ("W/{tag}", 412), ("{tag}", 200), ("unquoted", 422), ("", 422)],
)
async def test_forms_of_if_match(http: httpx.AsyncClient, if_match: str, status: int) -> None:
    """A weak tag never matches."""
    answer = await http.post(
        ROLLBACK, json=WHY, headers={"If-Match": if_match.replace("{tag}", await tag(http))}
    )
    assert answer.status_code == status


async def test_one_of_concurrent_conditional_moves_wins(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    seen = await tag(http)
    answers = await asyncio.gather(
        *(http.post(ROLLBACK, json=WHY, headers={"If-Match": seen}) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    assert len(moves(stage)) == 1


async def test_repeated_request_moves_once(stage: Stage, http: httpx.AsyncClient) -> None:
    """Without the key, the second request would move forward again. `If-Match` is compared only
    with the first request.
    """
    headers = key() | {"If-Match": await tag(http)}
    first, second = [await http.post(ROLLBACK, json=WHY, headers=headers) for _ in range(2)]
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert len(moves(stage)) == 1
    assert stage.registry_db.champion == first.json()["to"]
    assert stage.registry_db.enqueued.count("ratchet.VersionRolledBack.v1") == 1


@pytest.mark.parametrize(
    ("path", "body", "more"),
    [(ROLLBACK, {"reason": "another"}, {}), (PROMOTE, WHY, {}), (ROLLBACK, WHY, {"If-Match": "*"})],
)
async def test_key_reused_for_another_request_is_refused(
    stage: Stage, http: httpx.AsyncClient, path: str, body: dict[str, str], more: dict[str, str]
) -> None:
    headers = key("mine")
    await http.post(ROLLBACK, json=WHY, headers=headers)
    answer = await http.post(path, json=body, headers=headers | more)
    assert answer.status_code == 422
    assert "new key" in answer.json()["detail"]
    assert len(moves(stage)) == 1


async def test_key_quotes_are_optional(stage: Stage, http: httpx.AsyncClient) -> None:
    for value in ("abc", '"abc"'):
        assert (
            await http.post(ROLLBACK, json=WHY, headers={"Idempotency-Key": value})
        ).status_code == 200
    assert len(moves(stage)) == 1
    for value in ('"abc', "a b", "", '"' + "x" * 256 + '"'):
        assert (
            await http.post(ROLLBACK, json=WHY, headers={"Idempotency-Key": value})
        ).status_code == 422, value


async def test_refused_request_stores_no_key(stage: Stage, http: httpx.AsyncClient) -> None:
    headers = key()
    assert (await http.post(PROMOTE, json=WHY, headers=headers)).status_code == 409
    stage.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", "v9_20200101_000000"), CONTEXT)
    )
    assert (await http.post(PROMOTE, json=WHY, headers=headers)).status_code == 200


async def test_concurrent_requests_with_one_key_move_once(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    headers = key()
    answers = await asyncio.gather(
        *(http.post(ROLLBACK, json=WHY, headers=headers) for _ in range(6))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.text for answer in answers if answer.status_code == 200}) == 1
    assert all(
        answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 409
    )
    assert len(moves(stage)) == 1


def _alter(stage: Stage, **values: Any) -> None:
    stage.registry_db.run(
        lambda session: session.execute(update(IdempotencyKeyRow).values(**values))
    )


async def test_key_of_request_in_progress_is_refused(stage: Stage, http: httpx.AsyncClient) -> None:
    headers = key()
    first = (await http.post(ROLLBACK, json=WHY, headers=headers)).json()
    _alter(stage, answer=None)
    answer = await http.post(ROLLBACK, json=WHY, headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    # The process of the first request has died: another one determines the result of the move.
    _alter(stage, at=stage.registry.clock.now() - RESPONSE_DEADLINE)
    answer = await http.post(ROLLBACK, json=WHY, headers=headers)
    assert answer.json() | {"seconds": 0} == first | {"seconds": 0}
    assert (await http.post(ROLLBACK, json=WHY, headers=headers)).json() == answer.json()
    assert len(moves(stage)) == 1


async def test_keys_expire_after_a_day(stage: Stage, http: httpx.AsyncClient) -> None:
    headers = key()
    await http.post(ROLLBACK, json=WHY, headers=headers)
    _alter(stage, at=stage.registry.clock.now() - KEY_LIFETIME - timedelta(seconds=1))
    await http.post(ROLLBACK, json=WHY, headers=key())
    assert (
        len(stage.registry_db.run(lambda session: session.scalars(select(IdempotencyKeyRow)).all()))
        == 1
    )
    assert (await http.post(ROLLBACK, json=WHY, headers=headers)).status_code == 200
    assert len(moves(stage)) == 3
