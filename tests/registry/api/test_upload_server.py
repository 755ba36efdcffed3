"""Uploads through the registry's server: they pass the limit of other requests, and may take long
as long as they arrive.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.registry.api.training_requests.uploads import is_upload
from shared.http import bounded_server
from shared.identity import digest_of
from tests.registry.deploy.test_deployment import Stage
from tests.registry.pages.test_new_run import declare_lane
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import DatabaseFixture

CONTENT = b"x" * (4 * bounded_server.MAX_BODY_BYTES)
API = "/api/models/support/uploads?name=a.jsonl"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(DatabaseFixture(f"sqlite:///{tmp_path}/registry.db"), tmp_path)
    declare_lane(stage)
    return stage


@pytest.fixture
def http(stage: Stage) -> Iterator[httpx.Client]:
    with (
        serving(stage.app, is_upload) as url,
        httpx.Client(base_url=url, headers=OPERATOR, timeout=30) as client,
    ):
        yield client


def test_only_uploads_pass_the_limit_of_requests(stage: Stage, http: httpx.Client) -> None:
    stored = http.post(API, content=CONTENT).json()
    assert stage.store.get(stored["upload"]) == CONTENT
    page = http.post(
        "/models/support/train", data={"reason": "new"}, files={"file": ("a.jsonl", CONTENT)}
    )
    assert (page.status_code, "Start this training run" in page.text) == (200, True)
    for path in ("hold", "training-requests", "promote"):
        refused = http.post(f"/api/models/support/{path}", content=CONTENT)
        assert (refused.status_code, "the body is too long" in refused.text) == (413, True)
    assert len(stage.store.list_keys("uploads")) == 2


def test_slow_upload_is_stored(
    stage: Stage, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts come after the time that a request has to arrive in."""
    monkeypatch.setattr(bounded_server, "ARRIVAL_SECONDS", 0.5)
    monkeypatch.setattr(bounded_server, "BYTES_PER_SECOND", 1)

    def parts() -> Iterator[bytes]:
        yield CONTENT[:1000]
        time.sleep(1.5)
        yield CONTENT[1000:]

    stored = http.post(API, content=parts())
    assert stored.json()["digest"] == digest_of(CONTENT)
