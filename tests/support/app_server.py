"""A web application on the services' server, in its own thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Scope

from ratchet.local_stack.ports import free_port
from shared.http.bounded_server import serve_in_thread, server_config


@contextmanager
def serving(app: ASGIApp, streams_body: Callable[[Scope], bool] | None = None) -> Iterator[str]:
    """Serve an application while the body runs; yields its URL."""
    port = free_port()
    config = server_config(app, shutdown_seconds=2, streams_body=streams_body)
    stop = serve_in_thread(config, "127.0.0.1", port, "app")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
