"""Error pages: the error, and a link to continue."""

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

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def page_route_class(templates: Templates) -> type[APIRoute]:
    """Return a route class whose errors are rendered as pages."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def handle_errors(request: Request) -> Response:
                try:
                    return await handle(request)
                except Unauthenticated:
                    if not _wants_html(request):
                        raise
                    return redirect_to_sign_in(request)
                except (RatchetError, RequestValidationError, HTTPException) as error:
                    return _page(templates, request, error)

            return handle_errors

    return PageRoute


def install_error_pages(app: FastAPI, templates: Templates) -> None:
    """Render unknown paths as pages for browsers, and keep problem details for programs."""
    default_handler = app.exception_handlers[HTTPException]

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if _wants_html(request) and not request.url.path.startswith("/api/"):
            return _page(templates, request, error)
        response = default_handler(request, error)
        return await response if isawaitable(response) else response


def _wants_html(request: Request) -> bool:
    """Return whether the client accepts HTML, as browsers do."""
    return "text/html" in request.headers.get("accept", "")


def _page(
    templates: Templates,
    request: Request,
    error: RatchetError | RequestValidationError | HTTPException,
) -> Response:
    status, title, detail, headers = _describe(request, error)
    request.state.problem = f"{title}: {detail}"
    model = None if isinstance(error, UnknownModel) else request.path_params.get("model")
    retryable = isinstance(error, Unavailable)
    return templates.page(
        "error.html",
        status,
        headers,
        code=status,
        title=title,
        detail=detail,
        model=model,
        retryable=retryable,
    )


def _describe(
    request: Request, error: RatchetError | RequestValidationError | HTTPException
) -> tuple[int, str, str, dict[str, str] | None]:
    """Return the status, title, detail and headers of an error."""
    if isinstance(error, RequestValidationError):
        return 422, "invalid request", validation_summary(error), None
    if isinstance(error, HTTPException):
        if error.status_code == 404 and error.detail == "Not Found":
            return 404, "page not found", f"There is no page at {request.url.path}.", None
        return error.status_code, "request failed", str(error.detail), dict(error.headers or {})
    status, title = status_of(error)
    # The clauses after the first are for API clients.
    return status, title, str(error).partition("; ")[0], None
