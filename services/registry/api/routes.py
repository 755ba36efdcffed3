"""The registry's HTTP application for programs."""

from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from services.registry.api import (
    authorization,
    holds,
    move_routes,
    problems,
    read_routes,
    routing,
)
from services.registry.api.audit import routes as audit_routes
from services.registry.api.audit.refusals import RefusalAudit
from services.registry.api.training import pauses, run_controls
from services.registry.app import Registry
from shared.observability.health import Health


def build(
    registry: Registry,
    health: Health,
    metrics: CollectorRegistry,
    tokens: authorization.TokensProvider,
    require_tokens: bool = False,
) -> FastAPI:
    """Build the FastAPI application of a registry. With `require_tokens`, requests from its own
    machine need a token as well.
    """
    app = FastAPI(
        title="Ratchet registry",
        summary="Model versions: their origin, evaluation, aliases and deployments",
        # FastAPI's own pages load scripts from other hosts; `shared.http.api_docs` has local ones.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    authorization.install(app, tokens, require_tokens)
    app.add_middleware(RefusalAudit, registry=registry)
    app.include_router(read_routes.routes(registry))
    app.include_router(move_routes.routes(registry))
    app.include_router(holds.routes(registry))
    app.include_router(pauses.routes(registry))
    app.include_router(run_controls.routes(registry))
    app.include_router(routing.routes(registry))
    app.include_router(audit_routes.routes(registry))
    app.include_router(_probes(health, metrics))
    default_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = default_openapi()
        problems.add_problem_schema(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual does
    return app


def _probes(health: Health, metrics: CollectorRegistry) -> APIRouter:
    router = APIRouter(default_response_class=PlainTextResponse)
    probe: Any = {
        "responses": {
            503: {
                "description": "Not live or not ready",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        }
    }

    @router.get("/healthz", **probe)
    async def healthz() -> Response:
        return _probe_response(health.is_live)

    @router.get("/readyz", **probe)
    async def readyz() -> Response:
        return _probe_response(health.is_ready)

    @router.get("/metrics")
    def get_metrics() -> Response:  # in a worker thread: it reads disk usage
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return router


def _probe_response(healthy: bool) -> Response:
    return (
        PlainTextResponse("200 OK\n")
        if healthy
        else PlainTextResponse("503 Service Unavailable\n", 503)
    )
