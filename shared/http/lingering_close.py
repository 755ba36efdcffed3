"""ASGI middleware that answers a request early without losing the answer.

A server that closes a connection with unread data in its receive buffer resets it, and the client
may lose an answer that was already sent (RFC 9112, section 9.6). So when the application answers
before it has read the whole body, this middleware sends the answer at once, then reads and drops
the rest within bounds, and only then lets the server close the connection.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 2.0
MAX_DRAINED_BYTES = 16 << 20


class LingeringClose:
    """Wraps an application; see the module's docstring."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        unread = True

        async def tracking_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            if not unread:
                await send(message)
            elif message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                await send({**message, "headers": headers})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _drain(receive)
                await send({"type": "http.response.body"})

        await self._app(scope, tracking_receive, lingering_send)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


async def _drain(receive: Receive) -> None:
    """Drop the rest of a body, up to its end, the disconnect or a bound."""
    drained = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while drained < MAX_DRAINED_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
