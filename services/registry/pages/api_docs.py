"""The API for people to try: the OpenAPI document, shown by Swagger UI from files that the registry
itself serves.
"""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from services.registry.pages.rendering import Templates

PATH = "/docs"

_POLICY = {
    # Swagger UI puts its pictures into its style sheet, and styles into what it makes.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri "
    "'none'; "
    "object-src 'none'; form-action 'self'; frame-ancestors 'none'",
}


def routes(templates: Templates) -> APIRouter:
    """`/docs`, and `/redoc`, which leads there."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    async def show_api() -> Response:
        return templates.page("api.html", headers=_POLICY)

    @router.get("/redoc")
    async def show_api_otherwise() -> Response:
        return RedirectResponse(PATH, 308)

    return router
