"""The pruner: once an hour it deletes the adapters that the retention rule releases. One replica
does so at a time.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.retention.adapter_removals import (
    in_use,
    mark_removed,
    record_removals,
    stored_adapters,
)
from services.registry.retention.rule import RetentionDecision, decide_removals
from services.registry.store.database import Database, Session
from services.registry.store.leases import Lease
from services.registry.store.queries import deployed_versions, lock_aliases
from services.registry.store.removal_queries import pending_removals
from services.registry.store.tables import AdapterRemovalRow
from shared.config.models import Models
from shared.errors import RatchetError
from shared.service.runtime import Runtime
from shared.storage.adapters import remove_adapter
from shared.storage.object_store import ObjectStore

_INTERVAL_SECONDS = 3600.0
_MAX_REMOVALS = 200
_ADAPTER_PREFIX = "adapters/"

ServedVersions = Mapping[str, Collection[str]]


class Pruner:
    """Applies `retention` of the model files to the object store."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        models: Models,
        targets: Mapping[str, Sequence[ServingTarget]],
        merged_models: MergedModels,
        runtime: Runtime,
        replica: str = "one",
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._store = store
        self._models = models
        self._targets = targets
        self._merged_models = merged_models
        self._clock = runtime.clock
        self._log = runtime.log
        self._metrics = runtime.metrics
        self._interval_seconds = interval_seconds
        self._lease = Lease(database, "retention", replica, runtime.clock, runtime.log)

    async def run(self) -> None:
        """Prune every model at each interval until cancelled."""
        try:
            while True:
                for model in self._models.files:
                    try:
                        await self.prune(model)
                    except RatchetError as error:
                        self._log.warning("pruning postponed", model=model, reason=str(error))
                await asyncio.sleep(self._interval_seconds)
        finally:
            await self._lease.release()

    async def plan(self, model: str) -> list[RetentionDecision]:
        """Return every adapter of a model with the reasons to keep it; changes nothing. Raises
        TargetUnavailable or TargetRefused if a target does not report what it serves.
        """
        served = await self._served(model)
        return await self._database.run(
            lambda session: self._decisions(session, model, served, self._clock.now())
        )

    async def prune(self, model: str) -> None:
        """Remove the released adapters and finish interrupted removals, unless another replica
        prunes. Raises as `plan`, and StorageUnavailable.
        """
        while await self._lease.ensure_held():
            await self._finish_pending(model)
            if self._models.get(model).retention is None or not await self._schedule_removals(
                model
            ):
                return

    async def _schedule_removals(self, model: str) -> bool:
        """Schedule at most `_MAX_REMOVALS` removals; False if there is nothing to remove."""
        served = await self._served(model)

        def schedule(session: Session) -> bool:
            lock_aliases(session, model)
            now = self._clock.now()
            decisions = self._decisions(session, model, served, now)
            removable = [decision for decision in decisions if decision.removable][:_MAX_REMOVALS]
            rule = self._models.get(model).retention
            assert rule is not None
            reason = (
                f"never champion, older than {rule.days:g} days, and none of the {rule.versions} "
                "newest versions"
            )
            record_removals(session, model, removable, reason, now)
            return bool(removable)

        return await self._lease.run(schedule)

    async def _finish_pending(self, model: str) -> None:
        for removal in await self._database.run(lambda session: pending_removals(session, model)):
            if not await self._lease.ensure_held():
                return
            await self._remove(removal)

    async def _remove(self, removal: AdapterRemovalRow) -> None:
        objects = await asyncio.to_thread(remove_adapter, self._store, removal.uri)
        if removal.version is not None:
            await self._merged_models.delete(removal.model, removal.version)
        await self._lease.run(
            partial(mark_removed, run_id=removal.run_id, objects=objects, now=self._clock.now())
        )
        if objects:
            kind = "version" if removal.version is not None else "candidate"
            self._metrics.count(
                "ratchet_registry_adapters_removed_total", model=removal.model, kind=kind
            )
            self._log.info(
                "adapter removed",
                model=removal.model,
                run=removal.run_id,
                version=removal.version,
                reason=removal.reason,
            )

    def _decisions(
        self, session: Session, model: str, served: ServedVersions, now: datetime
    ) -> list[RetentionDecision]:
        # Adapters that an event places elsewhere were not written by a trainer of this release, and
        # are left alone.
        stored = [
            adapter
            for adapter in stored_adapters(session, model)
            if adapter.uri.startswith(_ADAPTER_PREFIX) and ".." not in adapter.uri
        ]
        rule = self._models.get(model).retention
        return decide_removals(stored, in_use(session, model, served), rule, now)

    async def _served(self, model: str) -> ServedVersions:
        """Return the versions that aliases name at each target, and the version that the target
        was last switched to.
        """
        recorded = await self._database.run(lambda session: deployed_versions(session, model))
        served: dict[str, set[str]] = {target: {version} for target, version in recorded.items()}
        for target in self._targets.get(model, ()):
            state = await target.inspect(model)
            served.setdefault(target.name, set()).update(
                name
                for name in (state.champion, state.previous, state.challenger)
                if name is not None
            )
        return served
