"""Challengers on trial at the targets: brought, verified as a champion is, and served under a name
of their own beside it.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from sqlalchemy.orm import Session

from services.registry.deploy.deployment import Undone, bring, step
from services.registry.deploy.merged_models import Builds
from services.registry.deploy.targets.target import Target
from services.registry.store.database import Database
from services.registry.store.leases import Lease
from services.registry.store.outbox import Publisher, enqueue
from services.registry.store.queries import trial_of
from services.registry.store.tables import TrialPlace
from shared.clock import Clock
from shared.events import DeploymentFailed, Digest
from shared.identity import identity
from shared.logs import Log

State = Literal["ready", "failed"]


@dataclass(frozen=True, slots=True)
class _Challenger:
    """A version on trial; `ready` is the digest of its file if it answers at the target already."""

    version: str
    ready: Digest | None


class TrialDeployment:
    """Whoever holds the lease of a model's deployments brings its challenger as well."""

    def __init__(
        self,
        database: Database,
        builds: Builds,
        publisher: Publisher,
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

    async def reconcile(self, model: str, target: Target, lease: Lease) -> None:
        """Let a target that can do so serve the challenger on trial, or none any more. Raises
        RatchetError where there is nothing to record it by.
        """
        if not target.serves_two:
            return
        wanted = await self._database.run(partial(_wanted, model=model, target=target.name))
        serving = await target.probe(model)
        if wanted is None:
            if serving.challenger is not None:
                await target.try_out(model, None)
            return
        if serving.challenger == wanted.version and wanted.ready == serving.versions.get(
            wanted.version
        ):
            return
        try:
            served = await bring(
                model, wanted.version, target, self._builds, serving, self._slowdown
            )
            async with step("switch", serving.champion):
                await target.try_out(model, wanted.version)
        except Undone as error:
            await self._record(model, wanted.version, target, lease, "failed", None, error)
            return
        await self._record(model, wanted.version, target, lease, "ready", served.digest, None)

    async def _record(
        self,
        model: str,
        version: str,
        target: Target,
        lease: Lease,
        state: State,
        digest: Digest | None,
        error: Undone | None,
    ) -> None:
        reason = str(error) if error else ""

        def record(session: Session) -> bool:
            lease.guard(session)
            now = self._clock.now()
            last = session.get(TrialPlace, (model, version, target.name))
            if last is not None and (last.state, last.digest, last.reason) == (
                state,
                digest,
                reason,
            ):
                return False
            session.merge(
                TrialPlace(
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
                enqueue(session, model, _failure(model, version, target, error, now), now)
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


def _failure(
    model: str, version: str, target: Target, error: Undone, now: datetime
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


def _wanted(session: Session, model: str, target: str) -> _Challenger | None:
    trial = trial_of(session, model)
    if trial is None:
        return None
    place = session.get(TrialPlace, (model, trial.version, target))
    return _Challenger(trial.version, place.digest if place and place.state == "ready" else None)
