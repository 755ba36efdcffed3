"""The registry over HTTP, for programs."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from services.registry.api import authorization as access
from services.registry.api import etag as preconditions
from services.registry.api import holds as hold_api
from services.registry.api import idempotency, lists, problems
from services.registry.api import pagination as paging
from services.registry.api import routing as route_api
from services.registry.api import schemas as answers
from services.registry.api.authorization import require_operator, require_reader
from services.registry.api.champion_moves import DEPLOY_WAIT_SECONDS, move_champion
from services.registry.api.etag import aliases_etag
from services.registry.api.holds import Reason
from services.registry.api.idempotency import IdempotentRequest, idempotent_request
from services.registry.api.pagination import Page, page_request
from services.registry.api.problems import problem_responses
from services.registry.api.views import View, lineage_view, model_view, run_view, version_view
from services.registry.app import Registry
from services.registry.lifecycle import Alias
from services.registry.store.database import Session
from services.registry.store.queries import aliases_of, versions_by_name
from services.registry.store.tables import RunRow, VersionRow
from services.registry.versions.moves import (
    UnknownVersion,
    promote_by_operator,
    require_version,
    roll_back,
)
from shared.identity import identity
from shared.observability.health import Health

__all__ = ["DEPLOY_WAIT_SECONDS", "build"]

Limit = Annotated[int, Query(ge=1, le=paging.MAX_LIMIT, description="how many at most")]
Cursor = Annotated[
    Annotated[str, Field(max_length=4096)] | SkipJsonSchema[None],
    Query(description="`next` of the page before; without it the first page"),
]
IfMatch = Annotated[
    Annotated[str, Field(pattern=preconditions.IF_MATCH_PATTERN, max_length=1024)]
    | SkipJsonSchema[None],
    Header(alias="If-Match", description="move only if the aliases are still those of this `ETag`"),
]
Key = Annotated[
    Annotated[str, Field(pattern=idempotency.KEY_PATTERN)] | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="the same key and request, within 24 hours, is one move and has one answer",
    ),
]


class PromoteRequest(BaseModel):
    """Make `version` champion, or the challenger where none is named."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = None
    reason: Reason


class RollbackRequest(BaseModel):
    """Go back (or forward again) to `to`, or to `previous` where none is named."""

    model_config = ConfigDict(extra="forbid")

    to: str | None = None
    reason: Reason


def build(
    registry: Registry, health: Health, metrics: CollectorRegistry, tokens: access.TokensProvider
) -> FastAPI:
    """The application around a registry."""
    app = FastAPI(
        title="Ratchet registry",
        summary="Versions of models, where each came from, and which one is served",
        # FastAPI's own pages load their scripts from elsewhere; `api_page.py` has one that does
        # not.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    access.install(app, tokens)
    app.include_router(_reads(registry))
    app.include_router(_moves(registry))
    app.include_router(hold_api.routes(registry))
    app.include_router(route_api.routes(registry))
    app.include_router(_state(health, metrics))
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        problems.add_problem_schema(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it
    return app


def _reads(registry: Registry) -> APIRouter:
    # Reading without a token is possible, from this machine: an empty requirement says so.
    routes = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])
    database, models = registry.database, registry.models
    anyone: Any = {"openapi_extra": {"security": [{}]}}
    listed: Any = anyone | {
        "responses": problem_responses(401, 422, 503) | {200: {"headers": _LINK}}
    }
    listed_of_model: Any = anyone | {
        "responses": problem_responses(401, 404, 422, 503) | {200: {"headers": _LINK}}
    }
    one: Any = anyone | {"responses": problem_responses(401, 404, 422, 503)}
    tagged: Any = anyone | {
        "responses": problem_responses(401, 404, 422, 503) | {200: {"headers": _ETAG}}
    }

    @routes.get("/models", response_model=answers.ListPage[answers.Model], **listed)
    async def list_models(
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        page = page_request("models", limit, cursor, paging.parse_name)
        return _listed(
            request,
            response,
            limit,
            await database.run(partial(lists.models_page, names=models.files, page=page)),
        )

    @routes.get("/models/{model}", response_model=answers.Model, **tagged)
    async def get_model(model: str, response: Response) -> View:
        models.get(model)
        view, tag = await database.run(
            lambda session: (
                model_view(session, model),
                aliases_etag(model, aliases_of(session, model)),
            )
        )
        response.headers["ETag"] = tag
        return view

    @routes.get(
        "/models/{model}/versions",
        response_model=answers.ListPage[answers.Version],
        **listed_of_model,
    )
    async def list_versions(
        model: str,
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        models.get(model)
        page = page_request(f"versions of {model}", limit, cursor, paging.parse_number)
        return _listed(
            request,
            response,
            limit,
            await database.run(partial(lists.versions_page, model=model, page=page)),
        )

    @routes.get("/models/{model}/versions/{version}", response_model=answers.Version, **one)
    async def get_version(model: str, version: str) -> View:
        models.get(model)
        return await database.run(
            lambda session: version_view(session, require_version(session, model, version))
        )

    @routes.get(
        "/models/{model}/withdrawals",
        response_model=answers.ListPage[answers.Withdrawal],
        **listed_of_model,
    )
    async def list_withdrawals(
        model: str,
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        models.get(model)
        page = page_request(f"withdrawals of {model}", limit, cursor, paging.parse_time_and_name)
        return _listed(
            request,
            response,
            limit,
            await database.run(partial(lists.withdrawals_page, model=model, page=page)),
        )

    @routes.get("/models/{model}/aliases/{alias}", response_model=answers.Version, **tagged)
    async def get_alias(model: str, alias: Alias, response: Response) -> View:
        """The version that an alias names. `ETag` stands for all aliases of the model."""
        models.get(model)

        def aliased(session: Session) -> tuple[View, str]:
            return version_view(session, _aliased(session, model, alias)), aliases_etag(
                model, aliases_of(session, model)
            )

        view, tag = await database.run(aliased)
        response.headers["ETag"] = tag
        return view

    @routes.get(
        "/models/{model}/history",
        response_model=answers.ListPage[answers.AuditEntry],
        **listed_of_model,
    )
    async def get_history(
        model: str,
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        models.get(model)
        page = page_request(f"history of {model}", limit, cursor, paging.parse_number)
        return _listed(
            request,
            response,
            limit,
            await database.run(partial(lists.history_page, model=model, page=page)),
        )

    @routes.get(
        "/versions/{version_id}/lineage",
        response_model=answers.Lineage,
        **anyone,
        responses=problem_responses(401, 404, 409, 422, 503),
    )
    async def get_lineage(version_id: str) -> View:
        """Of `<model>:<version>`, or of a version by its name alone where only one model has such a
        version.
        """
        return await database.run(
            lambda session: lineage_view(session, _identified(session, version_id))
        )

    @routes.get("/runs/{run_id}", response_model=answers.Run, **one)
    async def get_run(run_id: str) -> View:
        return await database.run(lambda session: run_view(session, _run(session, run_id)))

    return routes


def _moves(registry: Registry) -> APIRouter:
    routes = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    models = registry.models
    moves: Any = {
        "response_model": answers.ChampionMove,
        "responses": problem_responses(401, 403, 404, 409, 412, 422, 503),
    }

    @routes.post("/models/{model}/promote", **moves)
    async def post_promote(
        model: str, body: PromoteRequest, if_match: IfMatch = None, idempotency_key: Key = None
    ) -> View:
        models.get(model)
        under = _keyed("promote", model, body, if_match, idempotency_key)
        return await move_champion(
            registry,
            model,
            lambda session, now: promote_by_operator(
                session, model, body.version, body.reason, now
            ),
            if_match,
            under,
        )

    @routes.post("/models/{model}/rollback", **moves)
    async def post_rollback(
        model: str, body: RollbackRequest, if_match: IfMatch = None, idempotency_key: Key = None
    ) -> View:
        """Answers when the old version does, or after ten seconds; `deployed` says which."""
        models.get(model)
        under = _keyed("rollback", model, body, if_match, idempotency_key)
        return await move_champion(
            registry,
            model,
            lambda session, now: roll_back(session, model, body.to, body.reason, "operator", now),
            if_match,
            under,
        )

    return routes


def _state(health: Health, metrics: CollectorRegistry) -> APIRouter:
    routes = APIRouter(default_response_class=PlainTextResponse)
    probe: Any = {
        "responses": {
            503: {
                "description": "Not so",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        }
    }

    @routes.get("/healthz", **probe)
    async def healthz() -> Response:
        return _told(health.is_live)

    @routes.get("/readyz", **probe)
    async def readyz() -> Response:
        return _told(health.is_ready)

    @routes.get("/metrics")
    def get_metrics() -> Response:  # in a thread: it looks at disks
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return routes


_LINK = {
    "Link": {
        "description": 'the next page, as `<...>; rel="next"`, if there is one',
        "schema": {"type": "string"},
    }
}
_ETAG = {
    "ETag": {
        "description": "stands for the aliases of the model, not for other fields",
        "schema": {"type": "string"},
    }
}


def _listed(request: Request, response: Response, limit: int, page: Page[View]) -> View:
    """A list as an object, which can say more of itself one day without breaking those who read it."""
    if page.next is not None:
        response.headers["Link"] = paging.next_link(request.url.path, limit, page.next)
    return {"items": page.rows, "next": page.next}


def _keyed(
    kind: str, model: str, body: BaseModel, if_match: str | None, key: str | None
) -> IdempotentRequest | None:
    return (
        None
        if key is None
        else idempotent_request(key, identity(kind, model, body.model_dump_json(), if_match or ""))
    )


def _aliased(session: Session, model: str, alias: Alias) -> VersionRow:
    row = aliases_of(session, model)
    name = getattr(row, alias) if row else None
    if name is None:
        raise UnknownVersion(
            f"{model} has no {alias} at present; GET /api/models/{model} shows its aliases"
        )
    return require_version(session, model, name)


def _identified(session: Session, version_id: str) -> VersionRow:
    """The version called `<model>:<version>`, or by its name alone where only one model has such a
    version.
    """
    model, colon, name = version_id.partition(":")
    if colon:
        return require_version(session, model, name)
    found = versions_by_name(session, version_id)
    if not found:
        raise UnknownVersion(
            f"no model has a version {version_id!r}; GET /api/models lists the models"
        )
    if len(found) > 1:
        raise problems.AmbiguousVersion(
            f"several models have a version {version_id!r}; ask for "
            f"{found[0].model}:{version_id} or another"
        )
    return found[0]


def _run(session: Session, run_id: str) -> RunRow:
    run = session.get(RunRow, run_id)
    if run is None:
        raise problems.UnknownRun(
            f"no run {run_id!r} has been heard of; a version names its own in run_id"
        )
    return run


def _told(good: bool) -> Response:
    return (
        PlainTextResponse("200 OK\n")
        if good
        else PlainTextResponse("503 Service Unavailable\n", 503)
    )
