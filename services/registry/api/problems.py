"""Errors of the API as problem details (RFC 9457); each detail says what to do."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from services.registry.api.authorization import Forbidden, Unauthenticated
from services.registry.api.etag import PreconditionFailed
from services.registry.api.idempotency import KeyInUse, KeyReused
from services.registry.api.pagination import UnknownCursor
from services.registry.api.schemas import CurrentAliases
from services.registry.comparisons import UnknownComparison
from services.registry.lifecycle import IllegalMove
from services.registry.store.database import UnstorableValue
from services.registry.training_controls import RunControlRefused, UnknownRun
from services.registry.training_requests import (
    TrainingRequestRefused,
    UnknownTrainingRequest,
    UploadTooLarge,
)
from services.registry.versions.moves import AdapterRemoved, NoMoveTarget, UnknownVersion
from shared.errors import RatchetError, Unavailable, UnknownModel
from shared.http.problem_details import PROBLEM_JSON, ProblemDetails


class AmbiguousVersion(RatchetError):
    """Several models have a version of this name."""


class Problem(BaseModel):
    """Problem details (RFC 9457): `title` names the kind of problem, `detail` says what to do about
    this one.
    """

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = Field(description="the path of the request")
    current: CurrentAliases | None = Field(None, description="with 412: the current aliases")


_KINDS: tuple[tuple[type[RatchetError], int, str], ...] = (
    (Unauthenticated, 401, "unauthenticated"),
    (Forbidden, 403, "forbidden"),
    (UnknownModel, 404, "unknown model"),
    (UnknownVersion, 404, "unknown version"),
    (UnknownRun, 404, "unknown run"),
    (UnknownComparison, 404, "unknown comparison"),
    (UnknownTrainingRequest, 404, "unknown training request"),
    (NoMoveTarget, 409, "no version to move to"),
    (AdapterRemoved, 409, "adapter removed"),
    (AmbiguousVersion, 409, "ambiguous name"),
    (IllegalMove, 409, "move not allowed"),
    (RunControlRefused, 409, "run not in a state for this"),
    (KeyInUse, 409, "idempotency key in use"),
    (PreconditionFailed, 412, "precondition failed"),
    (UploadTooLarge, 413, "upload too large"),
    (KeyReused, 422, "idempotency key used for another request"),
    (UnknownCursor, 422, "unknown cursor"),
    (TrainingRequestRefused, 422, "training request refused"),
    (UnstorableValue, 422, "value not storable"),
    (Unavailable, 503, "unavailable"),
)

_MEANINGS: Mapping[int, str] = {
    401: "No token, or an invalid one",
    403: "The token may only read, or a browser posts from another site's page",
    404: "Not responses",
    409: "Conflict with the current state, or an idempotency key in use",
    412: "The aliases have changed since the ETag in `If-Match`; `current` has their values",
    413: "The file has more bytes than the limit",
    422: "The request is invalid, or its idempotency key was used for another request",
    503: "The database is unavailable",
}


def install(app: FastAPI) -> None:
    """Return every error of an application as problem details."""

    @app.exception_handler(RatchetError)
    async def ratchet_error(request: Request, error: RatchetError) -> Response:
        status, title = status_of(error)
        detail = (
            f"{error}; GET /api/models lists the declared models"
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
    async def invalid_request(request: Request, error: RequestValidationError) -> Response:
        return problem_response(
            request,
            422,
            "invalid request",
            f"{validation_summary(error)}; /docs describes the request",
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}; /docs lists the paths"
        return problem_response(
            request, error.status_code, str(error.detail).lower(), detail, error.headers
        )

    @app.exception_handler(Exception)
    async def unexpected_error(request: Request, error: Exception) -> Response:
        """Hide the error: the server logs it."""
        return problem_response(
            request,
            500,
            "internal error",
            "a bug in the registry; its log has the error",
        )


def status_of(error: RatchetError) -> tuple[int, str]:
    """Return the HTTP status and the title of an error."""
    return next(
        ((code, title) for kind, code, title in _KINDS if isinstance(error, kind)),
        (500, type(error).__name__),
    )


def validation_summary(error: RequestValidationError) -> str:
    """Return the invalid fields of a request with their errors."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


def problem_response(
    request: Request,
    status: int,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    current: CurrentAliases | None = None,
) -> Response:
    """Build the response for an error, with the path of the request as its instance. The audit log
    takes the problem of a refused request from `request.state.problem`.
    """
    request.state.problem = f"{title}: {detail}"
    members = {
        "instance": request.url.path,
        "current": current.model_dump(mode="json") if current is not None else None,
    }
    body = ProblemDetails(status, title, detail, members).body
    return Response(body, status, headers, media_type=PROBLEM_JSON)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for the problems of a route; `add_problem_schema` adds their
    schema.
    """
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": _MEANINGS[status], "content": content} for status in statuses
    }
    for status, name, meaning in (
        (401, "WWW-Authenticate", "the authentication scheme"),
        (412, "ETag", "the entity tag of the current aliases"),
    ):
        if status in responses:
            responses[status]["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}}
            }
    return responses | {"default": {"description": "Any other problem", "content": content}}


def add_problem_schema(document: dict[str, Any]) -> None:
    """Add the schema of problems to an OpenAPI document."""
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
