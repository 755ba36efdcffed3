"""What the retention rule needs to know, and what it removed, in the database.

A removal is decided in the transaction that looks at the aliases, before an object goes: from then
on nothing can be promoted or rolled back to that version. That its objects are gone is a row of its
own, so that a removal which was cut off is found and finished.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.registry.handlers import ENDED
from services.registry.retention.rule import InUse, Judged, Stored
from services.registry.store.queries import aliases_of, versions_of
from services.registry.store.tables import AuditRow, Removal, RemovalDone, Run
from shared.storage.adapters import MANIFEST, folder_of

ACTOR = "retention"

_CHAMPIONS = ("found", "promote", "roll_back")
"""The moves that make a version champion, and the one before it no longer."""


def stored_adapters(session: Session, model: str) -> list[Stored]:
    """The adapters that the runs of a model left and that were not removed, newest run first. Where
    a run has no version, the place of its adapter follows from its id; there may be none there.
    """
    removed = set(session.scalars(select(Removal.run_id).where(Removal.model == model)))
    versions = {version.run_id: version for version in versions_of(session, model)}
    runs = session.scalars(
        select(Run).where(Run.model == model).order_by(Run.started_at.desc(), Run.run_id)
    )
    found = []
    for run in runs:
        version = versions.get(run.run_id)
        uri = version.adapter_uri if version else f"{folder_of(model, run.run_id)}/{MANIFEST}"
        if run.run_id not in removed and uri is not None:
            found.append(
                Stored(
                    run.run_id,
                    version.name if version else None,
                    uri,
                    run.updated_at if run.state in ENDED else None,
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


def record(
    session: Session, model: str, going: Sequence[Judged], reason: str, now: datetime
) -> None:
    """Write down that adapters go, for programs and in the history."""
    if not going:
        return
    for judged in going:
        stored = judged.stored
        session.add(
            Removal(
                run_id=stored.run_id,
                model=model,
                version=stored.version,
                uri=stored.uri,
                reason=reason,
                at=now,
            )
        )
    versions = [judged.stored.version for judged in going if judged.stored.version is not None]
    candidates = [judged.stored.run_id for judged in going if judged.stored.version is None]
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


def unfinished(session: Session, model: str) -> Sequence[Removal]:
    """Removals that were decided and whose objects may still be there, oldest first."""
    done = select(RemovalDone.run_id)
    return session.scalars(
        select(Removal)
        .where(Removal.model == model, Removal.run_id.not_in(done))
        .order_by(Removal.at)
    ).all()


def finish(session: Session, run_id: str, objects: int, now: datetime) -> None:
    """The objects of a removal are gone; `objects` were there."""
    session.add(RemovalDone(run_id=run_id, objects=objects, at=now))
