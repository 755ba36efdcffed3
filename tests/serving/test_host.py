"""The serving host with the real model: load, answer, switch under load, restart, recover."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ratchet.local_stack.bases import SMOLLM2
from ratchet.serving.api import build_app
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from shared.identity import digest_of, digest_of_file
from shared.logs import configure

pytestmark = pytest.mark.model

HELLO = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0, "max_tokens": 8}


@asynccontextmanager
async def _host(
    folder: Path, merged: Path, limit: int = 3
) -> AsyncIterator[tuple[ServingHost, httpx.AsyncClient]]:
    host = ServingHost(
        folder,
        merged,
        EngineOptions(context=512, slots=1, threads=1),
        limit,
        configure("test", "error", "text"),
    )
    app = build_app(host)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=60
    )
    async with app.router.lifespan_context(app), client:
        yield host, client


@pytest.fixture(scope="module")
def merged(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of merged models, with `model.gguf`."""
    folder = tmp_path_factory.mktemp("merged")
    shutil.copy(bases / SMOLLM2 / "model.gguf", folder)
    return folder


@pytest.fixture(scope="module")
def model(merged: Path) -> dict[str, str]:
    path = merged / "model.gguf"
    return {"path": str(path), "digest": digest_of_file(path)}


async def _put(client: httpx.AsyncClient, tag: str, model: dict[str, str]) -> None:
    answer = await client.put(f"/admin/models/{tag}", json=model)
    assert answer.status_code == 200, answer.text


async def test_answers_are_deterministic_and_name_the_version(
    tmp_path: Path, model: dict[str, str]
) -> None:
    async with _host(tmp_path, Path(model["path"]).parent) as (_, client):
        await _put(client, "m:v1", model)
        assert (await client.put("/admin/aliases/m", json={"tag": "m:v1"})).status_code == 200
        ask = {**HELLO, "model": "m", "logprobs": True, "top_logprobs": 1}
        answers = [(await client.post("/v1/chat/completions", json=ask)).json() for _ in range(2)]
        assert [answer["model"] for answer in answers] == ["m:v1", "m:v1"]
        assert answers[0]["choices"] == answers[1]["choices"]
        assert len(answers[0]["choices"][0]["logprobs"]["content"]) == 8
        text = answers[0]["choices"][0]["message"]["content"]
        async with client.stream(
            "POST", "/v1/chat/completions", json={**HELLO, "model": "m", "stream": True}
        ) as stream:
            lines = [line async for line in stream.aiter_lines() if line.startswith("data: {")]
        pieces = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert {piece["model"] for piece in pieces} == {"m:v1"}
        assert (
            "".join(
                piece["choices"][0]["delta"].get("content") or ""
                for piece in pieces
                if piece["choices"]
            )
            == text
        )


async def test_invalid_requests_are_rejected(tmp_path: Path, model: dict[str, str]) -> None:
    async with _host(tmp_path, Path(model["path"]).parent) as (_, client):
        wrong = {**model, "digest": digest_of(b"another")}
        answer = await client.put("/admin/models/m:v1", json=wrong)
        assert answer.status_code == 422
        assert model["digest"] in answer.json()["error"]["message"]
        assert (await client.get("/v1/models")).json()["data"] == []
        await _put(client, "m:v1", model)
        assert (await client.put("/admin/models/m:v1", json=wrong)).status_code == 409
        (tmp_path / "text.gguf").write_bytes(b"no model")
        text = {"path": str(tmp_path / "text.gguf"), "digest": digest_of(b"no model")}
        assert (await client.put("/admin/models/m:v2", json=text)).status_code == 422
        assert (
            await client.post("/v1/chat/completions", json={**HELLO, "model": "none"})
        ).status_code == 404
        assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400
        await client.put("/admin/aliases/m", json={"tag": "m:v1"})
        assert (await client.delete("/admin/models/m:v1")).status_code == 409


async def test_no_request_fails_while_an_alias_moves(tmp_path: Path, model: dict[str, str]) -> None:
    async with _host(tmp_path, Path(model["path"]).parent) as (_, client):
        for tag in ("m:v1", "m:v2"):
            await _put(client, tag, model)
        await client.put("/admin/aliases/m", json={"tag": "m:v1"})
        responses: list[tuple[int, str]] = []
        moving = True

        async def ask() -> None:
            while moving:
                answer = await client.post("/v1/chat/completions", json={**HELLO, "model": "m"})
                responses.append((answer.status_code, answer.json().get("model", answer.text)))

        clients = [asyncio.create_task(ask()) for _ in range(3)]
        for tag in ("m:v2", "m:v1") * 3:
            assert (await client.put("/admin/aliases/m", json={"tag": tag})).status_code == 200
            moved = len(responses)
            async with asyncio.timeout(60):
                while tag not in [name for _, name in responses[moved:]]:
                    await asyncio.sleep(0.05)
        moving = False
        await asyncio.gather(*clients)
        assert {status for status, _ in responses} == {200}
        assert {name for _, name in responses} == {"m:v1", "m:v2"}


async def test_state_survives_restarts_and_engine_crashes(
    tmp_path: Path, model: dict[str, str]
) -> None:
    async with _host(tmp_path, Path(model["path"]).parent) as (_, client):
        await _put(client, "m:v1", model)
        await _put(client, "m:v2", model)
        await client.put("/admin/aliases/m", json={"tag": "m:v2"})
    async with _host(tmp_path, Path(model["path"]).parent) as (host, client):
        listed = (await client.get("/v1/models")).json()
        assert listed["aliases"] == {"m": "m:v2"}
        assert {row["id"]: row["loaded"] for row in listed["data"]} == {"m:v1": False, "m:v2": True}
        assert (await client.get("/readyz")).status_code == 200
        engine = host.pool.process_id_of("m:v2")
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        assert (
            await client.post("/v1/chat/completions", json={**HELLO, "model": "m"})
        ).status_code == 200
        second = host.pool.process_id_of("m:v2")
        assert second is not None
        assert second != engine
        os.kill(second, signal.SIGKILL)
        async with asyncio.timeout(30):
            while host.pool.process_id_of("m:v2") in (second, None):
                await asyncio.sleep(0.05)


async def test_the_number_of_loaded_versions_is_limited(
    tmp_path: Path, model: dict[str, str]
) -> None:
    async with _host(tmp_path, Path(model["path"]).parent, limit=2) as (host, client):
        await _put(client, "m:v1", model)
        await client.put("/admin/aliases/m", json={"tag": "m:v1"})
        for tag in ("m:v2", "m:v3"):
            await _put(client, tag, model)
        assert host.pool.loaded == ("m:v1", "m:v3")
        assert (await client.post("/v1/chat/completions", json={**HELLO, "model": "m:v2"})).json()[
            "model"
        ] == "m:v2"
        assert host.pool.loaded == ("m:v1", "m:v2")
