"""Interactive API documentation of a server: Swagger UI on its OpenAPI document, from local files.

The page and its files hold nothing of the server, so they need no token.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

PATH = "/docs"

_FOLDER = Path(__file__).parent
_FILES = f"{PATH}/files"

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API – Ratchet</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{_FILES}/swagger-ui.css">
<script src="{_FILES}/swagger-ui-bundle.js" defer></script>
<script src="{_FILES}/api.js" defer></script>
</head>
<body>
<main id="api"><noscript>This page needs JavaScript. It shows the OpenAPI document \
<a href="/openapi.json">/openapi.json</a>.</noscript></main>
</body>
</html>
"""

_HEADERS = {
    # Swagger UI has images in its style sheet and inline styles in its elements.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def api_docs_routes() -> list[BaseRoute]:
    """Return the routes of the page at `/docs`, of its files, and of `/redoc`, which redirects."""
    return [
        Mount(_FILES, StaticFiles(directory=_FOLDER / "files")),
        Route(PATH, _show_api),
        Route("/redoc", _redirect_redoc),
    ]


async def _show_api(request: Request) -> HTMLResponse:
    return HTMLResponse(_PAGE, headers=_HEADERS)


async def _redirect_redoc(request: Request) -> RedirectResponse:
    return RedirectResponse(PATH, 308)
