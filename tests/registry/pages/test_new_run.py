"""The pages of a new training run, as a browser without JavaScript uses them."""

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.registry.handlers import training_rolled_back
from services.registry.training_requests import WAITING
from shared.config.model_file import ModelFile
from shared.config.models import Models
from tests.registry.api.test_training_requests import answer, requested
from tests.registry.deploy.test_deployment import MAX_UPLOAD_BYTES, Stage
from tests.support.credentials import OPERATOR, READER
from tests.support.imported_files import chat, import_into, write_jsonl
from tests.support.registry_events import CONTEXT, MODEL, DatabaseFixture, rejection

TRAIN, REQUESTS = "/models/support/train", "/models/support/training-requests"
NO_FILE = {"file": ("", b"")}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(DatabaseFixture(f"sqlite:///{tmp_path}/registry.db"), tmp_path)


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://registry", headers=OPERATOR
    ) as client:
        yield client


def declare_lane(stage: Stage) -> ModelFile:
    lanes: dict[str, Any] = {"lanes": {"adaptive": {}, "master": {}}}
    model_file = ModelFile.model_validate(MODEL.model_dump() | lanes)
    stage.registry.models = Models({"support": model_file}, stage.registry.models.folder)
    return model_file


def hidden_fields(page: str) -> dict[str, str]:
    """The hidden fields of a page's form, as the browser sends them."""
    return {
        name: unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)
    }


async def start(http: httpx.AsyncClient, checked: httpx.Response) -> httpx.Response:
    assert checked.status_code == 200, checked.text
    return await http.post(REQUESTS, data=hidden_fields(checked.text), follow_redirects=True)


async def test_file_is_checked_started_and_followed(stage: Stage, http: httpx.AsyncClient) -> None:
    declare_lane(stage)
    form = (await http.get(TRAIN)).text
    assert "8 to 64" in form
    fields = {"set_rank": "32", "set_targets": "q_proj, v_proj", "format": "chat", "reason": "new"}
    checked = await http.post(TRAIN, data=fields, files={"file": ("../my tickets.jsonl", b"{}")})
    assert "my_tickets.jsonl" in checked.text
    assert "Changed for this run: rank, targets." in checked.text
    page = await start(http, checked)
    [event] = requested(stage)
    assert event.file is not None
    assert (event.file.name, event.file.format) == ("my_tickets.jsonl", "chat")
    assert event.hyperparameters == {"rank": 32, "targets": ("q_proj", "v_proj")}
    assert stage.store.get(event.data.uri) == b"{}"
    assert str(page.url).endswith(f"{REQUESTS}/{event.request_id}")
    assert f'<span class="tag {WAITING}">' in page.text
    # The form sent twice is one request.
    await start(http, checked)
    assert len(requested(stage)) == 1
    await answer(stage, event.request_id, "refused", detail="my_tickets.jsonl has <b>1 line")
    refused = (await http.get(f"{REQUESTS}/{event.request_id}")).text
    assert "No batch was made: my_tickets.jsonl has &lt;b&gt;1 line" in refused
    assert "hx-get" not in refused
    assert event.request_id in (await http.get("/models/support")).text


async def test_dataset_is_checked_with_its_counts(
    stage: Stage, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    model_file = declare_lane(stage)
    path = write_jsonl(tmp_path / "a.jsonl", [chat(str(n)) for n in range(30)])
    report = import_into(stage.store, path, model_file)
    assert report.dataset is not None
    assert report.dataset[:12] in (await http.get(TRAIN)).text
    checked = await http.post(
        TRAIN, data={"dataset": report.dataset, "reason": "new"}, files=NO_FILE
    )
    assert f"{report.examples.training} training examples" in checked.text
    assert "From 30 lines" in checked.text
    await start(http, checked)
    [event] = requested(stage)
    assert (event.data, event.file, event.hyperparameters) == (report.manifest, None, None)


async def test_check_shows_the_costs_of_the_newest_run(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    declare_lane(stage)
    files = {"file": ("a.jsonl", b"{}")}
    checked = await http.post(TRAIN, data={"reason": "new"}, files=files)
    assert "No run of this lane has ended here yet" in checked.text
    ended = rejection("r7", stage.registry_db.champion).model_copy(update={"lane": "master"})
    stage.registry_db.run(lambda session: training_rolled_back(session, ended, CONTEXT))
    checked = await http.post(TRAIN, data={"reason": "new"}, files=files)
    assert ended.metrics is not None
    seconds = ended.metrics.train_seconds + ended.metrics.evaluate_seconds
    assert f"took {seconds / 60:.1f} minutes" in checked.text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"set_rank": "100"}, "outside 8 to 64, the range of the lane master"),
        ({"set_learning_rate": "fast"}, "learning_rate"),
        ({"reason": ""}, "reason: "),
        ({"format": "words"}, "file.format: "),
    ],
)
async def test_corrected_form_keeps_its_file_and_fields(
    stage: Stage, http: httpx.AsyncClient, fields: dict[str, str], problem: str
) -> None:
    declare_lane(stage)
    wrong = {"reason": "new", "set_epochs": "2"} | fields
    refused = await http.post(TRAIN, data=wrong, files={"file": ("a.jsonl", b"{}")})
    assert refused.status_code == 422
    assert problem in unescape(refused.text)
    assert requested(stage) == []
    stored = hidden_fields(refused.text)
    assert stored["name"] == "a.jsonl"
    assert 'name="set_epochs" value="2"' in refused.text
    corrected = await http.post(
        TRAIN, data={"reason": "new", "set_epochs": "2"} | stored, files=NO_FILE
    )
    await start(http, corrected)
    [event] = requested(stage)
    assert (event.data.uri, event.hyperparameters) == (stored["upload"], {"epochs": 2})


async def test_unusable_forms_are_refused(stage: Stage, http: httpx.AsyncClient) -> None:
    declare_lane(stage)
    nothing = await http.post(TRAIN, data={"reason": "new"}, files=NO_FILE)
    assert (nothing.status_code, "either a dataset" in nothing.text) == (422, True)
    large = {"file": ("a.jsonl", b"x" * (MAX_UPLOAD_BYTES + 1))}
    for content, status in (
        ({"data": {"reason": "new"}, "files": large}, 413),
        ({"data": {"reason": "new"}}, 400),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"x" * (2 << 17), "headers": {"Content-Type": "multipart/form-data"}}, 400),
    ):
        response = await http.post(TRAIN, **content)
        assert response.status_code == status, response.text
    begun = await http.post(REQUESTS, data={"request": "{}", "key": "k"})
    assert begun.status_code == 400
    tampered = {"request": '{"dataset": "0", "reason": "new"}', "key": "k"}
    assert (await http.post(REQUESTS, data=tampered)).status_code == 422
    assert requested(stage) == []
    assert stage.store.list_keys("uploads") == []


async def test_pages_need_an_operator_to_start(stage: Stage, http: httpx.AsyncClient) -> None:
    declare_lane(stage)
    for method in ("GET", "POST"):
        response = await http.request(method, TRAIN, headers=READER)
        assert response.status_code == 403
    assert (await http.post(REQUESTS, headers=READER)).status_code == 403
    assert (await http.get(f"{REQUESTS}/none", headers=READER)).status_code == 404


async def test_model_without_the_lane_says_so(stage: Stage, http: httpx.AsyncClient) -> None:
    page = (await http.get(TRAIN)).text
    assert "declares no lane" in page
    assert "<form" not in page
    refused = await http.post(TRAIN, data={"reason": "new", "dataset": "0"}, files=NO_FILE)
    assert (refused.status_code, "declares no lane" in refused.text) == (422, True)
