"""Errors over HTTP: problem details (RFC 9457), each saying what to do."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from services.registry.lifecycle import IllegalMove
from services.registry.moves import NothingToMoveTo, UnknownVersion
from services.registry.store.database import Unstorable
from shared.errors import RatchetError, Unavailable, UnknownModel

PROBLEM_JSON = "application/problem+json"


class UnknownRun(RatchetError):
    """No run of this name has been heard of."""


class Ambiguous(RatchetError):
    """Several things have this name."""


_KINDS: tuple[tuple[type[RatchetError], int, str], ...] = (
    (UnknownModel, 404, "unknown model"),
    (UnknownVersion, 404, "unknown version"),
    (UnknownRun, 404, "unknown run"),
    (NothingToMoveTo, 409, "nothing to move to"),
    (Ambiguous, 409, "ambiguous name"),
    (IllegalMove, 409, "move not allowed"),
    (Unstorable, 422, "not storable"),
    (Unavailable, 503, "not available at present"),
)


def install(app: FastAPI) -> None:
    """Let every error of an application be answered as problem details."""

    @app.exception_handler(RatchetError)
    async def known(request: Request, error: RatchetError) -> JSONResponse:
        status, title = status_of(error)
        detail = f"{error}; GET /api/models lists what is declared" if isinstance(error, UnknownModel) else str(error)
        return problem(request, status, title, detail)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(request, 422, "invalid request", f"{faults_of(error)}; /docs has the form")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request, error.status_code, str(error.detail).lower(), f"{request.method} {request.url.path}; /docs lists the paths")


def status_of(error: RatchetError) -> tuple[int, str]:
    """The HTTP status of an error, and what it is called."""
    return next(((code, title) for kind, code, title in _KINDS if isinstance(error, kind)), (500, type(error).__name__))


def faults_of(error: RequestValidationError) -> str:
    """Which fields of a request are wrong, and how."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


def problem(request: Request, status: int, title: str, detail: str) -> JSONResponse:
    """One problem, with the path that it happened on."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": request.url.path}
    return JSONResponse(body, status, media_type=PROBLEM_JSON)
