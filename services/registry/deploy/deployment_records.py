"""Records of deployments: a row for each attempt, and the event that reports it, in the caller's
transaction.
"""

from dataclasses import asdict
from datetime import datetime

from services.registry.deploy.deployment import DeployedVersion, DeploymentUndone
from services.registry.deploy.desired_state import DesiredState
from services.registry.deploy.targets.target import ServingTarget
from services.registry.store.database import Session
from services.registry.store.outbox import enqueue
from services.registry.store.queries import count_deployment_attempts, newest_deployment
from services.registry.store.tables import DeploymentRow
from shared.events import DeploymentFailed, VersionDeployed
from shared.identity import identity


def record_deployment(
    session: Session,
    desired: DesiredState,
    target: ServingTarget,
    result: DeployedVersion | DeploymentUndone,
    seconds: float,
    now: datetime,
) -> None:
    """Record the result of a deployment that took `seconds`, and enqueue its event."""
    if isinstance(result, DeploymentUndone):
        _record_failed(session, desired, target, result, seconds, now)
    else:
        _record_deployed(session, desired, target, result, seconds, now)


def _record_deployed(
    session: Session,
    desired: DesiredState,
    target: ServingTarget,
    deployed: DeployedVersion,
    seconds: float,
    now: datetime,
) -> None:
    count = count_deployment_attempts(session, desired.model, target.name, desired.move)
    verification = deployed.verification
    session.add(
        DeploymentRow(
            model=desired.model,
            target=target.name,
            version=desired.champion,
            move=desired.move,
            state="deployed",
            digest=deployed.digest,
            seconds=seconds,
            finding=asdict(verification) if verification else None,
            at=now,
        )
    )
    event = VersionDeployed(
        event_id=identity("deployed", desired.model, target.name, desired.move, count),
        occurred_at=now,
        model=desired.model,
        version=desired.champion,
        target=target.name,
        served_name=target.served_name(desired.model),
        digest=deployed.digest,
        seconds=round(seconds, 3),
    )
    enqueue(session, [event], now)


def _record_failed(
    session: Session,
    desired: DesiredState,
    target: ServingTarget,
    error: DeploymentUndone,
    seconds: float,
    now: datetime,
) -> None:
    """Skip an attempt that failed like the one before it: a report of every retry would bury other
    entries.
    """
    last = newest_deployment(session, desired.model, target.name)
    if last and (last.move, last.state, last.step, last.reason) == (
        desired.move,
        "failed",
        error.step,
        error.reason,
    ):
        return
    count = count_deployment_attempts(session, desired.model, target.name, desired.move)
    session.add(
        DeploymentRow(
            model=desired.model,
            target=target.name,
            version=desired.champion,
            move=desired.move,
            state="failed",
            step=error.step,
            reason=error.reason,
            seconds=seconds,
            finding=None,
            at=now,
        )
    )
    event = DeploymentFailed(
        event_id=identity("deployment failed", desired.model, target.name, desired.move, count),
        occurred_at=now,
        model=desired.model,
        version=desired.champion,
        target=target.name,
        step=error.step,
        reason=error.reason,
        serving=error.serving,
    )
    enqueue(session, [event], now)
