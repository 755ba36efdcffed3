"""What is asked of the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.registry.lifecycle import Aliases
from services.registry.store.tables import (
    AliasRow,
    AuditRow,
    Batch,
    Deployment,
    HoldRow,
    LeaseRow,
    LiveReward,
    OutboxRow,
    Removal,
    Run,
    RunPoint,
    TrialPlace,
    TrialRow,
    Version,
    WithdrawnExample,
)
from shared.events import Artefact


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What a version's answers earned in use: the mean of `count` rewards."""

    mean: float
    count: int


def rewards_by_version(session: Session, model: str) -> Mapping[str, Rewarded]:
    """What the answers of each of a model's versions earned in use, of those that any reward is
    kept of; in the order of first use.
    """
    rows = select(LiveReward.version, func.count(), func.avg(LiveReward.reward)).where(
        LiveReward.model == model
    )
    grouped = rows.group_by(LiveReward.version).order_by(func.min(LiveReward.id))
    return {
        version: Rewarded(float(mean), count) for version, count, mean in session.execute(grouped)
    }


def locked_aliases(session: Session, model: str) -> AliasRow | None:
    """The row of a model's aliases, locked until the transaction ends, so that changes to one model
    come one after the other.
    """
    return session.scalar(select(AliasRow).where(AliasRow.model == model).with_for_update())


def aliases_of(session: Session, model: str) -> AliasRow | None:
    return session.get(AliasRow, model)


def as_aliases(row: AliasRow) -> Aliases:
    return Aliases(row.champion, row.previous, row.challenger)


def version_of(session: Session, model: str, name: str) -> Version | None:
    return session.get(Version, (model, name))


def version_of_run(session: Session, run_id: str) -> Version | None:
    return session.scalar(select(Version).where(Version.run_id == run_id))


def versions_named(session: Session, name: str) -> Sequence[Version]:
    """Versions of this name, of whichever model."""
    return session.scalars(
        select(Version).where(Version.name == name).order_by(Version.model)
    ).all()


def versions_of(
    session: Session, model: str, before: int | None = None, limit: int | None = None
) -> Sequence[Version]:
    """Newest first; those with a number below `before`, at most `limit`."""
    rows = select(Version).where(Version.model == model)
    if before is not None:
        rows = rows.where(Version.number < before)
    return session.scalars(rows.order_by(Version.number.desc()).limit(limit)).all()


def count_versions(session: Session, model: str) -> int:
    return session.scalar(select(func.count()).where(Version.model == model)) or 0


def next_number(session: Session, model: str) -> int:
    newest = session.scalar(select(func.max(Version.number)).where(Version.model == model))
    return 0 if newest is None else newest + 1


def adapter_of(version: Version) -> Artefact | None:
    """Where a version's adapter lies; the base itself has none."""
    if version.adapter_uri is None or version.adapter_digest is None:
        return None
    return Artefact(uri=version.adapter_uri, digest=version.adapter_digest)


def removal_of(session: Session, run_id: str | None) -> Removal | None:
    """That of the adapter which a run left, if it was removed."""
    return session.get(Removal, run_id) if run_id is not None else None


def lineage_of(session: Session, version: Version) -> list[Version]:
    """A version and its parents, up to the base."""
    line = [version]
    while line[-1].parent is not None:
        parent = version_of(session, version.model, line[-1].parent)
        if parent is None or parent in line:
            break
        line.append(parent)
    return line


def batch_of(session: Session, batch_id: str) -> Batch | None:
    """A batch as it was announced; None for one that this registry has not heard of."""
    return session.get(Batch, batch_id)


def withdrawn_ids(session: Session, model: str) -> frozenset[str]:
    """The feedback ids of a model's examples that may not be used any more."""
    return frozenset(
        session.scalars(select(WithdrawnExample.feedback_id).where(WithdrawnExample.model == model))
    )


def runs_of(session: Session, model: str, limit: int) -> Sequence[Run]:
    """Newest first."""
    return session.scalars(
        select(Run)
        .where(Run.model == model)
        .order_by(Run.started_at.desc(), Run.run_id)
        .limit(limit)
    ).all()


def points_of(session: Session, run_id: str) -> Sequence[RunPoint]:
    return session.scalars(
        select(RunPoint).where(RunPoint.run_id == run_id).order_by(RunPoint.step)
    ).all()


def history_of(
    session: Session, model: str, limit: int, before: int | None = None
) -> Sequence[AuditRow]:
    """Newest first; those that were written before the row of an id."""
    rows = select(AuditRow).where(AuditRow.model == model)
    if before is not None:
        rows = rows.where(AuditRow.id < before)
    return session.scalars(rows.order_by(AuditRow.id.desc()).limit(limit)).all()


def hold_of(session: Session, model: str) -> HoldRow | None:
    """Since when and why nothing but a person moves a model's champion; None where that is not so."""
    return session.get(HoldRow, model)


def trial_of(session: Session, model: str) -> TrialRow | None:
    """The challenger that is on trial; None where none is."""
    return session.get(TrialRow, model)


def places_of_trial(session: Session, trial: TrialRow) -> Sequence[TrialPlace]:
    """Where a challenger was brought to, or could not be."""
    rows = select(TrialPlace).where(
        TrialPlace.model == trial.model, TrialPlace.version == trial.version
    )
    return session.scalars(rows.order_by(TrialPlace.target)).all()


def champion_moves(session: Session, model: str) -> Sequence[AuditRow]:
    """The decisions that moved the champion, oldest first: the n-th is the move that an alias row
    counts as n.
    """
    rows = select(AuditRow).where(
        AuditRow.model == model, AuditRow.action.in_(("found", "promote", "roll_back"))
    )
    return session.scalars(rows.order_by(AuditRow.id)).all()


def deployments_of(session: Session, model: str, limit: int) -> Sequence[Deployment]:
    """Newest first."""
    return session.scalars(
        select(Deployment)
        .where(Deployment.model == model)
        .order_by(Deployment.id.desc())
        .limit(limit)
    ).all()


def deployments_of_version(session: Session, model: str, version: str) -> Sequence[Deployment]:
    """Oldest first."""
    return session.scalars(
        select(Deployment)
        .where(Deployment.model == model, Deployment.version == version)
        .order_by(Deployment.id)
    ).all()


def newest_deployment(session: Session, model: str, target: str) -> Deployment | None:
    """The newest attempt, however it went."""
    rows = select(Deployment).where(Deployment.model == model, Deployment.target == target)
    return session.scalar(rows.order_by(Deployment.id.desc()).limit(1))


def was_verified(session: Session, model: str, target: str, version: str, digest: str) -> bool:
    """Whether these very bytes have answered at this target as they should, as champion or on
    trial.
    """
    place = session.get(TrialPlace, (model, version, target))
    if place is not None and (place.state, place.digest) == ("ready", digest):
        return True
    rows = select(Deployment.id).where(
        Deployment.model == model, Deployment.target == target, Deployment.version == version
    )
    return (
        session.scalar(
            rows.where(Deployment.digest == digest, Deployment.state == "deployed").limit(1)
        )
        is not None
    )


def attempts(session: Session, model: str, target: str, move: int) -> int:
    """How often a move of the champion was carried out, or tried, at a target."""
    rows = select(func.count()).where(
        Deployment.model == model, Deployment.target == target, Deployment.move == move
    )
    return session.scalar(rows) or 0


def waiting(session: Session, limit: int) -> Sequence[OutboxRow]:
    """Events to publish, in order."""
    return session.scalars(
        select(OutboxRow)
        .where(OutboxRow.published_at.is_(None))
        .order_by(OutboxRow.id)
        .limit(limit)
    ).all()


def locked_lease(session: Session, name: str) -> LeaseRow | None:
    """A lease, locked until the transaction ends."""
    return session.scalar(select(LeaseRow).where(LeaseRow.name == name).with_for_update())


def all_aliases(session: Session) -> Sequence[AliasRow]:
    """Those of every model that has a version."""
    return session.scalars(select(AliasRow)).all()


def deployed_moves(session: Session, model: str) -> dict[str, int]:
    """The champion's newest move that each target was seen to carry out."""
    rows = select(Deployment.target, func.max(Deployment.move)).where(
        Deployment.model == model, Deployment.state == "deployed"
    )
    return {row.target: row[1] for row in session.execute(rows.group_by(Deployment.target))}


def deployed_versions(session: Session, model: str) -> dict[str, str]:
    """The version that each target was last seen to have switched to."""
    newest = (
        select(func.max(Deployment.id))
        .where(Deployment.model == model, Deployment.state == "deployed")
        .group_by(Deployment.target)
    )
    rows = session.scalars(select(Deployment).where(Deployment.id.in_(newest)))
    return {row.target: row.version for row in rows}
