"""Views of a manual champion move: its confirmation and its result."""

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
    """The champion changed after the confirmation page was shown."""


def require_champion(session: Session, model: str, seen: str) -> None:
    """Lock a model's aliases until the transaction ends. Raises ChampionChanged unless `seen` is
    the champion.
    """
    row = lock_aliases(session, model)
    if row is None or row.champion != seen:
        champion = row.champion if row else "no version"
        raise ChampionChanged(
            f"{champion} is the champion now, no longer {seen}. Check the change again."
        )


def move_confirmation_view(
    session: Session, model: str, kind: MoveKind, to: str | None, targets: Sequence[str]
) -> View:
    """Return the `current` and the `new` champion, and the `others` that can be selected. `new` is
    None without a default version. Raises UnknownVersion or IllegalMove.
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
        "current": _version_view(session, require_version(session, model, row.champion), targets),
        "new": _version_view(session, require_version(session, model, target), targets)
        if target
        else None,
        "others": [
            name
            for name in names
            if name != target and aliases.status_of(name) in ALLOWED_MOVES[kind]
        ],
        "targets": targets,
    }


def move_result_view(
    session: Session, model: str, number: int, targets: Sequence[str]
) -> View | None:
    """Return the result of the champion's move `number`, None for an unknown one: for each target,
    the seconds until its version was deployed, or the problem. `overtaken` is the current champion
    after a later move.
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
    results = []
    for target in targets:
        rows = [deployment for deployment in reversed(newest_first) if deployment.target == target]
        deployed = next((deployment for deployment in rows if deployment.state == "deployed"), None)
        failed = rows[-1] if rows and deployed is None else None
        seconds = (deployed.at - decided.at).total_seconds() if deployed else None
        results.append(
            {"target": target, "seconds": seconds, "problem": failed.reason if failed else None}
        )
    return {
        "number": number,
        "action": decided.action,
        "version": decided.to_version,
        "origin": decided.from_version,
        "reason": decided.reason,
        "targets": results,
        "serving": all(row["seconds"] is not None for row in results),
        "slowest": max((row["seconds"] or 0.0 for row in results), default=0.0),
        "overtaken": row.champion if row.move != number else None,
    }


def _version_view(session: Session, version: VersionRow, targets: Sequence[str]) -> View:
    """Return a version with the targets on which its file passed verification."""
    digest = version.merged_digest
    verified = [
        target
        for target in targets
        if digest and was_verified(session, version.model, target, version.name, digest)
    ]
    return {
        **with_scores(version_view(session, version), rewards_by_version(session, version.model)),
        "verified": verified,
    }
