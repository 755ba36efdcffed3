"""Errors as pages: what is the matter, and where to go from there."""

from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from services.registry.api.authorization import Unauthenticated
from services.registry.api.problems import status_of, validation_summary
from services.registry.pages.rendering import Templates
from services.registry.pages.sign_in import redirect_to_sign_in
from shared.errors import RatchetError, Unavailable, UnknownModel

Answer = Callable[[Request], Coroutine[Any, Any, Response]]


def page_route_class(templates: Templates) -> type[APIRoute]:
    """A kind of route whose errors are answered as pages."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Answer:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except Unauthenticated:
                    if not _is_for_people(request):
                        raise
                    return redirect_to_sign_in(request)
                except (RatchetError, RequestValidationError, HTTPException) as error:
                    return _page(templates, request, error)

            return answer

    return PageRoute


def install_error_pages(app: FastAPI, templates: Templates) -> None:
    """Answer people who ask for a path that is none with a page, and programs as before."""
    otherwise = app.exception_handlers[HTTPException]

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if _is_for_people(request) and not request.url.path.startswith("/api/"):
            return _page(templates, request, error)
        answer = otherwise(request, error)
        return await answer if isawaitable(answer) else answer


def _is_for_people(request: Request) -> bool:
    """Whether a browser asks for a page, and not a program for an answer."""
    return "text/html" in request.headers.get("accept", "")


def _page(
    templates: Templates,
    request: Request,
    error: RatchetError | RequestValidationError | HTTPException,
) -> Response:
    status, title, detail, headers = _told(request, error)
    model = None if isinstance(error, UnknownModel) else request.path_params.get("model")
    again = isinstance(error, Unavailable)
    return templates.page(
        "error.html",
        status,
        headers,
        code=status,
        title=title,
        detail=detail,
        model=model,
        again=again,
    )


def _told(
    request: Request, error: RatchetError | RequestValidationError | HTTPException
) -> tuple[int, str, str, dict[str, str] | None]:
    """Status, title, what is the matter, and headers that have to go with it."""
    if isinstance(error, RequestValidationError):
        return 422, "invalid request", validation_summary(error), None
    if isinstance(error, HTTPException):
        if error.status_code == 404 and error.detail == "Not Found":
            return 404, "no such page", f"There is no page at {request.url.path}.", None
        return error.status_code, "not possible", str(error.detail), dict(error.headers or {})
    status, title = status_of(error)
    # What follows the first clause tells programs which path to ask.
    return status, title, str(error).partition("; ")[0], None
