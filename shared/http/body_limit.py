"""ASGI middleware that bounds request bodies: a longer one is answered 413, at most the bound is
kept in memory.
"""

from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problem_details import PROBLEM_JSON, ProblemDetails


class BodyLimit:
    """Passes a request on once its whole body has arrived, if it has at most `max_bytes`."""

    def __init__(
        self, app: ASGIApp, max_bytes: int, streams: Callable[[Scope], bool] | None = None
    ) -> None:
        """`streams` names the requests whose body the application itself reads and bounds."""
        self._app = app
        self._max_bytes = max_bytes
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._streams is not None and self._streams(scope)):
            await self._app(scope, receive, send)
            return
        if self._declared_bytes(scope) > self._max_bytes:
            await self._refuse(send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await self._refuse(send)
                return
        whole: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def receive_whole() -> Message:
            nonlocal whole
            message, whole = whole, None
            return await receive() if message is None else message

        await self._app(scope, receive_whole, send)

    @staticmethod
    def _declared_bytes(scope: Scope) -> int:
        """Return the declared length; the server has checked that it is a number."""
        return int(dict(scope["headers"]).get(b"content-length", b"0"))

    async def _refuse(self, send: Send) -> None:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        detail = f"the body is too long; the limit is {self._max_bytes} bytes"
        headers = [(b"content-type", PROBLEM_JSON.encode())]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        body = ProblemDetails(status, status.phrase, detail).body
        await send({"type": "http.response.body", "body": body})
