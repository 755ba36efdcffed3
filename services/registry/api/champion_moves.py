"""A move that somebody asks for over HTTP: made once, if the aliases are those that were expected;
the answer says what came of it.
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
    """A move of the champion, and the answer that was given if it was made earlier."""

    origin: str | None
    to: str
    move: int
    answer: Json | None = None


async def move_champion(
    registry: Registry,
    model: str,
    decide: Decide,
    if_match: str | None,
    asked: IdempotentRequest | None,
) -> View:
    """The answer, when every target serves the version, or after ten seconds; `deployed` says
    which.

    Raises Overtaken, KeyReused, KeyInUse, and what `decide` raises.
    """
    began = registry.clock.monotonic()

    def once(session: Session, now: datetime) -> tuple[MoveEvent | None, _Decided]:
        if asked and (row := find_key(session, asked, now)):
            return None, _Decided(row.from_version, row.to_version, row.move, row.answer)
        if if_match is not None:
            require_match(session, model, if_match)
        event, number = decide(session, now)
        origin = event.previous if isinstance(event, VersionPromoted) else event.from_version
        if asked:
            store_key(session, asked, model, origin, event.version, number, now)
        return event, _Decided(origin, event.version, number)

    _, decided = await registry.decide(once)
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
    if asked:
        await registry.database.run(lambda session: store_response(session, asked, answer))
    return answer
