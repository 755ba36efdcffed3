"""Pagination: complete, ordered and stable lists; invalid cursors are refused."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.api.pagination import (
    UnknownCursor,
    page_request,
    paginate,
    parse_name,
    parse_number,
    parse_time_and_name,
)
from services.registry.versions.withdrawals import record_withdrawal
from tests.registry.deploy.test_deployment import Stage
from tests.registry.versions.test_withdrawals import withdrawn
from tests.support.credentials import OPERATOR
from tests.support.registry_events import NOW, DatabaseFixture

LISTS = (
    "/api/models",
    "/api/models/support/versions",
    "/api/models/support/history",
    "/api/models/support/withdrawals",
    "/api/models/support/runs",
    "/api/audit",
)


@given(
    st.sets(st.integers(0, 1000)), st.integers(1, 7), st.lists(st.integers(1001, 2000), max_size=5)
)
def test_pages_are_stable_while_rows_are_added(
    numbers: set[int], limit: int, added: list[int]
) -> None:
    rows = sorted(numbers, reverse=True)
    seen: list[int] = []
    cursor = None
    while True:
        page = page_request("numbers", limit, cursor, parse_number)
        result = paginate(
            page,
            [row for row in rows if page.after is None or row < page.after][: limit + 1],
            lambda row: [row],
        )
        seen += result.rows
        assert len(result.rows) <= limit
        if result.next is None:
            break
        cursor = result.next
        rows = sorted({*rows, *added}, reverse=True)
    assert seen == sorted(numbers, reverse=True)


@given(st.text(), st.sampled_from([parse_number, parse_name, parse_time_and_name]))
def test_invalid_cursor_is_refused(cursor: str, key: Any) -> None:
    with pytest.raises(UnknownCursor, match="leave it out"):
        page_request("versions of support", 5, cursor, key)


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_forged_cursor_key_is_refused(key: Any) -> None:
    """Only a key of the list's own type is accepted."""
    forged = paginate(
        page_request("x", 1, None, parse_name), [1, 2], lambda row: [key, "more", 1]
    ).next
    for read in (parse_number, parse_name, parse_time_and_name):
        with pytest.raises(UnknownCursor):
            page_request("x", 1, forged, read)


def test_cursor_of_another_list_is_refused() -> None:
    cursor = paginate(
        page_request("versions of support", 1, None, parse_number), [7, 6], lambda row: [row]
    ).next
    assert page_request("versions of support", 1, cursor, parse_number).after == 7
    with pytest.raises(UnknownCursor):
        page_request("versions of other", 1, cursor, parse_number)


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    """A registry with seven versions, 19 audit entries and five erased users: two at the same time,
    one with two withdrawal events.
    """
    stage = Stage(registry_db, tmp_path)
    for run in range(6):
        stage.promote(f"r{run}")
    for index, user in enumerate(("ann", "bob", "eve", "kim", "lou")):
        at = NOW + timedelta(seconds=(index + 1) // 2)
        event = withdrawn(
            f"first of {user}",
            ("batch of r1", [f"example of {user}"]),
            forgotten=user,
            user=user,
            occurred_at=at,
        )
        registry_db.run(lambda session, event=event: record_withdrawal(session, event, 0, NOW))  # type: ignore[misc]  # bound in the loop
    again = withdrawn(
        "second of ann", forgotten="ann", user="ann", shard=1, waiting=2, occurred_at=NOW
    )
    registry_db.run(lambda session: record_withdrawal(session, again, 1, NOW))
    return stage


def client(stage: Stage) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://registry", headers=OPERATOR
    )


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_is_paginated_with_links(stage: Stage, path: str) -> None:
    async with client(stage) as http:
        whole = (await http.get(path, params={"limit": 200})).json()
        assert whole["next"] is None
        for limit in (1, 2, 3):
            items: list[Any] = []
            url: str | None = f"{path}?limit={limit}"
            while url is not None:
                answer = await http.get(url)
                page = answer.json()
                assert len(page["items"]) == limit or page["next"] is None
                items += page["items"]
                url = answer.links["next"]["url"] if page["next"] else None
                assert ("link" in answer.headers) == (page["next"] is not None)
            assert items == whole["items"]
    lengths = {"models": 1, "versions": 7, "history": 19, "withdrawals": 5, "runs": 6, "audit": 19}
    assert len(whole["items"]) == lengths[path.rpartition("/")[2]]


async def test_withdrawals_are_listed_newest_first(
    stage: Stage,
) -> None:
    async with client(stage) as http:
        items = (await http.get("/api/models/support/withdrawals")).json()["items"]
    assert [item["forgotten"] for item in items] == ["lou", "kim", "eve", "bob", "ann"]
    assert [(item["answers"], item["waiting"], item["examples"]) for item in items][-1] == (2, 2, 1)


async def test_promotion_between_pages_shifts_nothing(stage: Stage) -> None:
    path = "/api/models/support/versions"
    async with client(stage) as http:
        before = [item["version"] for item in (await http.get(path)).json()["items"]]
        first = (await http.get(path, params={"limit": 3})).json()
        stage.promote("r7")
        second = (await http.get(path, params={"limit": 3, "cursor": first["next"]})).json()
        third = (await http.get(path, params={"limit": 3, "cursor": second["next"]})).json()
    assert [item["version"] for item in first["items"] + second["items"] + third["items"]] == before
    assert third["next"] is None


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "many"},
        {"cursor": "x"},
        {"cursor": "WyJtb2RlbHMiXQ=="},
    ],
)
async def test_invalid_page_parameters_are_refused_by_name(
    stage: Stage, path: str, query: dict[str, str]
) -> None:
    async with client(stage) as http:
        answer = await http.get(path, params=query)
    assert answer.status_code == 422
    assert f"query.{next(iter(query))}" in answer.json()["detail"]
