"""Transport to the HTTP intake of the feedback service, for applications without Kafka access."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlsplit

from ratchet_client.event import FeedbackRecord
from ratchet_client.transport import RecordRefused, TransportUnavailable

PATH = "/v1/feedback"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: float
    problem: dict[str, Any]

    @property
    def reason(self) -> str:
        return f"the intake responds {self.status}: {self.problem.get('detail', '')}"


class HttpTransport:
    """Sends records over one persistent connection.

    `url` is the address of the feedback service, such as `http://host:8091`; `token` is an intake
    token.
    """

    def __init__(self, url: str, token: str | None, timeout: float = 15.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected a URL such as http://127.0.0.1:8091, found {url!r}")
        self._parts = parts
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        self._timeout = timeout
        self._connection: HTTPConnection | None = None

    async def send(self, records: Sequence[FeedbackRecord]) -> None:
        body = b"[" + b",".join(record.value for record in records) + b"]"
        # Detached while in use: a cancelled request leaves a thread behind that uses it.
        connection, self._connection = self._connection or self._connect(), None
        try:
            answer = await asyncio.to_thread(self._post, body, connection)
        except asyncio.CancelledError:
            _abort(connection)
            raise
        except (OSError, HTTPException) as error:
            connection.close()
            raise TransportUnavailable(f"the intake does not respond: {error!r}") from error
        self._connection = connection
        if answer.status == 202:
            return
        if answer.status == 413 and len(records) > 1:
            await self._send_halves(records)
            return
        index = 0 if len(records) == 1 else answer.problem.get("index")
        if answer.status in (413, 422) and isinstance(index, int) and 0 <= index < len(records):
            raise RecordRefused(index, answer.reason)
        raise TransportUnavailable(answer.reason, answer.retry_after)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _send_halves(self, records: Sequence[FeedbackRecord]) -> None:
        """Split a request that exceeds the intake's size limit."""
        half = len(records) // 2
        await self.send(records[:half])
        try:
            await self.send(records[half:])
        except RecordRefused as error:
            raise RecordRefused(half + error.index, str(error)) from error

    def _post(self, body: bytes, connection: HTTPConnection) -> _Answer:
        if connection.sock is not None:
            # The server may have closed the idle connection; then retry on a new one.
            with suppress(OSError, HTTPException):
                return self._ask(body, connection)
            connection.close()
        return self._ask(body, connection)

    def _ask(self, body: bytes, connection: HTTPConnection) -> _Answer:
        connection.request("POST", self._parts.path.rstrip("/") + PATH, body, self._headers)
        response = connection.getresponse()
        body = response.read()
        return _Answer(response.status, _seconds(response.getheader("Retry-After")), _problem(body))

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        assert self._parts.hostname
        return kind(self._parts.hostname, self._parts.port, timeout=self._timeout)


def _abort(connection: HTTPConnection) -> None:
    """Interrupt another thread's request on a connection, without a reconnect."""
    connection.auto_open = 0
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(SHUT_RDWR)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0
