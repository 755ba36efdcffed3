"""Champion moves requested over HTTP: made once per idempotency key, and only while the aliases
match `If-Match`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.registry.api.etag import require_match
from services.registry.api.idempotency import IdempotentRequest, find_key, store_key, store_response
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.store.database import Session
from services.registry.store.tables import Json
from shared.events import VersionPromoted, VersionRolledBack

DEPLOY_WAIT_SECONDS = 10.0

MoveEvent = VersionPromoted | VersionRolledBack
Decide = Callable[[Session, datetime], tuple[MoveEvent, int]]


@dataclass(frozen=True, slots=True)
class _Decided:
    """A move of the champion, with its response if it was made by an earlier request."""

    origin: str | None
    to: str
    move: int
    answer: Json | None = None


async def move_champion(
    registry: Registry,
    model: str,
    decide: Decide,
    if_match: str | None,
    request: IdempotentRequest | None,
    operator: str | None,
) -> View:
    """Move the champion for an operator. Return the response when every target serves the version,
    or after ten seconds; `deployed` says which.

    Raises PreconditionFailed, KeyReused, KeyInUse, and the errors of `decide`.
    """
    began = registry.clock.monotonic()

    def once(session: Session, now: datetime) -> tuple[MoveEvent | None, _Decided]:
        if request and (row := find_key(session, request, now)):
            return None, _Decided(row.from_version, row.to_version, row.move, row.answer)
        if if_match is not None:
            require_match(session, model, if_match)
        event, number = decide(session, now)
        origin = event.previous if isinstance(event, VersionPromoted) else event.from_version
        if request:
            store_key(session, request, model, origin, event.version, number, now)
        return event, _Decided(origin, event.version, number)

    _, decided = await registry.decide(once, operator)
    if decided.answer is not None:
        return decided.answer
    deployed = await registry.deployer.wait_until_deployed(model, decided.move, DEPLOY_WAIT_SECONDS)
    seconds = round(registry.clock.monotonic() - began, 3)
    answer: View = {
        "from": decided.origin,
        "to": decided.to,
        "deployed": deployed,
        "seconds": seconds,
    }
    if request:
        await registry.database.run(lambda session: store_response(session, request, answer))
    return answer
