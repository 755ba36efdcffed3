"""One pass of a deployment: deploy the champion to a target, record the result, then tidy up and
serve a challenger.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from services.registry.deploy.canary_deployment import CanaryDeployer
from services.registry.deploy.deployment import (
    DEFAULT_SLOWDOWN,
    DeployedVersion,
    DeploymentUndone,
    deploy,
    retain_recent_versions,
)
from services.registry.deploy.deployment_records import record_deployment
from services.registry.deploy.desired_state import DesiredState
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.store.database import Database
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.outbox import TRACE_HEADERS
from shared.errors import RatchetError
from shared.observability.tracing import Span
from shared.service.runtime import Runtime


@dataclass(frozen=True, slots=True)
class DeployPolicy:
    """Limits of deployments. `keep_versions`: versions without an alias that stay at a target and
    on disk, per model.
    """

    keep_versions: int
    max_slowdown: float = DEFAULT_SLOWDOWN
    lease_seconds: float = LEASE_SECONDS


class DeploymentRunner:
    """Deploys to one target at a time, for the holder of the model's lease."""

    def __init__(
        self,
        database: Database,
        merged_models: MergedModels,
        policy: DeployPolicy,
        on_served: Callable[[], Awaitable[None]],
        runtime: Runtime,
    ) -> None:
        """`on_served` is called as soon as a target serves the champion."""
        self._merged_models = merged_models
        self._policy = policy
        self._on_served = on_served
        self._clock = runtime.clock
        self._log = runtime.log
        self._metrics = runtime.metrics
        self._tracing = runtime.tracing
        self._canaries = CanaryDeployer(database, merged_models, policy.max_slowdown, runtime)

    async def run(self, desired: DesiredState, target: ServingTarget, lease: Lease) -> bool:
        """Do one pass; False if the target does not serve the champion."""
        if not await self._deploy(desired, target, lease):
            return False
        await self._on_served()
        await self._maintain(desired, target, lease)
        return True

    async def _deploy(self, desired: DesiredState, target: ServingTarget, lease: Lease) -> bool:
        """Let the target serve the champion and record the result; False if that failed."""
        began, start_time = self._clock.monotonic(), self._clock.now()
        labels = {"model": desired.model, "target": target.name}
        result: DeployedVersion | DeploymentUndone | None
        try:
            result = await deploy(desired, target, self._merged_models, self._policy.max_slowdown)
        except DeploymentUndone as error:
            result = error
            self._metrics.set("ratchet_registry_serves_champion", 0, **labels)
        if result is not None:
            with self._span(desired, target, start_time) as span:
                if isinstance(result, DeploymentUndone):
                    span.set_failed(result.step)
                seconds = self._clock.monotonic() - began
                record = partial(
                    record_deployment,
                    desired=desired,
                    target=target,
                    result=result,
                    seconds=seconds,
                    now=self._clock.now(),
                )
                await lease.run(record, {TRACE_HEADERS: span.headers})
                self._report(desired, target, result, seconds)
        if isinstance(result, DeploymentUndone):
            return False
        self._metrics.set("ratchet_registry_serves_champion", 1, **labels)
        self._metrics.set("ratchet_registry_served_number", desired.champion_number, **labels)
        return True

    async def _maintain(self, desired: DesiredState, target: ServingTarget, lease: Lease) -> None:
        """Keep the previous version ready, delete old ones, and serve a challenger on a canary
        trial. Failures are logged and retried at the next pass.
        """
        model = desired.model
        try:
            await retain_recent_versions(
                desired, target, self._merged_models, self._policy.keep_versions
            )
        except RatchetError as error:
            self._log.warning(
                "previous version not on target",
                model=model,
                target=target.name,
                reason=str(error),
            )
        try:
            await self._canaries.reconcile(model, target, lease)
        except RatchetError as error:
            self._log.warning(
                "canary deployment postponed", model=model, target=target.name, reason=str(error)
            )

    @contextmanager
    def _span(
        self, desired: DesiredState, target: ServingTarget, start_time: datetime
    ) -> Iterator[Span]:
        """Open a span for a deployment that did something; a pass that changes nothing has none."""
        with self._tracing.span("deploy", desired.traceparent, start_time=start_time) as span:
            span.set_attributes(model=desired.model, version=desired.champion, target=target.name)
            yield span

    def _report(
        self,
        desired: DesiredState,
        target: ServingTarget,
        result: DeployedVersion | DeploymentUndone,
        seconds: float,
    ) -> None:
        model, version = desired.model, desired.champion
        if isinstance(result, DeploymentUndone):
            self._metrics.count(
                "ratchet_registry_deployment_failures_total",
                model=model,
                target=target.name,
                step=result.step,
            )
            self._log.warning(
                "deployment failed",
                model=model,
                version=version,
                target=target.name,
                reason=str(result),
            )
            return
        self._metrics.observe(
            "ratchet_registry_deploy_seconds", seconds, model=model, target=target.name
        )
        self._log.info(
            "deployed",
            model=model,
            version=version,
            target=target.name,
            seconds=round(seconds, 2),
        )
