"""Errors over HTTP: problem details (RFC 9457), each saying what to do."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from services.registry.api.authorization import Forbidden, Unauthenticated
from services.registry.api.etag import PreconditionFailed
from services.registry.api.idempotency import KeyInUse, KeyReused
from services.registry.api.pagination import UnknownCursor
from services.registry.api.schemas import CurrentAliases
from services.registry.lifecycle import IllegalMove
from services.registry.store.database import UnstorableValue
from services.registry.versions.moves import AdapterRemoved, NoMoveTarget, UnknownVersion
from shared.errors import RatchetError, Unavailable, UnknownModel

PROBLEM_JSON = "application/problem+json"


class UnknownRun(RatchetError):
    """No run of this name has been heard of."""


class AmbiguousVersion(RatchetError):
    """Several things have this name."""


class Problem(BaseModel):
    """What is the matter (RFC 9457): `title` names the kind of problem, `detail` says what to do
    about this one.
    """

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = Field(description="the path that was asked for")
    current: CurrentAliases | None = Field(
        None, description="with 412: what holds instead of what was expected"
    )


_KINDS: tuple[tuple[type[RatchetError], int, str], ...] = (
    (Unauthenticated, 401, "not signed in"),
    (Forbidden, 403, "not allowed"),
    (UnknownModel, 404, "unknown model"),
    (UnknownVersion, 404, "unknown version"),
    (UnknownRun, 404, "unknown run"),
    (NoMoveTarget, 409, "nothing to move to"),
    (AdapterRemoved, 409, "adapter removed"),
    (AmbiguousVersion, 409, "ambiguous name"),
    (IllegalMove, 409, "move not allowed"),
    (KeyInUse, 409, "idempotency key in use"),
    (PreconditionFailed, 412, "overtaken"),
    (KeyReused, 422, "idempotency key used for another request"),
    (UnknownCursor, 422, "unknown cursor"),
    (UnstorableValue, 422, "not storable"),
    (Unavailable, 503, "not available at present"),
)

_MEANINGS: Mapping[int, str] = {
    401: "No token, or one that is not valid",
    403: "The token may only read, or a browser posts from another site's page",
    404: "There is no such thing",
    409: "Not possible as things are, or an idempotency key that is in use",
    412: "The aliases are not those that `If-Match` names; `current` says what they are",
    422: "The request is not valid, or an idempotency key was used for another one",
    503: "The database does not answer at present",
}


def install(app: FastAPI) -> None:
    """Let every error of an application be answered as problem details."""

    @app.exception_handler(RatchetError)
    async def known(request: Request, error: RatchetError) -> JSONResponse:
        status, title = status_of(error)
        detail = (
            f"{error}; GET /api/models lists what is declared"
            if isinstance(error, UnknownModel)
            else str(error)
        )
        return problem_response(
            request,
            status,
            title,
            detail,
            _headers(error),
            current=error.current if isinstance(error, PreconditionFailed) else None,
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(
            request, 422, "invalid request", f"{validation_summary(error)}; /docs has the form"
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        detail = f"{request.method} {request.url.path}; /docs lists the paths"
        return problem_response(
            request, error.status_code, str(error.detail).lower(), detail, error.headers
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        """What happened is in the log, where the server writes it; it is nobody else's business."""
        return problem_response(
            request,
            500,
            "internal error",
            "this is a fault of the registry's; its log says what happened",
        )


def status_of(error: RatchetError) -> tuple[int, str]:
    """The HTTP status of an error, and what it is called."""
    return next(
        ((code, title) for kind, code, title in _KINDS if isinstance(error, kind)),
        (500, type(error).__name__),
    )


def validation_summary(error: RequestValidationError) -> str:
    """Which fields of a request are wrong, and how."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


def problem_response(
    request: Request,
    status: int,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    current: CurrentAliases | None = None,
) -> JSONResponse:
    """One problem, with the path that it happened on."""
    # Half a surrogate pair, which JSON lets a client name a field with, cannot be written.
    writable = detail.encode(errors="replace").decode()
    said = Problem(
        title=title, status=status, detail=writable, instance=request.url.path, current=current
    )
    return JSONResponse(
        said.model_dump(mode="json", exclude={"current"} if current is None else None),
        status,
        headers=headers,
        media_type=PROBLEM_JSON,
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for the OpenAPI document; `describe` puts
    `Problem` there.
    """
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _MEANINGS[status], "content": content} for status in statuses
    }
    for status, name, meaning in (
        (401, "WWW-Authenticate", "how to sign in"),
        (412, "ETag", "what the aliases are now"),
    ):
        if status in found:
            found[status]["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}}
            }
    return found | {"default": {"description": "Any other problem", "content": content}}


def add_problem_schema(document: dict[str, Any]) -> None:
    """Put the form of problems into an OpenAPI document."""
    schema = Problem.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= schema.pop("$defs", {})
    schemas["Problem"] = schema


def _headers(error: RatchetError) -> dict[str, str] | None:
    if isinstance(error, Unauthenticated | Forbidden):
        return {"WWW-Authenticate": error.challenge}
    if isinstance(error, PreconditionFailed):
        return {"ETag": error.current.etag}
    return {"Retry-After": "1"} if isinstance(error, KeyInUse | Unavailable) else None
