"""A web application on the services' server, in its own thread."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from ratchet.local_stack.ports import free_port
from shared.http.bounded_server import serve_in_thread, server_config


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an application while the body runs; yields its URL."""
    port = free_port()
    stop = serve_in_thread(server_config(app, shutdown_seconds=2), "127.0.0.1", port, "app")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
