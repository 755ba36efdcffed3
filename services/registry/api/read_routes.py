"""Routes that read models, versions, runs and audits."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from services.registry.api import lists, schemas
from services.registry.api import pagination as paging
from services.registry.api.authorization import require_reader
from services.registry.api.etag import aliases_etag
from services.registry.api.pagination import Page, page_request
from services.registry.api.problems import AmbiguousVersion, problem_responses
from services.registry.api.views import View, lineage_view, model_view, run_view, version_view
from services.registry.app import Registry
from services.registry.lifecycle import Alias
from services.registry.store.database import Session
from services.registry.store.queries import aliases_of, versions_by_name
from services.registry.store.tables import RunRow, VersionRow
from services.registry.training_controls import UnknownRun
from services.registry.versions.moves import UnknownVersion, require_version

Limit = Annotated[int, Query(ge=1, le=paging.MAX_LIMIT, description="maximum number of items")]
Cursor = Annotated[
    Annotated[str, Field(max_length=4096)] | SkipJsonSchema[None],
    Query(description="`next` of the previous page; the first page without it"),
]

_LINK = {
    "Link": {
        "description": 'the next page, as `<...>; rel="next"`, if there is one',
        "schema": {"type": "string"},
    }
}
_ETAG = {
    "ETag": {
        "description": "entity tag of the aliases of the model; other fields do not change it",
        "schema": {"type": "string"},
    }
}


def routes(registry: Registry) -> APIRouter:
    # The empty security requirement documents that requests from this machine need no token.
    router = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])
    database, models = registry.database, registry.models
    public: Any = {"openapi_extra": {"security": [{}]}}
    listed: Any = public | {
        "responses": problem_responses(401, 422, 503) | {200: {"headers": _LINK}}
    }
    listed_of_model: Any = public | {
        "responses": problem_responses(401, 404, 422, 503) | {200: {"headers": _LINK}}
    }
    single: Any = public | {"responses": problem_responses(401, 404, 422, 503)}
    tagged: Any = public | {
        "responses": problem_responses(401, 404, 422, 503) | {200: {"headers": _ETAG}}
    }

    @router.get("/models", response_model=schemas.ListPage[schemas.Model], **listed)
    async def list_models(
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        page = page_request("models", limit, cursor, paging.parse_name)
        return list_response(
            request,
            response,
            limit,
            await database.run(partial(lists.models_page, names=models.files, page=page)),
        )

    @router.get("/models/{model}", response_model=schemas.Model, **tagged)
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

    @router.get(
        "/models/{model}/versions",
        response_model=schemas.ListPage[schemas.Version],
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
        return list_response(
            request,
            response,
            limit,
            await database.run(partial(lists.versions_page, model=model, page=page)),
        )

    @router.get("/models/{model}/versions/{version}", response_model=schemas.Version, **single)
    async def get_version(model: str, version: str) -> View:
        models.get(model)
        return await database.run(
            lambda session: version_view(session, require_version(session, model, version))
        )

    @router.get(
        "/models/{model}/withdrawals",
        response_model=schemas.ListPage[schemas.Withdrawal],
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
        return list_response(
            request,
            response,
            limit,
            await database.run(partial(lists.withdrawals_page, model=model, page=page)),
        )

    @router.get("/models/{model}/aliases/{alias}", response_model=schemas.Version, **tagged)
    async def get_alias(model: str, alias: Alias, response: Response) -> View:
        """Return the version of an alias. `ETag` covers all aliases of the model."""
        models.get(model)

        def aliased(session: Session) -> tuple[View, str]:
            return version_view(session, _aliased(session, model, alias)), aliases_etag(
                model, aliases_of(session, model)
            )

        view, tag = await database.run(aliased)
        response.headers["ETag"] = tag
        return view

    @router.get(
        "/models/{model}/history",
        response_model=schemas.ListPage[schemas.AuditEntry],
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
        return list_response(
            request,
            response,
            limit,
            await database.run(partial(lists.history_page, model=model, page=page)),
        )

    @router.get(
        "/versions/{version_id}/lineage",
        response_model=schemas.Lineage,
        **public,
        responses=problem_responses(401, 404, 409, 422, 503),
    )
    async def get_lineage(version_id: str) -> View:
        """Return the lineage of `<model>:<version>`, or of a version by its name alone where it is
        unique.
        """
        return await database.run(
            lambda session: lineage_view(session, _identified(session, version_id))
        )

    @router.get(
        "/models/{model}/runs",
        response_model=schemas.ListPage[schemas.RunSummary],
        **listed_of_model,
    )
    async def list_runs(
        model: str,
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        models.get(model)
        page = page_request(f"runs of {model}", limit, cursor, paging.parse_time_and_name)
        return list_response(
            request,
            response,
            limit,
            await database.run(partial(lists.runs_page, model=model, page=page)),
        )

    @router.get("/runs/{run_id}", response_model=schemas.Run, **single)
    async def get_run(run_id: str) -> View:
        return await database.run(lambda session: run_view(session, _run(session, run_id)))

    return router


def list_response(request: Request, response: Response, limit: int, page: Page[View]) -> View:
    """Return a list as an object, so later releases can add fields to it."""
    if page.next is not None:
        response.headers["Link"] = paging.next_link(request.url.path, limit, page.next)
    return {"items": page.rows, "next": page.next}


def _aliased(session: Session, model: str, alias: Alias) -> VersionRow:
    row = aliases_of(session, model)
    name = getattr(row, alias) if row else None
    if name is None:
        raise UnknownVersion(f"{model} has no {alias}; GET /api/models/{model} shows its aliases")
    return require_version(session, model, name)


def _identified(session: Session, version_id: str) -> VersionRow:
    """Return the version `<model>:<version>`, or the one of this name where it is unique."""
    model, colon, name = version_id.partition(":")
    if colon:
        return require_version(session, model, name)
    versions = versions_by_name(session, version_id)
    if not versions:
        raise UnknownVersion(
            f"no model has a version {version_id!r}; GET /api/models lists the models"
        )
    if len(versions) > 1:
        raise AmbiguousVersion(
            f"several models have a version {version_id!r}; name the model as in "
            f"{versions[0].model}:{version_id}"
        )
    return versions[0]


def _run(session: Session, run_id: str) -> RunRow:
    run = session.get(RunRow, run_id)
    if run is None:
        raise UnknownRun(f"unknown run {run_id!r}; the run_id of a version names its run")
    return run
