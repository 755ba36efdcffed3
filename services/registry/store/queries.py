"""Queries on versions, aliases, runs, deployments, leases and the outbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from services.registry.lifecycle import Aliases
from services.registry.store.audit_queries import OUTSIDE_HISTORY
from services.registry.store.tables import (
    AdapterRemovalRow,
    AliasRow,
    AuditRow,
    BatchRow,
    CanaryRewardRow,
    CanaryTargetRow,
    CanaryTrialRow,
    ComparisonRow,
    DeploymentRow,
    HoldRow,
    LeaseRow,
    LiveRewardRow,
    OutboxRow,
    RunPointRow,
    RunRow,
    VersionRow,
)
from shared.events import Artefact


@dataclass(frozen=True, slots=True)
class MeanReward:
    """Mean of `count` rewards of live feedback on a version's answers."""

    mean: float
    count: int


def rewards_by_version(session: Session, model: str) -> Mapping[str, MeanReward]:
    """Return the mean live reward of each version that has rewards, in the order of first use."""
    rows = select(LiveRewardRow.version, func.count(), func.avg(LiveRewardRow.reward)).where(
        LiveRewardRow.model == model
    )
    grouped = rows.group_by(LiveRewardRow.version).order_by(func.min(LiveRewardRow.id))
    return {
        version: MeanReward(float(mean), count) for version, count, mean in session.execute(grouped)
    }


def lock_aliases(session: Session, model: str) -> AliasRow | None:
    """Return the row of a model's aliases, locked until the transaction ends, which serialises
    the changes of a model.
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
    """Return the versions of this name of all models."""
    return session.scalars(
        select(VersionRow).where(VersionRow.name == name).order_by(VersionRow.model)
    ).all()


def versions_of(
    session: Session, model: str, before: int | None = None, limit: int | None = None
) -> Sequence[VersionRow]:
    """Return at most `limit` versions with a number below `before`, newest first."""
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
    """Return the artefact of a version's adapter, None for the base."""
    if version.adapter_uri is None or version.adapter_digest is None:
        return None
    return Artefact(uri=version.adapter_uri, digest=version.adapter_digest)


def adapter_removal_of(session: Session, run_id: str | None) -> AdapterRemovalRow | None:
    """Return the removal of a run's adapter, None if it was not removed."""
    return session.get(AdapterRemovalRow, run_id) if run_id is not None else None


def lineage_of(session: Session, version: VersionRow) -> list[VersionRow]:
    """Return a version and its ancestors, up to the base."""
    line = [version]
    while line[-1].parent is not None:
        parent = version_of(session, version.model, line[-1].parent)
        if parent is None or parent in line:
            break
        line.append(parent)
    return line


def batch_of(session: Session, batch_id: str) -> BatchRow | None:
    """Return a batch as announced by `BatchReady`, None for an unknown one."""
    return session.get(BatchRow, batch_id)


def runs_of(
    session: Session, model: str, limit: int, after: tuple[datetime, str] | None = None
) -> Sequence[RunRow]:
    """Return runs of a model, newest first. `after` is start and ID of the last run of the page
    before.
    """
    rows = select(RunRow).where(RunRow.model == model)
    if after is not None:
        started_at, run_id = after
        rows = rows.where(
            or_(
                RunRow.started_at < started_at,
                and_(RunRow.started_at == started_at, RunRow.run_id < run_id),
            )
        )
    return session.scalars(
        rows.order_by(RunRow.started_at.desc(), RunRow.run_id.desc()).limit(limit)
    ).all()


def points_of(session: Session, run_id: str) -> Sequence[RunPointRow]:
    return session.scalars(
        select(RunPointRow).where(RunPointRow.run_id == run_id).order_by(RunPointRow.step)
    ).all()


def history_of(
    session: Session, model: str, limit: int, before: int | None = None
) -> Sequence[AuditRow]:
    """Return the newest `limit` decisions with an id below `before`, newest first."""
    rows = select(AuditRow).where(AuditRow.model == model, AuditRow.action.not_in(OUTSIDE_HISTORY))
    if before is not None:
        rows = rows.where(AuditRow.id < before)
    return session.scalars(rows.order_by(AuditRow.id.desc()).limit(limit)).all()


def hold_of(session: Session, model: str) -> HoldRow | None:
    """Return the hold on a model, None if it is not on hold."""
    return session.get(HoldRow, model)


def canary_trial_of(session: Session, model: str) -> CanaryTrialRow | None:
    """Return a model's canary trial, None without one."""
    return session.get(CanaryTrialRow, model)


def delete_canary_trial(session: Session, model: str) -> None:
    """Delete a model's canary trial with its rewards."""
    for table in (CanaryTrialRow, CanaryRewardRow):
        session.execute(delete(table).where(table.model == model))


def canary_targets_of(session: Session, trial: CanaryTrialRow) -> Sequence[CanaryTargetRow]:
    """Return the state of a trial's challenger on each target."""
    rows = select(CanaryTargetRow).where(
        CanaryTargetRow.model == trial.model, CanaryTargetRow.version == trial.version
    )
    return session.scalars(rows.order_by(CanaryTargetRow.target)).all()


def champion_moves(session: Session, model: str) -> Sequence[AuditRow]:
    """Return the audit rows that moved the champion, oldest first. The n-th row is the move that
    the alias row counts as n.
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
    """Return the newest deployment on a target, successful or not."""
    rows = select(DeploymentRow).where(DeploymentRow.model == model, DeploymentRow.target == target)
    return session.scalar(rows.order_by(DeploymentRow.id.desc()).limit(1))


def was_verified(session: Session, model: str, target: str, version: str, digest: str) -> bool:
    """Return whether a file with this digest passed verification on this target, as champion or as
    canary.
    """
    target_row = session.get(CanaryTargetRow, (model, version, target))
    if target_row is not None and (target_row.state, target_row.digest) == ("ready", digest):
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
    """Count the deployments of a champion move on a target, successful or not."""
    rows = select(func.count()).where(
        DeploymentRow.model == model, DeploymentRow.target == target, DeploymentRow.move == move
    )
    return session.scalar(rows) or 0


def unpublished_events(session: Session, limit: int) -> Sequence[OutboxRow]:
    """Return the oldest `limit` unpublished events, in order."""
    return session.scalars(
        select(OutboxRow)
        .where(OutboxRow.published_at.is_(None))
        .order_by(OutboxRow.id)
        .limit(limit)
    ).all()


def lock_lease(session: Session, name: str) -> LeaseRow | None:
    """Return the row of a lease, locked until the transaction ends."""
    return session.scalar(select(LeaseRow).where(LeaseRow.name == name).with_for_update())


def all_aliases(session: Session) -> Sequence[AliasRow]:
    """Return the aliases of every model that has a version."""
    return session.scalars(select(AliasRow)).all()


def deployed_moves(session: Session, model: str) -> dict[str, int]:
    """Return the newest champion move that was deployed on each target."""
    rows = select(DeploymentRow.target, func.max(DeploymentRow.move)).where(
        DeploymentRow.model == model, DeploymentRow.state == "deployed"
    )
    return {row.target: row[1] for row in session.execute(rows.group_by(DeploymentRow.target))}


def deployed_versions(session: Session, model: str) -> dict[str, str]:
    """Return the version that was deployed last on each target."""
    newest = (
        select(func.max(DeploymentRow.id))
        .where(DeploymentRow.model == model, DeploymentRow.state == "deployed")
        .group_by(DeploymentRow.target)
    )
    rows = session.scalars(select(DeploymentRow).where(DeploymentRow.id.in_(newest)))
    return {row.target: row.version for row in rows}


def lock_comparison(session: Session, comparison_id: str) -> ComparisonRow | None:
    """Return a comparison, locked until the transaction ends; None for an unknown one."""
    return session.get(ComparisonRow, comparison_id, with_for_update=True)


def delete_comparisons(session: Session, before: datetime) -> None:
    """Delete comparisons made before a time."""
    session.execute(delete(ComparisonRow).where(ComparisonRow.created_at < before))
