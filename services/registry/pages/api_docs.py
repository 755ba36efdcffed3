"""Interactive API documentation: Swagger UI on the OpenAPI document, from local files."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from services.registry.pages.rendering import Templates

PATH = "/docs"

_POLICY = {
    # Swagger UI has images in its style sheet and inline styles in its elements.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
}


def routes(templates: Templates) -> APIRouter:
    """Routes for `/docs`, and for `/redoc`, which redirects to it."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    async def show_api() -> Response:
        return templates.page("api.html", headers=_POLICY)

    @router.get("/redoc")
    async def redirect_redoc() -> Response:
        return RedirectResponse(PATH, 308)

    return router
