"""The deployer: per model and target, what is served follows the champion, at start and ever after;
of several replicas one does it.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from services.registry.deploy.canary_deployment import CanaryDeployer
from services.registry.deploy.deployment import (
    DEFAULT_SLOWDOWN,
    DeployedVersion,
    DeploymentUndone,
    DesiredState,
    deploy,
    retain_recent_versions,
)
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.lifecycle import version_number
from services.registry.store.database import Database, Session
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.outbox import TRACE_HEADERS, OutboxPublisher, enqueue
from services.registry.store.queries import (
    aliases_of,
    all_aliases,
    count_deployment_attempts,
    deployed_moves,
    newest_deployment,
    version_of,
    was_verified,
)
from services.registry.store.tables import DeploymentRow
from shared.clock import Clock
from shared.errors import RatchetError, Unavailable
from shared.events import DeploymentFailed, VersionDeployed
from shared.identity import identity
from shared.logs import Log
from shared.messaging.codec import Headers
from shared.observability.metrics import Metrics
from shared.observability.trace_context import traceparent_for_version
from shared.observability.tracing import NOOP_TRACING, Span, Tracing

_RECHECK_SECONDS = 10.0
_POLL_SECONDS = 0.25
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 120.0


class Deployer:
    """Runs one loop per model and target. A loop that is deploying a version which is no longer
    wanted starts over at once.
    """

    def __init__(
        self,
        database: Database,
        targets: Mapping[str, Sequence[ServingTarget]],
        builds: MergedModels,
        publisher: OutboxPublisher,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        kept: int,
        replica: str = "one",
        lasts: float = LEASE_SECONDS,
        slowdown: float = DEFAULT_SLOWDOWN,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        self._database = database
        self._targets = targets
        self._builds = builds
        self._publisher = publisher
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._kept = kept
        self._slowdown = slowdown
        self._trials = CanaryDeployer(database, builds, publisher, clock, log, slowdown)
        self._tracing = tracing
        self._wakes: dict[str, list[asyncio.Event]] = {model: [] for model in targets}
        self._leases = {
            model: Lease(
                database,
                f"deploy {model}",
                replica,
                clock,
                log,
                partial(self._restart, model),
                lasts,
            )
            for model in targets
        }
        self._moves: dict[str, int] = {}
        self._look = asyncio.Event()
        self._deployed = asyncio.Condition()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as loops:
                for model, targets in self._targets.items():
                    loops.create_task(self._leases[model].maintain())
                    for target in targets:
                        wake = asyncio.Event()
                        self._wakes[model].append(wake)
                        loops.create_task(self._reconcile_loop(model, target, wake))
                loops.create_task(self._watch_aliases())
        finally:
            for lease in self._leases.values():
                await lease.release()

    def wake(self) -> None:
        """A champion may have moved."""
        self._look.set()

    def target_names(self, model: str) -> list[str]:
        """The names of a model's targets."""
        return [target.name for target in self._targets.get(model, ())]

    def canary_target_names(self, model: str) -> list[str]:
        """The names of those of a model's targets where a challenger can answer beside the
        champion.
        """
        return [target.name for target in self._targets.get(model, ()) if target.supports_canary]

    def served_names(self, model: str, challenger: str | None) -> dict[str, str]:
        """What applications ask for, by target, to get the champion, or a challenger where it can
        answer.
        """
        targets = self._targets.get(model, ())
        if challenger is None:
            return {target.name: target.served_name(model) for target in targets}
        return {
            target.name: target.served_name_of(model, challenger)
            for target in targets
            if target.supports_canary
        }

    async def wait_until_deployed(self, model: str, move: int, seconds: float) -> bool:
        """Wait until every target serves a move of the champion, or a later one, whichever replica
        deploys; false when that takes longer than `seconds`.
        """
        names = self.target_names(model)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(seconds):
                while True:
                    done = await self._database.run(partial(deployed_moves, model=model))
                    if all(done.get(name, -1) >= move for name in names):
                        return True
                    async with self._deployed:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(_POLL_SECONDS):
                                await self._deployed.wait()
        return False

    def _restart(self, model: str) -> None:
        for wake in self._wakes[model]:
            wake.set()

    async def _watch_aliases(self) -> None:
        """Start over what deploys a model whose champion has moved, whichever replica moved it."""
        while True:
            self._look.clear()
            with suppress(Unavailable):
                for row in await self._database.run(all_aliases):
                    if row.model in self._targets and self._moves.get(row.model) != row.move:
                        self._moves[row.model] = row.move
                        self._restart(row.model)
                        if row.champion is not None:
                            self._metrics.set(
                                "ratchet_registry_champion_number",
                                version_number(row.champion),
                                model=row.model,
                            )
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._look.wait()

    async def _reconcile_loop(self, model: str, target: ServingTarget, wake: asyncio.Event) -> None:
        retry = _FIRST_RETRY_SECONDS
        while True:
            wake.clear()
            work = asyncio.create_task(self.reconcile(model, target))
            waking = asyncio.create_task(wake.wait())
            try:
                await asyncio.wait({work, waking}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    continue
                pause, retry = (
                    (_RECHECK_SECONDS, _FIRST_RETRY_SECONDS)
                    if work.result()
                    else (retry, min(2 * retry, _LAST_RETRY_SECONDS))
                )
                await asyncio.wait({waking}, timeout=pause)
            finally:
                waking.cancel()
                work.cancel()
                # To await it would be to mistake an end of this loop, told meanwhile, for that of
                # the work.
                await asyncio.wait({work})

    async def reconcile(self, model: str, target: ServingTarget) -> bool:
        """Let a target serve what is wanted; whether it does, or another replica sees to it. What
        came of it is recorded and published.
        """
        try:
            if await self._leases[model].ensure_held():
                return await self._reconcile(model, target)
            for metric in ("ratchet_registry_serves_champion", "ratchet_registry_served_number"):
                self._metrics.remove_series(metric, model=model, target=target.name)
            return True
        except Unavailable as error:
            self._log.warning(
                "deployments wait", model=model, target=target.name, reason=str(error)
            )
            return False

    async def _reconcile(self, model: str, target: ServingTarget) -> bool:
        wanted = await self._database.run(partial(_desired_state, model=model, target=target.name))
        if wanted is None:
            return True
        began, since = self._clock.monotonic(), self._clock.now()
        try:
            served = await deploy(wanted, target, self._builds, self._slowdown)
        except DeploymentUndone as error:
            self._metrics.set(
                "ratchet_registry_serves_champion", 0, model=model, target=target.name
            )
            with self._span(wanted, target, since) as span:
                span.set_failed(error.step)
                await self._record_failure(
                    wanted, target, error, self._clock.monotonic() - began, span.headers
                )
            return False
        if served is not None:
            with self._span(wanted, target, since) as span:
                await self._record_success(
                    wanted, target, served, self._clock.monotonic() - began, span.headers
                )
        self._metrics.set("ratchet_registry_serves_champion", 1, model=model, target=target.name)
        self._metrics.set(
            "ratchet_registry_served_number",
            version_number(wanted.champion),
            model=model,
            target=target.name,
        )
        async with self._deployed:
            self._deployed.notify_all()
        try:
            await retain_recent_versions(wanted, target, self._builds, self._kept)
        except RatchetError as error:
            self._log.warning(
                "the previous version is not at hand",
                model=model,
                target=target.name,
                reason=str(error),
            )
        try:
            await self._trials.reconcile(model, target, self._leases[model])
        except RatchetError as error:
            self._log.warning("a trial waits", model=model, target=target.name, reason=str(error))
        return True

    @contextmanager
    def _span(
        self, desired: DesiredState, target: ServingTarget, since: datetime
    ) -> Iterator[Span]:
        """Only what had to be done is a span: to find that all is as it should be is none."""
        with self._tracing.span("deploy", desired.traceparent, start_time=since) as span:
            span.set_attributes(model=desired.model, version=desired.champion, target=target.name)
            yield span

    async def _record_success(
        self,
        desired: DesiredState,
        target: ServingTarget,
        served: DeployedVersion,
        seconds: float,
        follows: Headers,
    ) -> None:
        def record(session: Session) -> None:
            session.info[TRACE_HEADERS] = follows
            self._leases[desired.model].guard(session)
            now = self._clock.now()
            count = count_deployment_attempts(session, desired.model, target.name, desired.move)
            session.add(
                _deployment_row(
                    desired,
                    target,
                    "deployed",
                    seconds,
                    now,
                    digest=served.digest,
                    finding=served.verification,
                )
            )
            event = VersionDeployed(
                event_id=identity("deployed", desired.model, target.name, desired.move, count),
                occurred_at=now,
                model=desired.model,
                version=desired.champion,
                target=target.name,
                served_name=target.served_name(desired.model),
                digest=served.digest,
                seconds=round(seconds, 3),
            )
            enqueue(session, desired.model, event, now)

        await self._database.run(record)
        self._publisher.wake()
        self._metrics.observe(
            "ratchet_registry_deploy_seconds", seconds, model=desired.model, target=target.name
        )
        self._log.info(
            "deployed",
            model=desired.model,
            version=desired.champion,
            target=target.name,
            seconds=round(seconds, 2),
        )

    async def _record_failure(
        self,
        desired: DesiredState,
        target: ServingTarget,
        error: DeploymentUndone,
        seconds: float,
        follows: Headers,
    ) -> None:
        def record(session: Session) -> None:
            session.info[TRACE_HEADERS] = follows
            self._leases[desired.model].guard(session)
            now = self._clock.now()
            last = newest_deployment(session, desired.model, target.name)
            if last and (last.move, last.state, last.step, last.reason) == (
                desired.move,
                "failed",
                error.step,
                error.reason,
            ):
                return  # said already; saying it at every retry would bury the rest
            count = count_deployment_attempts(session, desired.model, target.name, desired.move)
            session.add(
                _deployment_row(
                    desired, target, "failed", seconds, now, step=error.step, reason=error.reason
                )
            )
            event = DeploymentFailed(
                event_id=identity(
                    "deployment failed", desired.model, target.name, desired.move, count
                ),
                occurred_at=now,
                model=desired.model,
                version=desired.champion,
                target=target.name,
                step=error.step,
                reason=error.reason,
                serving=error.serving,
            )
            enqueue(session, desired.model, event, now)

        await self._database.run(record)
        self._publisher.wake()
        self._metrics.count(
            "ratchet_registry_deployment_failures_total",
            model=desired.model,
            target=target.name,
            step=error.step,
        )
        self._log.warning(
            "deployment undone",
            model=desired.model,
            version=desired.champion,
            target=target.name,
            reason=str(error),
        )


def _desired_state(session: Session, model: str, target: str) -> DesiredState | None:
    """What a target shall serve; None while the model has no version."""
    aliases = aliases_of(session, model)
    if aliases is None or aliases.champion is None:
        return None
    version = version_of(session, model, aliases.champion)
    assert version is not None, "aliases name versions that exist"
    last = newest_deployment(session, model, target)
    recorded = last.move if last and last.state == "deployed" else None
    digest = version.merged_digest
    verified = (
        digest if digest and was_verified(session, model, target, version.name, digest) else None
    )
    follows = (
        traceparent_for_version(version.batch_id, version.run_id)
        if version.batch_id and version.run_id
        else ""
    )
    return DesiredState(
        model,
        aliases.champion,
        aliases.previous,
        aliases.move,
        recorded,
        verified,
        aliases.challenger,
        follows,
    )


def _deployment_row(
    wanted: DesiredState,
    target: ServingTarget,
    state: str,
    seconds: float,
    now: datetime,
    **outcome: Any,
) -> DeploymentRow:
    finding = outcome.pop("finding", None)
    return DeploymentRow(
        model=wanted.model,
        target=target.name,
        version=wanted.champion,
        move=wanted.move,
        state=state,
        seconds=seconds,
        at=now,
        finding=asdict(finding) if finding else None,
        **outcome,
    )
