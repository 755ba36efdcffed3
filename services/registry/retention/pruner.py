"""The pruner: once an hour the adapters that the retention rule lets go are removed; of several
replicas one does it.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget
from services.registry.retention.adapter_removals import (
    in_use,
    mark_removed,
    pending_removals,
    record_removals,
    stored_adapters,
)
from services.registry.retention.rule import RetentionDecision, decide_removals
from services.registry.store.database import Database, Session
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.queries import deployed_versions, lock_aliases
from services.registry.store.tables import AdapterRemovalRow
from shared.clock import Clock
from shared.config.model_file import Models
from shared.errors import RatchetError
from shared.logs import Log
from shared.observability.metrics import Metrics
from shared.storage.adapters import remove_adapter
from shared.storage.object_store import ObjectStore

_EVERY_SECONDS = 3600.0
_MAX_REMOVALS = 200
_ADAPTER_PREFIX = "adapters/"

ServedVersions = Mapping[str, Collection[str]]


class Pruner:
    """Keeps the object store to what model files say under `retention`."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        models: Models,
        targets: Mapping[str, Sequence[ServingTarget]],
        builds: MergedModels,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        replica: str = "one",
        every: float = _EVERY_SECONDS,
        lasts: float = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._store = store
        self._models = models
        self._targets = targets
        self._builds = builds
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._every = every
        self._lease = Lease(database, "retention", replica, clock, log, lease_seconds=lasts)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                for model in self._models.files:
                    try:
                        await self.prune(model)
                    except RatchetError as error:
                        self._log.warning(
                            "old adapters wait to be removed", model=model, reason=str(error)
                        )
                await asyncio.sleep(self._every)
        finally:
            await self._lease.release()

    async def plan(self, model: str) -> list[RetentionDecision]:
        """Every adapter of a model with the reasons for which it stays; changes nothing. Raises
        TargetUnavailable or Refused when a target does not say what it serves.
        """
        served = await self._served(model)
        return await self._database.run(
            lambda session: self._decisions(session, model, served, self._clock.now())
        )

    async def prune(self, model: str) -> None:
        """Remove what may go, and finish what was cut off; nothing while another replica does.
        Raises as `plan`, and StorageUnavailable.
        """
        while await self._lease.ensure_held():
            await self._finish_pending(model)
            if self._models.get(model).retention is None or not await self._schedule_removals(
                model
            ):
                return

    async def _schedule_removals(self, model: str) -> bool:
        """Write down which adapters go, up to two hundred; whether there are any."""
        served = await self._served(model)

        def decide(session: Session) -> bool:
            self._lease.guard(session)
            lock_aliases(session, model)
            now = self._clock.now()
            going = [
                judged
                for judged in self._decisions(session, model, served, now)
                if judged.removable
            ][:_MAX_REMOVALS]
            rule = self._models.get(model).retention
            assert rule is not None
            reason = (
                f"never champion, older than {rule.days:g} days, and none of the {rule.versions} "
                "newest versions"
            )
            record_removals(session, model, going, reason, now)
            return bool(going)

        return await self._database.run(decide)

    async def _finish_pending(self, model: str) -> None:
        for removal in await self._database.run(lambda session: pending_removals(session, model)):
            if not await self._lease.ensure_held():
                return
            await self._remove(removal)

    async def _remove(self, removal: AdapterRemovalRow) -> None:
        objects = await asyncio.to_thread(remove_adapter, self._store, removal.uri)
        if removal.version is not None:
            await self._builds.delete(removal.model, removal.version)

        def done(session: Session) -> None:
            self._lease.guard(session)
            mark_removed(session, removal.run_id, objects, self._clock.now())

        await self._database.run(done)
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
        # What an event names elsewhere was not written by a trainer of this release, and is not
        # touched.
        stored = [
            each
            for each in stored_adapters(session, model)
            if each.uri.startswith(_ADAPTER_PREFIX) and ".." not in each.uri
        ]
        return decide_removals(
            stored, in_use(session, model, served), self._models.get(model).retention, now
        )

    async def _served(self, model: str) -> ServedVersions:
        """What the targets say that they serve or keep at hand, and what they were last seen to
        have switched to.
        """
        recorded = await self._database.run(lambda session: deployed_versions(session, model))
        served: dict[str, set[str]] = {target: {version} for target, version in recorded.items()}
        for target in self._targets.get(model, ()):
            serving = await target.inspect(model)
            served.setdefault(target.name, set()).update(
                name
                for name in (serving.champion, serving.previous, serving.challenger)
                if name is not None
            )
        return served
