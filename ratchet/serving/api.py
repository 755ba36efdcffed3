"""HTTP API of the serving host: OpenAI-style chat completions, and administration of tags and
aliases.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from ratchet.serving.administration import AdministrationGuard, TokenSource, error_response
from ratchet.serving.catalogue import CatalogueConflict, ModelNotFound
from ratchet.serving.host import FileNotServable, ServingHost
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.errors import InvalidArtefact, RatchetError
from shared.events import Digest
from shared.http.api_docs import api_docs_routes

Text = Annotated[str, Field(min_length=1, max_length=256)]

_KINDS: tuple[tuple[type[RatchetError], int, str], ...] = (
    (ModelNotFound, 404, "NotThere"),
    (CatalogueConflict, 409, "Conflict"),
    (FileNotServable, 422, "Unusable"),
    (InvalidArtefact, 422, "Unusable"),
    (RatchetError, 400, "BadRequest"),
)
"""HTTP status and `error.type` of each error; clients may depend on both."""


class PutModel(BaseModel):
    """A file on this machine, its expected digest, and the variables of its chat template."""

    model_config = ConfigDict(extra="forbid")

    path: Text
    digest: Digest
    template: TemplateVariables = DEFAULT_VARIABLES


class Conversation(BaseModel):
    """Messages in the OpenAI format."""

    model_config = ConfigDict(extra="forbid")

    messages: list[dict[str, Any]]


class PutAlias(BaseModel):
    """The new tag of an alias."""

    model_config = ConfigDict(extra="forbid")

    tag: Text


class BadRequest(RatchetError):
    """A chat completion request that is not in the OpenAI format."""


def build_app(host: ServingHost, tokens: TokenSource | None = None) -> FastAPI:
    """Build the application, which starts and closes the host. Without `tokens`, only requests from
    this machine may administer it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        ) as client:
            app.state.client = client
            await host.start()
            try:
                yield
            finally:
                await host.close()

    app = FastAPI(
        title="Ratchet serving",
        summary="llama.cpp with immutable tags and movable aliases",
        lifespan=lifespan,
        # FastAPI's own pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(AdministrationGuard, tokens=tokens)
    app.router.routes.extend(api_docs_routes())

    @app.exception_handler(RatchetError)
    async def refuse(request: Request, error: RatchetError) -> JSONResponse:
        status, name = next((code, name) for kind, code, name in _KINDS if isinstance(error, kind))
        return error_response(status, name, str(error))

    @app.post("/v1/chat/completions")
    async def answer(request: Request) -> Response:
        body = _body(await request.body())
        tag = host.catalogue.resolve(body["model"])
        body["model"] = tag
        _set_template_variables(body, host.template_of(tag))
        if body.get("temperature") == 0:
            # A cached prompt changes the sizes of llama.cpp's computations, and their rounding may
            # change a near tie.
            body.setdefault("cache_prompt", False)
        return await _forward(host, request.app.state.client, tag, body)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        catalogue, loaded = host.catalogue, set(host.pool.loaded)
        names: dict[str, list[str]] = {tag: [] for tag in catalogue.tags}
        for alias, tag in catalogue.aliases.items():
            names[tag].append(alias)
        available = await asyncio.to_thread(
            lambda: {tag for tag, entry in catalogue.tags.items() if Path(entry.path).is_file()}
        )
        data = [
            {
                "id": tag,
                "object": "model",
                "digest": entry.digest,
                "path": entry.path,
                "aliases": names[tag],
                "loaded": tag in loaded,
                "available": tag in available,
            }
            for tag, entry in catalogue.tags.items()
        ]
        return {"object": "list", "data": data, "aliases": dict(catalogue.aliases)}

    @app.put("/admin/models/{tag}")
    async def put_model(tag: str, body: PutModel) -> dict[str, str]:
        await host.put_tag(tag, body.path, body.digest, body.template)
        return {"tag": tag, "digest": body.digest}

    @app.post("/admin/models/{tag}/prompt-tokens")
    async def prompt_tokens(tag: str, body: Conversation) -> dict[str, list[int]]:
        tag = host.catalogue.resolve(tag)
        conversation: dict[str, Any] = {"messages": body.messages}
        _set_template_variables(conversation, host.template_of(tag))
        async with host.pool.lease(tag) as address:
            return {"tokens": await _prompt_tokens(app.state.client, address, conversation)}

    @app.put("/admin/aliases/{alias}")
    async def put_alias(alias: str, body: PutAlias) -> dict[str, str]:
        await host.move_alias(alias, body.tag)
        return {"alias": alias, "tag": body.tag}

    @app.delete("/admin/aliases/{alias}", status_code=204)
    async def delete_alias(alias: str) -> None:
        await host.remove_alias(alias)

    @app.delete("/admin/models/{tag}", status_code=204)
    async def delete_model(tag: str) -> None:
        await host.remove_tag(tag)

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("200 OK\n")

    @app.get("/readyz")
    async def readyz() -> PlainTextResponse:
        return (
            PlainTextResponse("200 OK\n")
            if host.is_ready
            else PlainTextResponse("503 Service Unavailable\n", 503)
        )

    return app


def _body(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadRequest(
            "the request must be an object with `model`, a tag or an alias, and `messages`"
        )
    return body


def _set_template_variables(body: dict[str, Any], variables: TemplateVariables) -> None:
    """Set the variables of the chat template, unless the request sets them itself."""
    own = body.get("chat_template_kwargs")
    if own is None or isinstance(own, dict):
        body["chat_template_kwargs"] = {**variables.model_dump(), **(own or {})}


async def _prompt_tokens(
    client: httpx.AsyncClient, address: str, conversation: dict[str, Any]
) -> list[int]:
    """Return the tokens that an engine makes of a conversation, as for a chat completion."""
    try:
        rendered = await client.post(f"{address}/apply-template", json=conversation)
        prompt = rendered.raise_for_status().json()["prompt"]
        text = {"content": prompt, "add_special": True, "parse_special": True}
        response = await client.post(f"{address}/tokenize", json=text)
        tokens: list[int] = response.raise_for_status().json()["tokens"]
    except httpx.HTTPStatusError as error:
        raise BadRequest(f"the engine refuses the conversation: {error.response.text}") from error
    except httpx.TransportError as error:
        raise InvalidArtefact(f"the engine does not answer: {error!r}") from error
    return tokens


async def _forward(
    host: ServingHost, client: httpx.AsyncClient, tag: str, body: dict[str, Any]
) -> Response:
    """Forward a request to a tag's engine. If the engine dies before it responds, try once more
    with a new engine.
    """
    for attempt in (1, 2):
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(host.pool.lease(tag))
            request = client.build_request("POST", f"{address}/v1/chat/completions", json=body)
            try:
                response = await client.send(request, stream=True)
                stack.push_async_callback(response.aclose)
                if not body.get("stream"):
                    return Response(
                        await response.aread(),
                        response.status_code,
                        media_type=response.headers.get("content-type"),
                    )
            except httpx.TransportError as error:
                host.pool.discard_unresponsive(tag, address)
                if attempt == 2:
                    raise InvalidArtefact(
                        f"the engine of {tag} does not answer: {error!r}"
                    ) from error
                continue
            return _EngineStream(response, stack.pop_all())
    raise AssertionError("unreachable: the second attempt returns or raises")


class _EngineStream(StreamingResponse):
    """Streams the engine's bytes. The engine is released at the end, even if the client disconnects
    before the first byte.
    """

    def __init__(self, answer: httpx.Response, stack: AsyncExitStack) -> None:
        super().__init__(
            answer.aiter_raw(), answer.status_code, media_type=answer.headers.get("content-type")
        )
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)
