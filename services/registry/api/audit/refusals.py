"""Audit entries of refused requests: 403, 409 and 412, whenever the request had a valid token.

A request without a valid token (401) has no name, and anybody could fill the database with such
requests: it gets no entry.
"""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.registry.api.authorization import SAFE_METHODS, Caller
from services.registry.app import Registry
from shared.clock import Clock

AUDITED_STATUSES = frozenset({403, 409, 412})

MAX_PER_MINUTE = 60
"""Entries of refused requests that each replica writes in a minute."""


@dataclass(slots=True)
class RefusalLimit:
    """Limits the entries of a minute, and counts the requests that got none."""

    clock: Clock
    _since: float = float("-inf")
    _entries: int = 0
    _omitted: int = 0

    def allows(self) -> bool:
        """Return whether another entry may be written now."""
        now = self.clock.monotonic()
        if now - self._since >= 60:
            self._since, self._entries = now, 0
        self._entries += 1
        if self._entries <= MAX_PER_MINUTE:
            return True
        self._omitted += 1
        return False

    def take_omitted(self) -> int:
        """Return the number of requests without an entry since the last call."""
        omitted, self._omitted = self._omitted, 0
        return omitted


class RefusalAudit:
    """ASGI middleware that records refused requests before they are answered."""

    def __init__(self, app: ASGIApp, registry: Registry) -> None:
        self._app = app
        self._registry = registry
        self._limit = RefusalLimit(registry.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return

        async def record_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in AUDITED_STATUSES:
                await self._record(scope, message["status"])
            await send(message)

        await self._app(scope, receive, record_and_send)

    async def _record(self, scope: Scope, status: int) -> None:
        caller: Caller | None = scope.get("state", {}).get("caller")
        model = scope.get("path_params", {}).get("model")
        if caller is None or caller.anonymous or model not in self._registry.models.files:
            return
        if not self._limit.allows():
            return
        problem = scope.get("state", {}).get("problem") or HTTPStatus(status).phrase.lower()
        evidence = {"status": status, "method": scope["method"], "path": scope["path"]}
        if omitted := self._limit.take_omitted():
            evidence["omitted"] = omitted
        await self._registry.record_refusal(
            model=model,
            actor="operator" if caller.role == "operate" else "reader",
            operator=caller.name,
            reason=problem,
            evidence=evidence,
        )
