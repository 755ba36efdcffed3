"""Training requests over HTTP: checked before anything is recorded, recorded once, then followed
by the builder's answers; and uploads within their limits.
"""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from services.registry.api.training_requests.uploads import MAX_AT_ONCE
from services.registry.store.tables import AuditRow, OutboxRow
from shared.auth.bearer_tokens import parse_tokens
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.events import BatchCounts, TrainingRequestAnswered, TrainingRequested
from shared.identity import digest_of
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import TRAINING_ANSWERS, TRAINING_PROGRESS, TRAINING_REQUESTS
from shared.storage.snapshots import manifests_folder
from shared.storage.uploads import upload_key
from tests.registry.deploy.test_deployment import MAX_UPLOAD_BYTES, Stage
from tests.support.credentials import OPERATE, OPERATOR, READER
from tests.support.registry_events import MODEL, NOW, DatabaseFixture, progress

UPLOADS, REQUESTS = "/api/models/support/uploads", "/api/models/support/training-requests"
DATASET = "ec29fd91" * 4


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    """A registry whose model has the lane `master` and an imported dataset."""
    stage = Stage(registry_db, tmp_path)
    add_dataset(stage)
    return stage


def add_dataset(stage: Stage) -> None:
    lanes: dict[str, Any] = {"lanes": {"adaptive": {}, "master": {}}}
    model_file = ModelFile.model_validate(MODEL.model_dump() | lanes)
    stage.registry.models = Models({"support": model_file}, stage.registry.models.folder)
    stage.store.put(f"{manifests_folder('support')}/{DATASET}/{'b' * 64}.json", b"{}")


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://registry", headers=OPERATOR
    ) as client:
        yield client


def body(**changed: Any) -> dict[str, Any]:
    return {"dataset": DATASET[:8], "reason": "new product line", **changed}


def requested(stage: Stage) -> list[TrainingRequested]:
    """The requests in the outbox."""
    rows = stage.registry_db.run(
        lambda session: session.scalars(
            select(OutboxRow).where(OutboxRow.topic == TRAINING_REQUESTS)
        ).all()
    )
    return [
        decode(
            row.value,
            [(name, value.encode()) for name, value in row.headers.items()],
            TrainingRequested,
        ).event
        for row in rows
    ]


def audited(stage: Stage) -> list[AuditRow]:
    return list(
        stage.registry_db.run(
            lambda session: session.scalars(
                select(AuditRow).where(AuditRow.action == "request_training")
            ).all()
        )
    )


async def upload(http: httpx.AsyncClient, content: bytes, **query: str) -> httpx.Response:
    return await http.post(UPLOADS, params={"name": "a.jsonl", **query}, content=content)


async def answer(stage: Stage, request_id: str, state: Any, **fields: Any) -> None:
    event = TrainingRequestAnswered(
        event_id=f"{request_id} {state}",
        occurred_at=NOW,
        request_id=request_id,
        model="support",
        state=state,
        **fields,
    )
    value, headers = encode(event, "/test")
    await stage.registry.handle(Record(TRAINING_ANSWERS, 0, 0, b"support", value, tuple(headers)))


async def test_request_is_recorded_audited_and_sent(stage: Stage, http: httpx.AsyncClient) -> None:
    stage.app.state.tokens = lambda: parse_tokens(f"operate ada {OPERATE}", "tests")
    wanted = body(hyperparameters={"rank": 32, "targets": ["q_proj"]})
    response = await http.post(REQUESTS, json=wanted)
    assert response.status_code == 200
    shown = response.json()
    assert (shown["state"], shown["dataset"], shown["operator"]) == ("waiting", DATASET, "ada")
    [event] = requested(stage)
    assert event.request_id == shown["request_id"]
    assert event.data.uri == f"{manifests_folder('support')}/{DATASET}/{'b' * 64}.json"
    assert event.data.digest == f"sha256:{'b' * 64}"
    assert event.hyperparameters == {"rank": 32, "targets": ("q_proj",)}
    assert (event.requested_by, event.reason) == ("ada", "new product line")
    [entry] = audited(stage)
    assert (entry.operator, entry.reason) == ("ada", "new product line")
    assert entry.evidence["dataset"] == DATASET
    assert (await http.get(f"{REQUESTS}/{shown['request_id']}")).json() == shown
    assert (await http.get(REQUESTS)).json() == {"items": [shown], "next": None}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hyperparameters": {"rank": 100}}, "outside 8 to 64, the range of the lane master"),
        ({"hyperparameters": {"epoch": 2}}, "did you mean epochs?"),
        ({"dataset": "0"}, "no imported datasets match"),
        ({"dataset": None}, "either a dataset or an uploaded file"),
        ({"lane": "adaptive"}, "lane"),
        ({"reason": ""}, "reason"),
        (
            {
                "dataset": None,
                "file": {
                    "upload": "snapshots/support/0/m.json",
                    "digest": f"sha256:{'a' * 64}",
                    "name": "a.jsonl",
                },
            },
            "upload the file again",
        ),
    ],
)
async def test_wrong_request_changes_nothing(
    stage: Stage, http: httpx.AsyncClient, changed: dict[str, Any], reason: str
) -> None:
    stage.store.put("snapshots/support/0/m.json", b"{}")
    response = await http.post(REQUESTS, json=body(**changed))
    assert response.status_code == 422
    assert reason in response.json()["detail"]
    assert requested(stage) == []
    assert audited(stage) == []
    assert (await http.get(REQUESTS)).json()["items"] == []


async def test_request_needs_an_operator(stage: Stage, http: httpx.AsyncClient) -> None:
    assert (await http.post(REQUESTS, json=body(), headers=READER)).status_code == 403
    assert (await http.get(REQUESTS, headers=READER)).status_code == 200
    assert requested(stage) == []


async def test_repeated_request_with_a_key_is_one_request(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": '"k1"'}
    first = await http.post(REQUESTS, json=body(), headers=key)
    await answer(stage, first.json()["request_id"], "building", detail="5,000 lines read")
    stage.store.objects.clear()  # a repetition is not checked again
    again = await http.post(REQUESTS, json=body(), headers=key)
    assert again.json()["request_id"] == first.json()["request_id"]
    assert again.json()["detail"] == "5,000 lines read"
    other = await http.post(REQUESTS, json=body(reason="other"), headers=key)
    assert (other.status_code, len(requested(stage)), len(audited(stage))) == (422, 1, 1)
    assert "needs a new key" in other.json()["detail"]


async def test_request_follows_the_answers_to_its_run(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    request_id = (await http.post(REQUESTS, json=body())).json()["request_id"]
    counts = BatchCounts(training=9, preference=0, negative=1, held_out=2)
    for state, fields in (
        ("building", {"detail": "12 lines read"}),
        ("announced", {"batch_id": "batch of r9", "counts": counts}),
        ("building", {"detail": "12 lines read"}),  # delivered again
        ("refused", {"detail": "late"}),
    ):
        await answer(stage, request_id, state, **fields)
    shown = (await http.get(f"{REQUESTS}/{request_id}")).json()
    assert (shown["state"], shown["detail"], shown["batch_id"]) == ("announced", "", "batch of r9")
    assert (shown["counts"]["training"], shown["run_id"]) == (9, None)
    value, headers = encode(progress("r9", 1), "/test")
    await stage.registry.handle(Record(TRAINING_PROGRESS, 0, 0, b"r9", value, tuple(headers)))
    assert (await http.get(f"{REQUESTS}/{request_id}")).json()["run_id"] == "r9"


async def test_refusal_of_the_builder_is_shown(stage: Stage, http: httpx.AsyncClient) -> None:
    request_id = (await http.post(REQUESTS, json=body())).json()["request_id"]
    await answer(stage, request_id, "refused", detail="a.jsonl is empty")
    await answer(stage, request_id, "building", detail="late")
    shown = (await http.get(f"{REQUESTS}/{request_id}")).json()
    assert (shown["state"], shown["detail"]) == ("refused", "a.jsonl is empty")
    await answer(stage, "unknown", "refused", detail="of a registry that lost its database")


async def test_upload_is_stored_and_requested(stage: Stage, http: httpx.AsyncClient) -> None:
    content = json.dumps({"prompt": "a", "completion": "b"}).encode()
    stored = (await upload(http, content, digest=digest_of(content))).json()
    assert (stored["digest"], stored["bytes"]) == (digest_of(content), len(content))
    assert stage.store.get(stored["upload"]) == content
    file = {name: stored[name] for name in ("upload", "digest", "name")} | {"format": "completion"}
    response = await http.post(REQUESTS, json=body(dataset=None, file=file))
    assert response.status_code == 200, response.text
    [event] = requested(stage)
    assert event.data.uri == stored["upload"]
    assert event.file is not None
    assert (event.file.name, event.file.format) == ("a.jsonl", "completion")


async def test_upload_is_refused_within_its_limits(stage: Stage, http: httpx.AsyncClient) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1 << 14)
            yield b"x" * (1 << 14)

    async def nothing() -> AsyncIterator[bytes]:
        read.append(-1)
        yield b""

    at_most = await upload(http, b"x" * MAX_UPLOAD_BYTES)
    assert at_most.status_code == 200
    for response, status, reason in (
        (await upload(http, b"x" * (MAX_UPLOAD_BYTES + 1)), 413, "RATCHET_UPLOAD_MIB"),
        (await http.post(UPLOADS, params={"name": "a"}, content=endless()), 413, "divide it"),
        (await upload(http, b""), 422, "the file is empty"),
        (await upload(http, b"a", digest=digest_of(b"b")), 422, "cut off or altered"),
        (await upload(http, b"a", name="../a"), 422, "name"),
    ):
        assert (response.status_code, reason in response.text) == (status, True), response.text
    assert sum(read) <= MAX_UPLOAD_BYTES + (2 << 14)
    # Without the right, nothing of the body is read.
    read.clear()
    refused = await http.post(
        UPLOADS, params={"name": "a"}, content=nothing(), headers={"Authorization": "Bearer no"}
    )
    assert (refused.status_code, read) == (401, [])
    assert stage.store.list_keys("uploads") == [at_most.json()["upload"]]


async def test_too_many_uploads_wait(stage: Stage, http: httpx.AsyncClient) -> None:
    stage.starts.uploads._active = MAX_AT_ONCE
    response = await upload(http, b"a")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    stage.starts.uploads._active = 0
    assert (await upload(http, b"a")).status_code == 200


async def test_upload_without_a_request_expires(stage: Stage, http: httpx.AsyncClient) -> None:
    now = stage.registry.clock.now()
    old = upload_key("support", "0" * 32, now - timedelta(days=9))
    recent = upload_key("support", "1" * 32, now - timedelta(days=6))
    for key in (old, recent):
        stage.store.put(key, b"{}")
    new = (await upload(http, b"a")).json()["upload"]
    assert stage.store.list_keys("uploads/support") == sorted([recent, new])
