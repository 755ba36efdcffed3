"""Administration of the serving host: who may use it, and which files it takes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ratchet.serving.api import build_app
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from shared.auth.token_file import TokenFile
from shared.identity import digest_of
from shared.logs import configure
from tests.support.credentials import OPERATE, OPERATOR, READ, READER

LOG = configure("test", "error", "text")
LOCAL = ("127.0.0.1", 50_000)
REMOTE = ("203.0.113.7", 50_000)
MISSING = "/admin/aliases/none"
"""Deleting this alias is answered 404 by the host, once the guard has let the request pass."""


@asynccontextmanager
async def client_of(
    folder: Path, peer: tuple[str, int], with_tokens: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    (folder / "merged").mkdir(exist_ok=True)
    (folder / "tokens").write_text(f"read {READ}\noperate {OPERATE}\n")
    tokens = TokenFile(folder / "tokens", "TOKENS", ("read", "operate"), LOG)
    host = ServingHost(folder / "state", folder / "merged", EngineOptions(64, 1, 1), 1, LOG)
    app = build_app(host, tokens if with_tokens else None)
    transport = httpx.ASGITransport(app, client=peer)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        (LOCAL, {}, 404),
        (LOCAL, {"Host": "serving.example.com"}, 401),
        (LOCAL, {"X-Forwarded-For": "203.0.113.7"}, 401),
        (REMOTE, {}, 401),
        (REMOTE, OPERATOR, 401),
    ],
)
async def test_without_tokens_only_this_machine_administers(
    tmp_path: Path, peer: tuple[str, int], headers: dict[str, str], status: int
) -> None:
    async with client_of(tmp_path, peer) as client:
        answer = await client.delete(MISSING, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 401:
        assert "RATCHET_SERVING_TOKENS_FILE" in answer.json()["error"]["message"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (READER, 401),
        ({"Authorization": "Bearer not-a-token-of-the-file"}, 401),
        (OPERATOR, 404),
    ],
)
async def test_token_file_demands_an_operate_token(
    tmp_path: Path, peer: tuple[str, int], headers: dict[str, str], status: int
) -> None:
    async with client_of(tmp_path, peer, with_tokens=True) as client:
        assert (await client.delete(MISSING, headers=headers)).status_code == status
        assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_web_pages_administer_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    async with client_of(tmp_path, LOCAL, with_tokens=True) as client:
        answer = await client.delete(MISSING, headers={**OPERATOR, **headers})
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_bodies_are_json_alone(tmp_path: Path, kind: str) -> None:
    async with client_of(tmp_path, LOCAL) as client:
        answer = await client.put(
            "/admin/aliases/m", content=b'{"tag": "m:v1"}', headers={"Content-Type": kind}
        )
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "NotJSON")


async def test_body_is_not_read_before_the_token(tmp_path: Path) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{")
        yield b"{"

    headers = {"Content-Type": "application/json"}
    async with client_of(tmp_path, REMOTE, with_tokens=True) as client:
        answer = await client.put("/admin/models/m:v1", content=body(), headers=headers)
    assert (answer.status_code, read) == (401, [])


async def test_no_file_outside_the_merged_folder(tmp_path: Path) -> None:
    """The answer is the same for an existing and a missing file, and tells no digest."""
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    async with client_of(tmp_path, LOCAL) as client:
        link = tmp_path / "merged" / "link.gguf"
        link.symlink_to(outside)
        messages = set()
        for path in (outside, tmp_path / "absent", link, tmp_path / "merged/../secret"):
            body = {"path": str(path), "digest": digest_of(b"another")}
            answer = await client.put("/admin/models/m:v1", json=body)
            assert answer.status_code == 422
            messages.add(answer.json()["error"]["message"].replace(str(path), "PATH"))
    (message,) = messages
    assert digest_of(b"secret") not in message
    assert "RATCHET_MERGED" in message


async def test_api_docs_come_from_the_host_alone(tmp_path: Path) -> None:
    async with client_of(tmp_path, REMOTE) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "://" not in page.text
        for file in ("swagger-ui-bundle.js", "swagger-ui.css", "api.js"):
            assert f"/docs/files/{file}" in page.text
            assert (await client.get(f"/docs/files/{file}")).status_code == 200
        assert (await client.get("/redoc")).headers["location"] == "/docs"
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/admin/models/{tag}"} <= set(paths)
