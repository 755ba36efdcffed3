"""What is asked of the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.registry.lifecycle import Aliases
from services.registry.store.tables import (
    AdapterRemovalRow,
    AliasRow,
    AuditRow,
    BatchRow,
    CanaryTargetRow,
    CanaryTrialRow,
    DeploymentRow,
    HoldRow,
    LeaseRow,
    LiveRewardRow,
    OutboxRow,
    RunPointRow,
    RunRow,
    VersionRow,
    WithdrawnExampleRow,
)
from shared.events import Artefact


@dataclass(frozen=True, slots=True)
class MeanReward:
    """What a version's answers earned in use: the mean of `count` rewards."""

    mean: float
    count: int


def rewards_by_version(session: Session, model: str) -> Mapping[str, MeanReward]:
    """What the answers of each of a model's versions earned in use, of those that any reward is
    kept of; in the order of first use.
    """
    rows = select(LiveRewardRow.version, func.count(), func.avg(LiveRewardRow.reward)).where(
        LiveRewardRow.model == model
    )
    grouped = rows.group_by(LiveRewardRow.version).order_by(func.min(LiveRewardRow.id))
    return {
        version: MeanReward(float(mean), count) for version, count, mean in session.execute(grouped)
    }


def lock_aliases(session: Session, model: str) -> AliasRow | None:
    """The row of a model's aliases, locked until the transaction ends, so that changes to one model
    come one after the other.
    """
    return session.scalar(select(AliasRow).where(AliasRow.model == model).with_for_update())


def aliases_of(session: Session, model: str) -> AliasRow | None:
    return session.get(AliasRow, model)


def to_aliases(row: AliasRow) -> Aliases:
    return Aliases(row.champion, row.previous, row.challenger)


def version_of(session: Session, model: str, name: str) -> VersionRow | None:
    return session.get(VersionRow, (model, name))


def version_of_run(session: Session, run_id: str) -> VersionRow | None:
    return session.scalar(select(VersionRow).where(VersionRow.run_id == run_id))


def versions_by_name(session: Session, name: str) -> Sequence[VersionRow]:
    """Versions of this name, of whichever model."""
    return session.scalars(
        select(VersionRow).where(VersionRow.name == name).order_by(VersionRow.model)
    ).all()


def versions_of(
    session: Session, model: str, before: int | None = None, limit: int | None = None
) -> Sequence[VersionRow]:
    """Newest first; those with a number below `before`, at most `limit`."""
    rows = select(VersionRow).where(VersionRow.model == model)
    if before is not None:
        rows = rows.where(VersionRow.number < before)
    return session.scalars(rows.order_by(VersionRow.number.desc()).limit(limit)).all()


def count_versions(session: Session, model: str) -> int:
    return session.scalar(select(func.count()).where(VersionRow.model == model)) or 0


def next_number(session: Session, model: str) -> int:
    newest = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.model == model))
    return 0 if newest is None else newest + 1


def adapter_of(version: VersionRow) -> Artefact | None:
    """Where a version's adapter lies; the base itself has none."""
    if version.adapter_uri is None or version.adapter_digest is None:
        return None
    return Artefact(uri=version.adapter_uri, digest=version.adapter_digest)


def adapter_removal_of(session: Session, run_id: str | None) -> AdapterRemovalRow | None:
    """That of the adapter which a run left, if it was removed."""
    return session.get(AdapterRemovalRow, run_id) if run_id is not None else None


def lineage_of(session: Session, version: VersionRow) -> list[VersionRow]:
    """A version and its parents, up to the base."""
    line = [version]
    while line[-1].parent is not None:
        parent = version_of(session, version.model, line[-1].parent)
        if parent is None or parent in line:
            break
        line.append(parent)
    return line


def batch_of(session: Session, batch_id: str) -> BatchRow | None:
    """A batch as it was announced; None for one that this registry has not heard of."""
    return session.get(BatchRow, batch_id)


def withdrawn_feedback_ids(session: Session, model: str) -> frozenset[str]:
    """The feedback ids of a model's examples that may not be used any more."""
    return frozenset(
        session.scalars(
            select(WithdrawnExampleRow.feedback_id).where(WithdrawnExampleRow.model == model)
        )
    )


def runs_of(session: Session, model: str, limit: int) -> Sequence[RunRow]:
    """Newest first."""
    return session.scalars(
        select(RunRow)
        .where(RunRow.model == model)
        .order_by(RunRow.started_at.desc(), RunRow.run_id)
        .limit(limit)
    ).all()


def points_of(session: Session, run_id: str) -> Sequence[RunPointRow]:
    return session.scalars(
        select(RunPointRow).where(RunPointRow.run_id == run_id).order_by(RunPointRow.step)
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


def canary_trial_of(session: Session, model: str) -> CanaryTrialRow | None:
    """The challenger that is on trial; None where none is."""
    return session.get(CanaryTrialRow, model)


def canary_targets_of(session: Session, trial: CanaryTrialRow) -> Sequence[CanaryTargetRow]:
    """Where a challenger was brought to, or could not be."""
    rows = select(CanaryTargetRow).where(
        CanaryTargetRow.model == trial.model, CanaryTargetRow.version == trial.version
    )
    return session.scalars(rows.order_by(CanaryTargetRow.target)).all()


def champion_moves(session: Session, model: str) -> Sequence[AuditRow]:
    """The decisions that moved the champion, oldest first: the n-th is the move that an alias row
    counts as n.
    """
    rows = select(AuditRow).where(
        AuditRow.model == model, AuditRow.action.in_(("found", "promote", "roll_back"))
    )
    return session.scalars(rows.order_by(AuditRow.id)).all()


def deployments_of(session: Session, model: str, limit: int) -> Sequence[DeploymentRow]:
    """Newest first."""
    return session.scalars(
        select(DeploymentRow)
        .where(DeploymentRow.model == model)
        .order_by(DeploymentRow.id.desc())
        .limit(limit)
    ).all()


def deployments_of_version(session: Session, model: str, version: str) -> Sequence[DeploymentRow]:
    """Oldest first."""
    return session.scalars(
        select(DeploymentRow)
        .where(DeploymentRow.model == model, DeploymentRow.version == version)
        .order_by(DeploymentRow.id)
    ).all()


def newest_deployment(session: Session, model: str, target: str) -> DeploymentRow | None:
    """The newest attempt, however it went."""
    rows = select(DeploymentRow).where(DeploymentRow.model == model, DeploymentRow.target == target)
    return session.scalar(rows.order_by(DeploymentRow.id.desc()).limit(1))


def was_verified(session: Session, model: str, target: str, version: str, digest: str) -> bool:
    """Whether these very bytes have answered at this target as they should, as champion or on
    trial.
    """
    place = session.get(CanaryTargetRow, (model, version, target))
    if place is not None and (place.state, place.digest) == ("ready", digest):
        return True
    rows = select(DeploymentRow.id).where(
        DeploymentRow.model == model,
        DeploymentRow.target == target,
        DeploymentRow.version == version,
    )
    return (
        session.scalar(
            rows.where(DeploymentRow.digest == digest, DeploymentRow.state == "deployed").limit(1)
        )
        is not None
    )


def count_deployment_attempts(session: Session, model: str, target: str, move: int) -> int:
    """How often a move of the champion was carried out, or tried, at a target."""
    rows = select(func.count()).where(
        DeploymentRow.model == model, DeploymentRow.target == target, DeploymentRow.move == move
    )
    return session.scalar(rows) or 0


def unpublished_events(session: Session, limit: int) -> Sequence[OutboxRow]:
    """Events to publish, in order."""
    return session.scalars(
        select(OutboxRow)
        .where(OutboxRow.published_at.is_(None))
        .order_by(OutboxRow.id)
        .limit(limit)
    ).all()


def lock_lease(session: Session, name: str) -> LeaseRow | None:
    """A lease, locked until the transaction ends."""
    return session.scalar(select(LeaseRow).where(LeaseRow.name == name).with_for_update())


def all_aliases(session: Session) -> Sequence[AliasRow]:
    """Those of every model that has a version."""
    return session.scalars(select(AliasRow)).all()


def deployed_moves(session: Session, model: str) -> dict[str, int]:
    """The champion's newest move that each target was seen to carry out."""
    rows = select(DeploymentRow.target, func.max(DeploymentRow.move)).where(
        DeploymentRow.model == model, DeploymentRow.state == "deployed"
    )
    return {row.target: row[1] for row in session.execute(rows.group_by(DeploymentRow.target))}


def deployed_versions(session: Session, model: str) -> dict[str, str]:
    """The version that each target was last seen to have switched to."""
    newest = (
        select(func.max(DeploymentRow.id))
        .where(DeploymentRow.model == model, DeploymentRow.state == "deployed")
        .group_by(DeploymentRow.target)
    )
    rows = session.scalars(select(DeploymentRow).where(DeploymentRow.id.in_(newest)))
    return {row.target: row.version for row in rows}
