"""The HTTP server of every service: uvicorn with bounded connections.

uvicorn has no setting for the time in which a request must arrive, for the number of open
connections, or for the status of a malformed request. `BoundedProtocol` adds these three.
"""

import asyncio
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from threading import Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from shared.http.body_limit import BodyLimit
from shared.http.lingering_close import LingeringClose
from shared.http.problem_details import PROBLEM_JSON, ProblemDetails

MAX_CONNECTIONS = 1000
ARRIVAL_SECONDS = 30.0
BYTES_PER_SECOND = 256 << 10
MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 64 << 10
LINGER_SECONDS = 2.0
OPEN_FILES = 4096
"""Open files that a process with a server asks for: its connections, and all else."""

SHUTDOWN_SECONDS = 5
BACKLOG = 2048

Stop = Callable[[], None]


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with three more bounds.

    - A connection beyond `MAX_CONNECTIONS` replaces the oldest connection without a request so
      far; without any such, it is answered 503 and closed. So silent connections cannot keep
      probes out.
    - A connection is closed if the head of a request, or then its body, takes longer than
      `ARRIVAL_SECONDS` to arrive, or if no next request arrives in that time. A body has one more
      second for every `BYTES_PER_SECOND` of it that have arrived.
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
        if len(self.connections) > MAX_CONNECTIONS and not self._replace_silent():
            detail = "too many connections; try again in a second"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, detail, "Retry-After: 1\r\n")
            transport.close()
        else:
            self._await_next_part()
            self._check_deadline()

    def _replace_silent(self) -> bool:
        """Close the connection that has waited longest for its first request; False if none has."""
        silent = [
            connection
            for connection in self.connections
            if isinstance(connection, BoundedProtocol)
            and connection is not self
            and connection.cycle is None
            and connection._deadline is not None
            and not connection.transport.is_closing()
        ]
        if not silent:
            return False
        min(silent, key=lambda connection: connection._deadline or 0).transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._await_next_part()
            if self._deadline is not None and self._awaited and self._awaited[1] == "body":
                self._deadline += len(data) / BYTES_PER_SECOND

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
        with suppress(OSError):  # the client may have gone
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


def server_config(
    app: ASGIApp,
    *,
    max_body_bytes: int | None = MAX_BODY_BYTES,
    shutdown_seconds: int = SHUTDOWN_SECONDS,
    date_header: bool = True,
    streams_body: Callable[[Scope], bool] | None = None,
) -> uvicorn.Config:
    """Return the configuration of a server that leaves logging to the process and trusts no proxy
    headers. At its stop it waits for the requests in flight, at most `shutdown_seconds`. With
    `max_body_bytes` None, the application itself bounds what it reads; so it does for the requests
    that `streams_body` names.
    """
    bounded = app if max_body_bytes is None else BodyLimit(app, max_body_bytes, streams_body)
    return uvicorn.Config(
        LingeringClose(bounded),
        loop="asyncio",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=date_header,
        timeout_keep_alive=int(ARRIVAL_SECONDS),
        timeout_graceful_shutdown=shutdown_seconds,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )


def serve_in_thread(config: uvicorn.Config, host: str, port: int, name: str) -> Stop:
    """Serve from a thread, with an event loop of its own. Raises OSError when the port is taken.

    Returns a function that stops the server.
    """
    server, sockets = uvicorn.Server(config), listen(host, port)
    thread = Thread(target=server.run, args=(sockets,), name=name, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    return stop


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of `host`. uvicorn itself would end the process when the port is
    taken.
    """
    _raise_open_files_limit()
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
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from error
    return sockets


def _raise_open_files_limit() -> None:
    """Raise the process's limit to `OPEN_FILES`, or to the hard limit if that is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
