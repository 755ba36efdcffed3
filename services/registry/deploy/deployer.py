"""The deployer: per model and target, it makes the target serve the champion, at start and after
every move. One replica does so at a time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from services.registry.deploy.deployment_runner import DeploymentRunner, DeployPolicy
from services.registry.deploy.desired_state import read_desired_state
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.lifecycle import version_number
from services.registry.store.database import Database
from services.registry.store.leases import Lease
from services.registry.store.queries import all_aliases, deployed_moves
from shared.errors import Unavailable
from shared.service.runtime import Runtime

_RECHECK_SECONDS = 10.0
_POLL_SECONDS = 0.25
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 120.0


class Deployer:
    """Runs one loop per model and target. A move of the champion cancels a deployment in progress
    and starts the next one at once.
    """

    def __init__(
        self,
        database: Database,
        targets: Mapping[str, Sequence[ServingTarget]],
        merged_models: MergedModels,
        policy: DeployPolicy,
        runtime: Runtime,
        replica: str = "one",
    ) -> None:
        self._database = database
        self._targets = targets
        self._log = runtime.log
        self._metrics = runtime.metrics
        self._runner = DeploymentRunner(
            database, merged_models, policy, self._notify_served, runtime
        )
        self._wakes: dict[str, list[asyncio.Event]] = {model: [] for model in targets}
        self._leases = {
            model: Lease(
                database,
                f"deploy {model}",
                replica,
                runtime.clock,
                runtime.log,
                partial(self._restart, model),
                policy.lease_seconds,
            )
            for model in targets
        }
        self._seen_moves: dict[str, int] = {}
        self._aliases_changed = asyncio.Event()
        self._deployed = asyncio.Condition()

    async def run(self) -> None:
        """Deploy until cancelled."""
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
        """Check for moved champions now."""
        self._aliases_changed.set()

    def target_names(self, model: str) -> list[str]:
        """Return the names of a model's targets."""
        return [target.name for target in self._targets.get(model, ())]

    def canary_target_names(self, model: str) -> list[str]:
        """Return the names of a model's targets that support canaries."""
        return [target.name for target in self._targets.get(model, ()) if target.supports_canary]

    def answering_target(self, model: str) -> ServingTarget | None:
        """Return a model's first target that can be asked for each of its versions."""
        targets = self._targets.get(model, ())
        return next((target for target in targets if target.supports_canary), None)

    def served_names(self, model: str, challenger: str | None) -> dict[str, str]:
        """Return, by target, the model name that applications request for the champion, or for
        `challenger` where the target supports canaries.
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
        """Wait until every target serves a move of the champion or a later one, whichever replica
        deploys it; False after `seconds`.
        """
        names = self.target_names(model)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(seconds):
                while True:
                    moves = await self._database.run(partial(deployed_moves, model=model))
                    if all(moves.get(name, -1) >= move for name in names):
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
        """Restart the loops of a model whose champion moved, whichever replica moved it."""
        while True:
            self._aliases_changed.clear()
            with suppress(Unavailable):
                for row in await self._database.run(all_aliases):
                    if row.model in self._targets and self._seen_moves.get(row.model) != row.move:
                        self._seen_moves[row.model] = row.move
                        self._restart(row.model)
                        if row.champion is not None:
                            self._metrics.set(
                                "ratchet_registry_champion_number",
                                version_number(row.champion),
                                model=row.model,
                            )
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._aliases_changed.wait()

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
                # Awaiting `work` directly would take a cancellation of this loop, which may arrive
                # meanwhile, for that of the work.
                await asyncio.wait({work})

    async def reconcile(self, model: str, target: ServingTarget) -> bool:
        """Make a target serve the desired state; record and publish the result.

        True if it does so, or if another replica is responsible.
        """
        lease = self._leases[model]
        try:
            if not await lease.ensure_held():
                self._remove_metrics(model, target)
                return True
            desired = await self._database.run(
                partial(read_desired_state, model=model, target=target.name)
            )
            if desired is None:
                return True
            return await self._runner.run(desired, target, lease)
        except Unavailable as error:
            self._log.warning(
                "deployment postponed", model=model, target=target.name, reason=str(error)
            )
            return False

    async def _notify_served(self) -> None:
        async with self._deployed:
            self._deployed.notify_all()

    def _remove_metrics(self, model: str, target: ServingTarget) -> None:
        """Leave the export of a target's state to the replica that holds the lease."""
        for metric in ("ratchet_registry_serves_champion", "ratchet_registry_served_number"):
            self._metrics.remove_series(metric, model=model, target=target.name)
