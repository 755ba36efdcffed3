"""Challengers on trial at the targets: brought, verified as a champion is, and served under a name
of their own beside it.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from services.registry.deploy.deployment import DeploymentUndone, deployment_step, push_and_verify
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.store.database import Database, Session
from services.registry.store.leases import Lease
from services.registry.store.outbox import OutboxPublisher, enqueue
from services.registry.store.queries import canary_trial_of
from services.registry.store.tables import CanaryTargetRow
from shared.clock import Clock
from shared.events import DeploymentFailed, Digest
from shared.identity import identity
from shared.logs import Log

CanaryState = Literal["ready", "failed"]


@dataclass(frozen=True, slots=True)
class _Challenger:
    """A version on trial; `ready` is the digest of its file if it answers at the target already."""

    version: str
    ready_digest: Digest | None


class CanaryDeployer:
    """Whoever holds the lease of a model's deployments brings its challenger as well."""

    def __init__(
        self,
        database: Database,
        builds: MergedModels,
        publisher: OutboxPublisher,
        clock: Clock,
        log: Log,
        slowdown: float,
    ) -> None:
        self._database = database
        self._builds = builds
        self._publisher = publisher
        self._clock = clock
        self._log = log
        self._slowdown = slowdown

    async def reconcile(self, model: str, target: ServingTarget, lease: Lease) -> None:
        """Let a target that can do so serve the challenger on trial, or none any more. Raises
        RatchetError where there is nothing to record it by.
        """
        if not target.supports_canary:
            return
        wanted = await self._database.run(
            partial(_challenger_on_trial, model=model, target=target.name)
        )
        serving = await target.inspect(model)
        if wanted is None:
            if serving.challenger is not None:
                await target.set_challenger(model, None)
            return
        if serving.challenger == wanted.version and wanted.ready_digest == serving.versions.get(
            wanted.version
        ):
            return
        try:
            served = await push_and_verify(
                model, wanted.version, target, self._builds, serving, self._slowdown
            )
            async with deployment_step("switch", serving.champion):
                await target.set_challenger(model, wanted.version)
        except DeploymentUndone as error:
            await self._record(model, wanted.version, target, lease, "failed", None, error)
            return
        await self._record(model, wanted.version, target, lease, "ready", served.digest, None)

    async def _record(
        self,
        model: str,
        version: str,
        target: ServingTarget,
        lease: Lease,
        state: CanaryState,
        digest: Digest | None,
        error: DeploymentUndone | None,
    ) -> None:
        reason = str(error) if error else ""

        def record(session: Session) -> bool:
            lease.guard(session)
            now = self._clock.now()
            last = session.get(CanaryTargetRow, (model, version, target.name))
            if last is not None and (last.state, last.digest, last.reason) == (
                state,
                digest,
                reason,
            ):
                return False
            session.merge(
                CanaryTargetRow(
                    model=model,
                    version=version,
                    target=target.name,
                    state=state,
                    digest=digest,
                    reason=reason,
                    at=now,
                )
            )
            if error is not None:
                enqueue(session, model, _deployment_failed(model, version, target, error, now), now)
            return True

        if not await self._database.run(record):
            return
        self._publisher.wake()
        if error is None:
            self._log.info("on trial", model=model, version=version, target=target.name)
        else:
            self._log.warning(
                "the challenger is not on trial",
                model=model,
                version=version,
                target=target.name,
                reason=reason,
            )


def _deployment_failed(
    model: str, version: str, target: ServingTarget, error: DeploymentUndone, now: datetime
) -> DeploymentFailed:
    return DeploymentFailed(
        event_id=identity("trial failed", model, version, target.name, now.isoformat()),
        occurred_at=now,
        model=model,
        version=version,
        target=target.name,
        step=error.step,
        reason=error.reason,
        serving=error.serving,
    )


def _challenger_on_trial(session: Session, model: str, target: str) -> _Challenger | None:
    trial = canary_trial_of(session, model)
    if trial is None:
        return None
    place = session.get(CanaryTargetRow, (model, trial.version, target))
    return _Challenger(trial.version, place.digest if place and place.state == "ready" else None)
