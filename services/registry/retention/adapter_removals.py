"""What the retention rule needs to know, and what it removed, in the database.

A removal is decided in the transaction that looks at the aliases, before an object goes: from then
on nothing can be promoted or rolled back to that version. That its objects are gone is a row of its
own, so that a removal which was cut off is found and finished.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select

from services.registry.handlers import FINAL_STATES
from services.registry.retention.rule import InUse, RetentionDecision, StoredAdapter
from services.registry.store.database import Session
from services.registry.store.queries import aliases_of, versions_of
from services.registry.store.tables import (
    AdapterRemovalDoneRow,
    AdapterRemovalRow,
    AuditRow,
    RunRow,
)
from shared.storage.adapters import MANIFEST, adapter_folder

ACTOR = "retention"

_CHAMPIONS = ("found", "promote", "roll_back")
"""The moves that make a version champion, and the one before it no longer."""


def stored_adapters(session: Session, model: str) -> list[StoredAdapter]:
    """The adapters that the runs of a model left and that were not removed, newest run first. Where
    a run has no version, the place of its adapter follows from its id; there may be none there.
    """
    removed = set(
        session.scalars(select(AdapterRemovalRow.run_id).where(AdapterRemovalRow.model == model))
    )
    versions = {version.run_id: version for version in versions_of(session, model)}
    runs = session.scalars(
        select(RunRow)
        .where(RunRow.model == model)
        .order_by(RunRow.started_at.desc(), RunRow.run_id)
    )
    found = []
    for run in runs:
        version = versions.get(run.run_id)
        uri = version.adapter_uri if version else f"{adapter_folder(model, run.run_id)}/{MANIFEST}"
        if run.run_id not in removed and uri is not None:
            found.append(
                StoredAdapter(
                    run.run_id,
                    version.name if version else None,
                    uri,
                    run.updated_at if run.state in FINAL_STATES else None,
                )
            )
    return found


def in_use(session: Session, model: str, served: Mapping[str, Collection[str]]) -> InUse:
    """What refers to versions of a model; `served` is what targets were seen to serve."""
    row = aliases_of(session, model)
    aliases = {
        alias: named
        for alias in ("champion", "previous", "challenger")
        if row and (named := getattr(row, alias))
    }
    moves = select(AuditRow.from_version, AuditRow.to_version).where(
        AuditRow.model == model, AuditRow.action.in_(_CHAMPIONS)
    )
    champions = {name for move in session.execute(moves) for name in move if name is not None}
    return InUse(aliases, served, champions)


def record_removals(
    session: Session, model: str, decisions: Sequence[RetentionDecision], reason: str, now: datetime
) -> None:
    """Write down that adapters go, for programs and in the history."""
    if not decisions:
        return
    for judged in decisions:
        stored = judged.stored
        session.add(
            AdapterRemovalRow(
                run_id=stored.run_id,
                model=model,
                version=stored.version,
                uri=stored.uri,
                reason=reason,
                at=now,
            )
        )
    versions = [judged.stored.version for judged in decisions if judged.stored.version is not None]
    candidates = [judged.stored.run_id for judged in decisions if judged.stored.version is None]
    session.add(
        AuditRow(
            model=model,
            at=now,
            actor=ACTOR,
            action="remove",
            from_version=None,
            to_version=None,
            reason=f"the adapters of {len(versions)} versions and {len(candidates)} candidates that "
            f"became none are removed: {reason}",
            evidence={"versions": versions, "runs": candidates},
        )
    )
    session.flush()


def pending_removals(session: Session, model: str) -> Sequence[AdapterRemovalRow]:
    """Removals that were decided and whose objects may still be there, oldest first."""
    done = select(AdapterRemovalDoneRow.run_id)
    return session.scalars(
        select(AdapterRemovalRow)
        .where(AdapterRemovalRow.model == model, AdapterRemovalRow.run_id.not_in(done))
        .order_by(AdapterRemovalRow.at)
    ).all()


def mark_removed(session: Session, run_id: str, objects: int, now: datetime) -> None:
    """The objects of a removal are gone; `objects` were there."""
    session.add(AdapterRemovalDoneRow(run_id=run_id, objects=objects, at=now))
