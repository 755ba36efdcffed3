"""Liveness, readiness and metrics over HTTP.

`/healthz` returns 200 while the service makes progress or is idle, `/readyz` while it accepts work,
`/metrics` is for Prometheus.
"""

from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.http.bounded_server import Stop, serve_in_thread, server_config
from shared.observability.health import Health


def serve_health(health: Health, registry: CollectorRegistry, host: str, port: int) -> Stop:
    """Serve the three paths from a thread, for a service without a web server of its own; return a
    function that stops it. Raises OSError when the port is in use.
    """
    app = Starlette(routes=health_routes(health, registry))
    return serve_in_thread(server_config(app, date_header=False), host, port, "health")


def health_routes(health: Health, registry: CollectorRegistry) -> list[Route]:
    """Return the routes of the three paths."""

    async def healthz(request: Request) -> Response:
        return _probe_response(health.is_live)

    async def readyz(request: Request) -> Response:
        return _probe_response(health.is_ready)

    def metrics(request: Request) -> Response:  # in a worker thread: it reads disk usage
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def _probe_response(passed: bool) -> Response:
    status = HTTPStatus.OK if passed else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(f"{status.value} {status.phrase}\n", status, media_type="text/plain")
