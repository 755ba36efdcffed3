"""A move of the champion by hand: what answers now, what would answer, and afterwards what came of
it.
"""

from collections.abc import Sequence
from typing import Literal

from services.registry.api.views import View, version_view
from services.registry.lifecycle import ALLOWED_MOVES, apply_move
from services.registry.pages.scores import with_scores
from services.registry.store.database import Session
from services.registry.store.queries import (
    aliases_of,
    champion_moves,
    deployments_of,
    lock_aliases,
    rewards_by_version,
    to_aliases,
    versions_of,
    was_verified,
)
from services.registry.store.tables import VersionRow
from services.registry.versions.moves import UnknownVersion, require_version
from shared.errors import RatchetError

MoveKind = Literal["roll_back", "promote"]

_LIMIT = 200


class ChampionChanged(RatchetError):
    """The champion is no longer the one that a person decided about."""


def require_champion(session: Session, model: str, seen: str) -> None:
    """Hold a model's aliases until the transaction ends. Raises MovedMeanwhile unless `seen` is the
    champion.
    """
    row = lock_aliases(session, model)
    if row is None or row.champion != seen:
        answers = row.champion if row else "nothing"
        raise ChampionChanged(
            f"{answers} answers since you looked, no longer {seen}. Look at what would change now."
        )


def move_confirmation_view(
    session: Session, model: str, kind: MoveKind, to: str | None, places: Sequence[str]
) -> View:
    """What a person decides about: `now` answers, `then` would, and `others` could. `then` is None
    when there is nothing to move to unless one of the others is named. Raises UnknownVersion,
    IllegalMove.
    """
    row = aliases_of(session, model)
    if row is None or row.champion is None:
        raise UnknownVersion(f"{model} has no version yet")
    aliases = to_aliases(row)
    target = to or (aliases.previous if kind == "roll_back" else aliases.challenger)
    if target is not None:
        require_version(session, model, target)
        apply_move(aliases, kind, target)
    names = [version.name for version in versions_of(session, model)]
    return {
        "model": model,
        "now": _known(session, require_version(session, model, row.champion), places),
        "then": _known(session, require_version(session, model, target), places)
        if target
        else None,
        "others": [
            name
            for name in names
            if name != target and aliases.status_of(name) in ALLOWED_MOVES[kind]
        ],
        "places": places,
    }


def move_result_view(
    session: Session, model: str, number: int, places: Sequence[str]
) -> View | None:
    """What came of the champion's move `number`: since when its version answers at each place, or
    what is in the way; None for a move that was not made. `overtaken` names what the champion moved
    on to before.
    """
    row, moves = aliases_of(session, model), champion_moves(session, model)
    if row is None or not 1 <= number <= len(moves):
        return None
    decided = moves[number - 1]
    newest_first = [
        deployment
        for deployment in deployments_of(session, model, _LIMIT)
        if deployment.move == number
    ]
    at = []
    for place in places:
        rows = [deployment for deployment in reversed(newest_first) if deployment.target == place]
        done = next((deployment for deployment in rows if deployment.state == "deployed"), None)
        failed = rows[-1] if rows and done is None else None
        seconds = (done.at - decided.at).total_seconds() if done else None
        at.append(
            {"place": place, "seconds": seconds, "problem": failed.reason if failed else None}
        )
    return {
        "number": number,
        "action": decided.action,
        "version": decided.to_version,
        "origin": decided.from_version,
        "reason": decided.reason,
        "at": at,
        "answers": all(each["seconds"] is not None for each in at),
        "slowest": max((each["seconds"] or 0.0 for each in at), default=0.0),
        "overtaken": row.champion if row.move != number else None,
    }


def _known(session: Session, version: VersionRow, places: Sequence[str]) -> View:
    """A version in short, and at which places its very bytes have answered as they should."""
    digest = version.merged_digest
    verified = [
        place
        for place in places
        if digest and was_verified(session, version.model, place, version.name, digest)
    ]
    return {
        **with_scores(version_view(session, version), rewards_by_version(session, version.model)),
        "verified": verified,
    }
