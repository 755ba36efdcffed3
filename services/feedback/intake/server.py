"""The intake's HTTP server: uvicorn in a thread of its own, with bounded connections.

uvicorn has no setting for the time in which a request must arrive, for the number of open
connections, or for the status of a malformed request. `BoundedProtocol` adds these three.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from threading import Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from shared.http.problem_details import PROBLEM_JSON, ProblemDetails

MAX_CONNECTIONS = 1000
ARRIVAL_SECONDS = 30.0
MAX_HEAD_BYTES = 16 << 10
LINGER_SECONDS = 2.0
SHUTDOWN_SECONDS = 5
BACKLOG = 2048

Stop = Callable[[], None]


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with three more bounds.

    - A connection beyond `MAX_CONNECTIONS` is answered 503 and closed.
    - A connection is closed if the head of a request, or then its body, takes longer than
      `ARRIVAL_SECONDS` to arrive, or if no next request arrives in that time.
    - A malformed request is answered with problem details: 400, or 431 if its head is too large.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._awaited: tuple[object, str] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False

    # asyncio types the parameter as BaseTransport; a server connection always has a Transport.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            detail = "too many connections; try again in a second"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, detail, "Retry-After: 1\r\n")
            transport.close()
        else:
            self._await_next_part()
            self._check_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._await_next_part()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_next_part()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request. uvicorn calls this while it handles h11's error."""
        error = sys.exception()
        cycle = self._current_cycle
        started = False
        if cycle is not None and not cycle.response_complete:
            started = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
        if started:
            self.transport.close()
        else:
            status = HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))
            self._refuse(status, f"the request is not valid HTTP/1.1: {error}")

    @property
    def _current_cycle(self) -> RequestResponseCycle | None:
        """The last request and its response; None before the first request."""
        return self.cycle

    def _refuse(self, status: HTTPStatus, detail: str, headers: str = "") -> None:
        """Answer without the application; close once the client had time to read the answer."""
        self._refused = True
        body = ProblemDetails(status, status.phrase, detail).body
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {PROBLEM_JSON}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        # An immediate close with unread data would reset the connection and lose the answer.
        self.transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _await_next_part(self) -> None:
        """Set the deadline of the part of a request that has to arrive next, if any."""
        cycle = self._current_cycle
        awaited: tuple[object, str] | None
        if cycle is None or cycle.response_complete:
            awaited = cycle, "head"
        else:
            awaited = (cycle, "body") if cycle.more_body else None
        if awaited != self._awaited:
            self._awaited = awaited
            self._deadline = None if awaited is None else self.loop.time() + ARRIVAL_SECONDS

    def _check_deadline(self) -> None:
        # One timer for each connection, which reads the deadline, is cheaper than two for each
        # request.
        now = self.loop.time()
        if self._deadline is not None and now >= self._deadline:
            self.transport.close()
        else:
            next_check = self._deadline or now + ARRIVAL_SECONDS
            self._timer = self.loop.call_at(next_check, self._check_deadline)


def intake_server(app: ASGIApp) -> uvicorn.Server:
    """Build a server that leaves logging to the process and trusts no proxy headers."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(ARRIVAL_SECONDS),
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
    )


def start_intake(app: ASGIApp, host: str, port: int) -> Stop:
    """Serve from a thread, with an event loop of its own. Raises OSError when the port is taken.

    Returns a function that stops the server: it waits for the requests in flight, at most
    `SHUTDOWN_SECONDS`.
    """
    server, sockets = intake_server(app), listen(host, port)
    thread = Thread(target=server.run, args=(sockets,), name="intake", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    return stop


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of `host`. uvicorn itself would end the process when the port is
    taken.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # With its protocol: asyncio sets TCP_NODELAY only on sockets that name theirs.
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets
