"""Liveness, readiness and metrics over HTTP, for services without a web server of their own.

`/healthz` returns 200 while the service makes progress or is idle, `/readyz` while it accepts work,
`/metrics` is for Prometheus.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from shared.observability.health import Health

StartResponse = Callable[..., Any]


def serve_health(
    health: Health, registry: CollectorRegistry, host: str, port: int
) -> Callable[[], None]:
    """Serve the three paths from a thread; return a function that stops it. Raises OSError when the
    port is in use.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            response: Iterable[bytes] = metrics(environ, start_response)
            return response
        is_ok = {"/healthz": health.is_live, "/readyz": health.is_ready}.get(path)
        status = (
            "404 Not Found" if is_ok is None else "200 OK" if is_ok else "503 Service Unavailable"
        )
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode() + b"\n"]

    server = make_server(
        host, port, app, server_class=_HealthServer, handler_class=_SilentRequestHandler
    )
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="health", daemon=True
    )
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class _HealthServer(WSGIServer):
    allow_reuse_address = True


class _SilentRequestHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes arrive every few seconds."""
