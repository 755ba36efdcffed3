"""Alias moves: each changes the alias row and the audit in one transaction, and returns the event
for the outbox.
"""

from datetime import datetime

from services.registry.lifecycle import Aliases, AliasMove, apply_move
from services.registry.store.audit_chain import append_entry
from services.registry.store.audit_queries import operator_of
from services.registry.store.database import Session
from services.registry.store.queries import (
    adapter_of,
    adapter_removal_of,
    delete_canary_trial,
    lock_aliases,
    to_aliases,
    version_of,
)
from services.registry.store.tables import (
    AliasRow,
    AuditRow,
    Json,
    VersionRow,
)
from shared.errors import RatchetError
from shared.events import VersionPromoted, VersionRolledBack
from shared.identity import identity


class UnknownVersion(RatchetError):
    """The model has no version of this name."""


class NoMoveTarget(RatchetError):
    """The request names no version, and the alias that is the default is not set."""


class AdapterRemoved(RatchetError):
    """The version cannot be served: its adapter was removed from the object store."""


def move_aliases(
    session: Session,
    kind: AliasMove,
    version: VersionRow,
    actor: str,
    reason: str,
    evidence: Json,
    now: datetime,
    is_new: bool = False,
) -> Aliases:
    """Move a model's aliases, audit the move, and return the previous aliases.

    A canary trial ends when its champion or its challenger changes. Raises IllegalMove.
    """
    row = lock_aliases(session, version.model)
    if row is None:
        row = AliasRow(model=version.model, champion=None, previous=None, challenger=None, move=0)
        session.add(row)
    before = to_aliases(row)
    after = apply_move(before, kind, version.name, is_new)
    row.champion, row.previous, row.challenger = after.champion, after.previous, after.challenger
    row.move += after.champion != before.champion
    append_entry(
        session,
        AuditRow(
            model=version.model,
            at=now,
            actor=actor,
            operator=operator_of(session),
            action=kind,
            from_version=before.champion,
            to_version=version.name,
            reason=reason,
            evidence=evidence,
        ),
    )
    if (after.champion, after.challenger) != (before.champion, before.challenger):
        delete_canary_trial(session, version.model)
    return before


def promote(
    session: Session,
    version: VersionRow,
    actor: str,
    reason: str,
    evidence: Json,
    now: datetime,
    cause: str,
) -> VersionPromoted:
    """Make a version champion. `cause` identifies the reason of the move, so a repeated decision
    has the same event id.
    """
    before = move_aliases(session, "promote", version, actor, reason, evidence, now)
    return VersionPromoted(
        event_id=identity("promoted", version.model, version.name, cause),
        occurred_at=now,
        model=version.model,
        version=version.name,
        previous=before.champion,
        adapter=adapter_of(version),
        run_id=version.run_id,
        actor=actor,
        reason=reason,
    )


def promote_by_operator(
    session: Session, model: str, name: str | None, reason: str, now: datetime
) -> tuple[VersionPromoted, int]:
    """Promote the version `name`, by default the challenger, for an operator. Returns the event and
    the number of the champion's move.
    """
    row = _aliases(session, model)
    target = name or row.challenger
    if target is None:
        raise NoMoveTarget(f"{model} has no challenger; name the version to promote")
    version = _require_adapter(session, require_version(session, model, target))
    event = promote(session, version, "operator", reason, {}, now, f"move {row.move + 1}")
    return event, row.move


def roll_back(
    session: Session,
    model: str,
    to: str | None,
    reason: str,
    actor: str,
    now: datetime,
    evidence: Json | None = None,
) -> tuple[VersionRolledBack, int]:
    """Make an earlier or later version champion, by default `previous`. Returns the event and the
    number of the champion's move.
    """
    row = _aliases(session, model)
    target = to or row.previous
    if target is None:
        raise NoMoveTarget(f"{model} has no previous version; name the version to roll back to")
    version = _require_adapter(session, require_version(session, model, target))
    before = move_aliases(session, "roll_back", version, actor, reason, evidence or {}, now)
    assert before.champion is not None
    event = VersionRolledBack(
        event_id=identity("rolled back", model, version.name, row.move),
        occurred_at=now,
        model=model,
        version=version.name,
        from_version=before.champion,
        adapter=adapter_of(version),
        actor=actor,
        reason=reason,
    )
    return event, row.move


def require_version(session: Session, model: str, name: str) -> VersionRow:
    """Return a version. Raises UnknownVersion."""
    version = version_of(session, model, name)
    if version is None:
        raise UnknownVersion(
            f"{model} has no version {name!r}; GET /api/models/{model}/versions lists them"
        )
    return version


def _require_adapter(session: Session, version: VersionRow) -> VersionRow:
    """Return the version if its adapter still exists. Raises AdapterRemoved."""
    removal = adapter_removal_of(session, version.run_id)
    if removal is not None:
        raise AdapterRemoved(
            f"the adapter of {version.name} was removed on {removal.at:%Y-%m-%d} "
            f"({removal.reason}), so it cannot be served again; choose a version without "
            f"removed_at from GET /api/models/{version.model}/versions"
        )
    return version


def _aliases(session: Session, model: str) -> AliasRow:
    row = lock_aliases(session, model)
    if row is None:
        raise UnknownVersion(f"{model} has no version yet")
    return row
