"""Deployment of challengers on a canary trial: pushed, verified as a champion is, and served under
their own name together with the champion.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from services.registry.deploy.deployment import (
    DeploymentUndone,
    deployment_step,
    push_and_verify,
)
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.store.database import Database, Session
from services.registry.store.leases import Lease
from services.registry.store.outbox import enqueue
from services.registry.store.queries import canary_trial_of
from services.registry.store.tables import CanaryTargetRow
from shared.events import DeploymentFailed, Digest
from shared.identity import identity
from shared.service.runtime import Runtime

CanaryState = Literal["ready", "failed"]


@dataclass(frozen=True, slots=True)
class _Challenger:
    """A version on a canary trial; `ready_digest` is that of its file if it is served at the
    target.
    """

    version: str
    ready_digest: Digest | None


class CanaryDeployer:
    """Deploys a model's challenger, for the holder of the lease of its deployments."""

    def __init__(
        self,
        database: Database,
        merged_models: MergedModels,
        slowdown: float,
        runtime: Runtime,
    ) -> None:
        self._database = database
        self._merged_models = merged_models
        self._slowdown = slowdown
        self._clock = runtime.clock
        self._log = runtime.log

    async def reconcile(self, model: str, target: ServingTarget, lease: Lease) -> None:
        """Let a target that supports canaries serve the challenger on trial, or remove the alias if
        there is no trial. Raises RatchetError if the result cannot be recorded.
        """
        if not target.supports_canary:
            return
        challenger = await self._database.run(
            partial(_challenger_on_trial, model=model, target=target.name)
        )
        state = await target.inspect(model)
        if challenger is None:
            if state.challenger is not None:
                await target.set_challenger(model, None)
            return
        version = challenger.version
        present = state.versions.get(version)
        if state.challenger == version and challenger.ready_digest == present:
            return
        try:
            deployed = await push_and_verify(
                model, version, target, self._merged_models, state, self._slowdown
            )
            async with deployment_step("switch", state.champion):
                await target.set_challenger(model, version)
        except DeploymentUndone as error:
            await self._record(model, version, target, lease, "failed", None, error)
            return
        await self._record(model, version, target, lease, "ready", deployed.digest, None)

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
                event = _deployment_failed(model, version, target, error, now)
                enqueue(session, [event], now)
            return True

        if not await lease.run(record):
            return
        if error is None:
            self._log.info("challenger served", model=model, version=version, target=target.name)
        else:
            self._log.warning(
                "challenger deployment failed",
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
    row = session.get(CanaryTargetRow, (model, trial.version, target))
    return _Challenger(trial.version, row.digest if row and row.state == "ready" else None)
