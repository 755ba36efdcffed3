"""The consumer loop: each event of the dataset service and of the trainer in one transaction, its offset committed afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from services.registry.announcements import batch_announced
from services.registry.deployer import Deployer
from services.registry.handlers import checkpoint_saved, model_declared, progressed, training_rolled_back
from services.registry.lifecycle import number_of
from services.registry.outbox import Publisher
from services.registry.store.database import Database
from services.registry.store.queries import aliases_of, version_of
from services.registry.withdrawals import examples_withdrawn
from shared.bus import Handler, Producer, Record, consume
from shared.clock import Clock
from shared.codec import decode
from shared.errors import Unprocessable
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    ExamplesWithdrawn,
    TrainingProgressed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRolledBack,
)
from shared.health import Health
from shared.logs import Log
from shared.metrics import Metrics
from shared.model_file import Models
from shared.topics import DATASET_WITHDRAWALS, TRAINING_BATCHES, TRAINING_CHECKPOINTS, TRAINING_PROGRESS, TRAINING_ROLLBACKS

GROUP = "ratchet-registry"
TOPICS = (DATASET_WITHDRAWALS, TRAINING_BATCHES, TRAINING_PROGRESS, TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS)

E = TypeVar("E", bound=Event)

Work = Callable[[Session, datetime], Sequence[Event]]


class Registry:
    """What happens with an event, and with what it decides: wake the publisher and the deployer, count."""

    def __init__(
        self, database: Database, models: Models, publisher: Publisher, deployer: Deployer, clock: Clock, log: Log, metrics: Metrics
    ) -> None:
        self.database = database
        self.models = models
        self.deployer = deployer
        self.clock = clock
        self._publisher = publisher
        self._log = log
        self._metrics = metrics

    async def declare(self) -> None:
        """Give every declared model that has no version its version 0."""
        for model in self.models.files.values():
            self.announce(await self.database.run(partial(model_declared, model=model, now=self.clock.now())))
            await self._show_champion(model.model)

    async def handle(self, record: Record) -> None:
        """Raises Unprocessable for an event that never can be handled, Unavailable while the database is away."""
        work = self._work(record)
        self.announce(await self.database.run(lambda session: work(session, self.clock.now())))

    async def decide(self, work: Callable[[Session, datetime], tuple[E, int]]) -> tuple[E, int]:
        """Decide something and set going what follows; to the end, even when whoever asked goes away in the middle."""

        async def to_the_end() -> tuple[E, int]:
            event, move = await self.database.run(lambda session: work(session, self.clock.now()))
            self.announce([event])
            return event, move

        return await asyncio.shield(asyncio.ensure_future(to_the_end()))

    def announce(self, events: Sequence[Event]) -> None:
        """Set going what follows from events that are in the outbox."""
        for event in events:
            if isinstance(event, VersionPromoted):
                self._metrics.count("ratchet_registry_promotions_total", model=event.model)
                self._moved(event.model, event.version)
                self._log.info("promoted", model=event.model, version=event.version, previous=event.previous, reason=event.reason)
            elif isinstance(event, VersionRolledBack):
                self._metrics.count("ratchet_registry_rollbacks_total", model=event.model, actor=event.actor)
                self._moved(event.model, event.version)
                self._log.info("rolled back", model=event.model, version=event.version, origin=event.from_version, reason=event.reason)
        if events:
            self._publisher.wake()

    def _work(self, record: Record) -> Work:
        if record.topic == DATASET_WITHDRAWALS:
            withdrawn = decode(record.value, record.headers, ExamplesWithdrawn).event
            self.models.get(withdrawn.model)
            return lambda session, now: examples_withdrawn(session, withdrawn, record.offset, now)
        if record.topic == TRAINING_BATCHES:
            batch = decode(record.value, record.headers, BatchReady).event
            self.models.get(batch.model)
            return lambda session, now: batch_announced(session, batch)
        if record.topic == TRAINING_PROGRESS:
            progress = decode(record.value, record.headers, TrainingProgressed).event
            self.models.get(progress.model)
            return lambda session, now: progressed(session, progress, now)
        if record.topic == TRAINING_CHECKPOINTS:
            checkpoint = decode(record.value, record.headers, CheckpointSaved).event
            self.models.get(checkpoint.model)
            return lambda session, now: checkpoint_saved(session, checkpoint, now)
        ended = decode(record.value, record.headers, TrainingRolledBack).event
        self.models.get(ended.model)
        return lambda session, now: training_rolled_back(session, ended, now)

    def _moved(self, model: str, version: str) -> None:
        self._metrics.set("ratchet_registry_champion_number", number_of(version), model=model)
        self.deployer.wake()

    async def _show_champion(self, model: str) -> None:
        def number(session: Session) -> int:
            aliases = aliases_of(session, model)
            version = version_of(session, model, aliases.champion) if aliases and aliases.champion else None
            return version.number if version else 0

        self._metrics.set("ratchet_registry_champion_number", await self.database.run(number), model=model)


async def follow(
    registry: Registry,
    records: AsyncIterator[Record],
    commit: Handler,
    producer: Producer,
    clock: Clock,
    log: Log,
    metrics: Metrics,
    health: Health,
) -> None:
    """Handle records until they end."""

    async def handle(record: Record) -> None:
        health.progressed(busy=True)
        try:
            await registry.handle(record)
        except Unprocessable:
            metrics.count("ratchet_dead_letters_total", topic=record.topic)
            raise
        finally:
            health.progressed()

    await consume(records, handle, commit, producer, "registry", clock, log)
