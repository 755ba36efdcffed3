"""Connections: HTTP/1.1 with keep-alive, by h11, over asyncio's streams. Bounded: in number, in the
time that a request takes to arrive, in the size of heads, and in that of bodies by the application.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import h11

from services.feedback.intake.responses import IntakeProblem, IntakeResponse

MOST_CONNECTIONS = 1000
ARRIVES_SECONDS = 30.0
LARGEST_HEAD = 16 << 10
PIECE = 64 << 10

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: "
    b"0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None


class Application(Protocol):
    """Answers requests."""

    def admitted(self, head: RequestHead) -> AbstractContextManager[int]:
        """Entered before the body is read and left after the answer is made: how many bytes of body
        are read. Raises Problem.
        """

    async def answer(self, head: RequestHead, body: bytes) -> IntakeResponse:
        """Raises Problem."""


class Connections:
    """The connections of a server; `serve` is what asyncio calls for each."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._open = 0
        self._busy = 0

    async def answered(self, seconds: float) -> None:
        """Wait until no request is under way, but not longer than that."""
        for _ in range(int(seconds / 0.02)):
            if not self._busy:
                return
            await asyncio.sleep(0.02)

    @contextmanager
    def answering(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MOST_CONNECTIONS:
                writer.write(_FULL)
                await writer.drain()
            else:
                await _Connection(self._app, self, reader, writer).run()
        except (TimeoutError, ConnectionError):
            pass  # whoever asked is gone, or is too slow
        finally:
            self._open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class _Connection:
    def __init__(
        self,
        app: Application,
        all_of_them: Connections,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._app = app
        self._all = all_of_them
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        peer = writer.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else None

    async def run(self) -> None:
        """Answer one request after the other, until either side has enough."""
        try:
            while True:
                request = await self._next()
                if not isinstance(request, h11.Request):
                    return
                with self._all.answering():
                    await self._say(
                        await self._answer(request), with_body=request.method != b"HEAD"
                    )
                if self._protocol.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    # Closed at once, what is still on its way here would make the other side lose
                    # the answer.
                    await self._discard()
                    return
                self._protocol.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                status = HTTPStatus(error.error_status_hint)
                await self._say(
                    IntakeProblem(
                        status, f"this is no HTTP/1.1: {error}", {"Connection": "close"}
                    ).response()
                )

    async def _answer(self, request: h11.Request) -> IntakeResponse:
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        path = request.target.decode("ascii").partition("?")[0]
        head = RequestHead(request.method.decode("ascii"), path, headers, self._peer)
        try:
            with self._app.admitted(head) as most:
                # In all, not for each piece: meanwhile nobody else has the room that this body was
                # given.
                async with asyncio.timeout(ARRIVES_SECONDS):
                    body = await self._body(most)
                return await self._app.answer(head, body)
        except IntakeProblem as problem:
            return problem.response()

    async def _body(self, most: int) -> bytes:
        body = bytearray()
        if self._protocol.they_are_waiting_for_100_continue:
            self._writer.write(
                self._protocol.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
            )
        while isinstance(event := await self._next(), h11.Data):
            body += event.data
            if len(body) > most:
                raise IntakeProblem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the body is too long; at most {most} bytes",
                    {"Connection": "close"},
                )
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError
        return bytes(body)

    async def _say(self, answer: IntakeResponse, with_body: bool = True) -> None:
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **answer.headers,
        }
        if self._protocol.their_state is h11.SEND_BODY:
            headers["Connection"] = "close"
        reason = HTTPStatus(answer.status).phrase.encode()
        response = h11.Response(
            status_code=answer.status, reason=reason, headers=list(headers.items())
        )
        for event in (
            response,
            h11.Data(data=answer.body if with_body else b""),
            h11.EndOfMessage(),
        ):
            self._writer.write(self._protocol.send(event) or b"")
        await self._writer.drain()

    async def _next(self) -> object:
        async with asyncio.timeout(ARRIVES_SECONDS):
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(PIECE))
        return event

    async def _discard(self, pieces: int = 256) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(2):
            while pieces and await self._reader.read(PIECE):
                pieces -= 1
