"""Liveness, readiness and metrics over HTTP, for services that have no web server of their own.

`/healthz` answers 200 while the service makes progress or has nothing to do, `/readyz` once it
takes work, `/metrics` for Prometheus.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from shared.clock import Clock


class Health:
    """What a service knows of its own state. Progress is reported by the loop that does the work."""

    def __init__(
        self, clock: Clock, stalled_after: float = 60.0, recovered_after: float = 600.0
    ) -> None:
        self._clock = clock
        self._stalled_after = stalled_after
        self._recovered_after = recovered_after
        self._ready = False
        self._recovering = False
        self._progress = clock.monotonic()
        self._busy = False

    def ready(self, is_ready: bool = True) -> None:
        self._ready = is_ready
        was_recovering, self._recovering = self._recovering, False
        self.progressed(busy=was_recovering)

    def recovering(self) -> None:
        """No work is taken until `ready`. That may last longer than a stall, but not for ever,
        however often it begins anew.
        """
        self._ready = False
        if not self._recovering:
            self.progressed(busy=True)
            self._recovering = True

    def progressed(self, busy: bool = False, ago: float = 0.0) -> None:
        """Something was done, `ago` seconds before now; `busy` when silence from then on means a
        stall. While recovering, nothing is progress but the end of it.
        """
        if not self._recovering:
            self._progress = self._clock.monotonic() - ago
            self._busy = busy

    @property
    def stalled_seconds(self) -> float:
        """How long there has been no progress although there is work to do, or how long the
        recovery has lasted.
        """
        return self._clock.monotonic() - self._progress if self._busy else 0.0

    @property
    def is_recovering(self) -> bool:
        return self._recovering

    @property
    def is_ready(self) -> bool:
        return self._ready and self.is_live

    @property
    def is_live(self) -> bool:
        bound = self._recovered_after if self._recovering else self._stalled_after
        return self.stalled_seconds <= bound


StartResponse = Callable[..., Any]


def serve_health(
    health: Health, registry: CollectorRegistry, host: str, port: int
) -> Callable[[], None]:
    """Serve the three paths from a thread; returns a function that stops it. Raises OSError when
    the port is taken.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        good = {"/healthz": health.is_live, "/readyz": health.is_ready}.get(path)
        status = (
            "404 Not Found" if good is None else "200 OK" if good else "503 Service Unavailable"
        )
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode() + b"\n"]

    server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="health", daemon=True
    )
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class _Server(WSGIServer):
    allow_reuse_address = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; a line for each would drown the log."""
