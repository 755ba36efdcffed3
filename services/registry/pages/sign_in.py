"""Browser sign-in: stores the token in a cookie that scripts cannot read."""

from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.registry.api.authorization import (
    COOKIE,
    Forbidden,
    InvalidToken,
    grant_of,
    is_same_origin,
)
from services.registry.pages.forms import form_of
from services.registry.pages.rendering import HEADERS, Templates

PATH = "/sign-in"


def routes(templates: Templates) -> APIRouter:
    """Routes for `/sign-in` and `/sign-out`."""
    router = APIRouter(include_in_schema=False)

    def page(
        onward: str, problem: str = "", status: int = 200, headers: dict[str, str] | None = None
    ) -> HTMLResponse:
        return templates.page("sign-in.html", status, headers, onward=onward, problem=problem)

    @router.get(PATH)
    async def show_sign_in(onward: str = "/") -> Response:
        return page(safe_path(onward))

    @router.post(PATH)
    async def sign_in(request: Request) -> Response:
        _require_own_page(request)
        form = await form_of(request)
        token, onward = form.get("token", "").strip(), safe_path(form.get("onward", "/"))
        if grant_of(request, token) is None:
            return page(
                onward,
                "This token is not valid here.",
                401,
                {"WWW-Authenticate": InvalidToken.challenge},
            )
        response = RedirectResponse(onward, 303, headers=HEADERS)
        response.set_cookie(COOKIE, token, **_cookie_options(request))
        return response

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        _require_own_page(request)
        response = RedirectResponse(PATH, 303, headers=HEADERS)
        response.delete_cookie(COOKIE, **_cookie_options(request))
        return response

    return router


def redirect_to_sign_in(request: Request) -> Response:
    """Redirect to the sign-in page, which then redirects back to the request."""
    onward = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{PATH}?onward={quote(onward, safe='')}", 303)


def safe_path(path: str) -> str:
    """Return a path of this registry, `/` for anything that leads to another host."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    is_path = (
        path.startswith("/")
        and not path.startswith("//")
        and path.isprintable()
        and "\\" not in path
    )
    return path if is_path and not parts.scheme and not parts.netloc else "/"


def _require_own_page(request: Request) -> None:
    if not is_same_origin(request):
        raise Forbidden(
            "this form is accepted from the registry's own pages only; programs send "
            "`Authorization: Bearer <token>`"
        )


def _cookie_options(request: Request) -> dict[str, Any]:
    """Return the options of the sign-in cookie. TLS may end before the registry, so the `Origin`
    decides on `Secure`.
    """
    return {
        "httponly": True,
        "samesite": "strict",
        "secure": request.headers.get("origin", "").startswith("https://"),
    }
