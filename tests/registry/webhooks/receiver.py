"""A receiver of webhooks over real HTTP, which answers as a test says."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.app_server import serving


@dataclass
class Message:
    """A received message."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with `status`; hangs for 30 seconds while `hangs`."""

    url: str = ""
    status: int = 204
    hangs: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    async def receive(self, request: Request) -> Response:
        self.messages.append(Message(dict(request.headers), await request.body()))
        if self.hangs:
            await asyncio.sleep(30)
        return Response(status_code=self.status, headers=self.headers)

    @property
    def ids(self) -> list[str]:
        return [message.headers["webhook-id"] for message in self.messages]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/{path:path}", receiver.receive, methods=["POST", "GET"])])
    with serving(app) as receiver.url:
        yield receiver
