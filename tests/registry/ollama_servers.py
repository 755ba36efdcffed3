"""Ollama servers for tests of the Ollama target: a real one, and a stateful fake of its API."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.local_stack.ports import LOOPBACK, free_port
from tests.support.programs import require_program


class OllamaServer(Protocol):
    """An Ollama server that keeps its models over restarts."""

    @property
    def url(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class RealOllama:
    """The Ollama program with its own model folder."""

    def __init__(self, folder: Path) -> None:
        self._program = require_program("ollama")
        self._folder = folder
        self._address = f"{LOOPBACK}:{free_port()}"
        self.url = f"http://{self._address}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        own = {
            "OLLAMA_HOST": self._address,
            "OLLAMA_MODELS": str(self._folder / "models"),
            "HOME": str(self._folder),
        }
        env = {"PATH": os.environ["PATH"], "OLLAMA_NUM_PARALLEL": "1", "GIN_MODE": "release", **own}
        with (self._folder / "ollama.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program, "serve", env=env, stdout=log, stderr=log
            )
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                assert self._process.returncode is None, (self._folder / "ollama.log").read_text(
                    errors="replace"
                )[-2000:]
                try:
                    (await client.get(f"{self.url}/api/version")).raise_for_status()
                    return
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            async with asyncio.timeout(20):
                await self._process.wait()
            self._process = None


@dataclass
class FakeOllama:
    """Fake of Ollama's API in memory. `says` maps the digest of a file to its answers by prompt."""

    url: str = ""
    blobs: dict[str, int] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    says: dict[str, dict[str, str]] = field(default_factory=dict)
    uploads: int = 0
    full: bool = False
    busy: bool = False
    stops_at: str | None = None
    chooses_templates: bool = False
    _server: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        port = int(self.url.rpartition(":")[2]) if self.url else free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), LOOPBACK, port, log_config=None, lifespan="off", ws="none")
        )
        self._serving = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(10):
            while not self._server.started:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = self._server.force_exit = True
            await self._serving
            self._server = self._serving = None

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/api/tags", self._tags, methods=["GET"])
        app.add_api_route("/api/show", self._show, methods=["POST"])
        app.add_api_route("/api/blobs/{digest}", self._head, methods=["HEAD"])
        app.add_api_route("/api/blobs/{digest}", self._blob, methods=["POST"])
        app.add_api_route("/api/create", self._create, methods=["POST"])
        app.add_api_route("/api/copy", self._copy, methods=["POST"])
        app.add_api_route("/api/delete", self._delete, methods=["DELETE"])
        app.add_api_route("/api/chat", self._chat, methods=["POST"])
        return app

    async def _tags(self) -> Response:
        if self.busy:
            return _error(503, "server busy, please try again.  maximum pending requests exceeded")
        return JSONResponse(
            {
                "models": [
                    {"model": tag, "name": tag, "digest": _digest(about)}
                    for tag, about in self.manifests.items()
                ]
            }
        )

    async def _show(self, request: Request) -> Response:
        tag = (await request.json())["model"]
        if tag not in self.manifests:
            return _error(404, f"model '{tag}' not found")
        about = self.manifests[tag]
        modelfile = (
            f"# FROM {tag}\n\nFROM /models/blobs/{about['files']['model.gguf'].replace(':', '-')}\n"
        )
        template = about.get("template", "{{ .Prompt }}")
        return JSONResponse({"modelfile": modelfile, "template": template, "model_info": {}})

    async def _head(self, digest: str) -> Response:
        return Response(status_code=200 if digest in self.blobs else 404)

    async def _blob(self, digest: str, request: Request) -> Response:
        if self.full:
            return _error(500, "write /models/blobs/sha256-3017: no space left on device")
        sha256, size = hashlib.sha256(), 0
        async for piece in request.stream():
            sha256.update(piece)
            size += len(piece)
        if digest != f"sha256:{sha256.hexdigest()}":
            return _error(
                400, f'digest mismatch, expected "{digest}", got "sha256:{sha256.hexdigest()}"'
            )
        self.uploads += 1
        self.blobs[digest] = size
        return Response(status_code=201)

    async def _create(self, request: Request) -> Response:
        about = await request.json()
        tag, digest = about.pop("model"), about["files"]["model.gguf"]

        async def lines() -> AsyncIterator[str]:
            yield '{"status":"parsing GGUF"}\n'
            if self.stops_at is not None:
                yield json.dumps({"status": self.stops_at}) + "\n"
            elif digest not in self.blobs:
                yield (
                    json.dumps(
                        {
                            "error": f"open /models/blobs/{digest.replace(':', '-')}: "
                            "no such file or directory"
                        }
                    )
                    + "\n"
                )
            else:
                if self.chooses_templates:
                    about["template"] = "{{ .Prompt }}"
                self.manifests[tag] = about
                yield '{"status":"writing manifest"}\n{"status":"success"}\n'

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _copy(self, request: Request) -> Response:
        body = await request.json()
        if body["source"] not in self.manifests:
            return _error(404, f'model "{body["source"]}" not found')
        self.manifests[body["destination"]] = self.manifests[body["source"]]
        return Response()

    async def _delete(self, request: Request) -> Response:
        tag = (await request.json())["model"]
        if self.manifests.pop(tag, None) is None:
            return _error(404, f"model '{tag}' not found")
        used = {about["files"]["model.gguf"] for about in self.manifests.values()}
        self.blobs = {digest: size for digest, size in self.blobs.items() if digest in used}
        return Response()

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] not in self.manifests:
            return _error(404, f'model "{body["model"]}" not found, try pulling it first')
        digest = self.manifests[body["model"]]["files"]["model.gguf"]
        content = self.says.get(digest, {}).get(body["messages"][-1]["content"], "I do not know.")
        times = {"total_duration": 3 * 10**9, "load_duration": 10**9, "eval_count": 4}
        return JSONResponse(
            {
                "model": body["model"],
                "message": {"role": "assistant", "content": content},
                "done": True,
            }
            | times
        )


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _digest(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
