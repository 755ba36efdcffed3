"""The consumer loops: each event of the dataset service and of the trainer in one transaction, its
offset committed afterwards; live feedback many at a time, on its own, so that no outcome waits for
it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TypeVar

from services.registry.deploy.deployer import Deployer
from services.registry.handlers import (
    batch_ready,
    checkpoint_saved,
    model_declared,
    training_progressed,
    training_rolled_back,
)
from services.registry.lifecycle import version_number
from services.registry.rollout.canary_trial import evaluate_trial, update_share
from services.registry.rollout.live_monitor import MonitorResult, monitor_live_rewards
from services.registry.store.database import Database, Session
from services.registry.store.outbox import TRACE_HEADERS, OutboxPublisher
from services.registry.store.queries import aliases_of, hold_of
from services.registry.versions.withdrawals import record_withdrawal
from shared.clock import Clock
from shared.config.model_file import Models
from shared.errors import Unavailable, Unprocessable
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    ExamplesWithdrawn,
    FeedbackScored,
    TrainingProgressed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    VersionWithdrawn,
)
from shared.logs import Log
from shared.messaging.bus import Record
from shared.messaging.codec import Decoded, decode
from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.observability.metrics import Metrics
from shared.observability.trace_context import (
    traceparent_for_batch,
    traceparent_for_version,
    traceparent_in,
)
from shared.observability.tracing import NOOP_TRACING, Tracing

GROUP = "ratchet-registry"
LIVE_GROUP = "ratchet-registry-live"
MAX_BATCH_SIZE = 500
TOPICS = (
    DATASET_WITHDRAWALS,
    TRAINING_BATCHES,
    TRAINING_PROGRESS,
    TRAINING_CHECKPOINTS,
    TRAINING_ROLLBACKS,
)

E = TypeVar("E", bound=Event | None)
R = TypeVar("R")

Work = Callable[[Session, datetime], Sequence[Event]]


class Registry:
    """What happens with an event, and with what it decides: wake the publisher and the deployer,
    count.
    """

    def __init__(
        self,
        database: Database,
        models: Models,
        publisher: OutboxPublisher,
        deployer: Deployer,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        self.database = database
        self.models = models
        self.deployer = deployer
        self.clock = clock
        self._publisher = publisher
        self._log = log
        self._metrics = metrics
        for topic in TOPICS:
            metrics.init_series("ratchet_dead_letters_total", topic=topic)
        for name, model in models.files.items():
            metrics.init_series("ratchet_registry_promotions_total", model=name)
            if model.canary is not None:
                self._initialise_trial_metrics(name)
            for actor in ("operator", "monitor"):
                metrics.init_series("ratchet_registry_rollbacks_total", model=name, actor=actor)
        self._tracing = tracing

    def _initialise_trial_metrics(self, model: str) -> None:
        self._metrics.set("ratchet_registry_on_trial", 0, model=model)
        for direction in ("worse", "better"):
            self._metrics.set("ratchet_registry_trial_wealth", 1, model=model, direction=direction)
        for quarantined in ("true", "false"):
            self._metrics.init_series(
                "ratchet_registry_withdrawals_total", model=model, quarantined=quarantined
            )

    async def register_declared_models(self) -> None:
        """Give every declared model that has no version its version 0."""
        for model in self.models.files.values():
            self.publish_decided(
                await self.database.run(partial(model_declared, model=model, now=self.clock.now()))
            )
            await self.database.run(partial(update_share, model=model))
            await self.update_state_metrics(model.model)

    async def handle(self, record: Record) -> None:
        """Raises Unprocessable for an event that never can be handled, Unavailable while the
        database is away.
        """
        work = self._work(record)
        if record.topic in (TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS) and self._tracing.enabled:
            await self._register(record, work)
        else:
            self.publish_decided(
                await self.database.run(lambda session: work(session, self.clock.now()))
            )

    async def _register(self, record: Record, work: Work) -> None:
        """The same as a span, after that of the run and before that of a deployment."""
        decoded: Decoded[CheckpointSaved | TrainingRolledBack] = decode(
            record.value, record.headers, CheckpointSaved, TrainingRolledBack
        )
        outcome = decoded.event
        run = traceparent_in(record.headers) or traceparent_for_batch(outcome.batch_id)
        # A version is made at the first evaluation of its run: it is there that deployments go on.
        place = (
            traceparent_for_version(outcome.batch_id, outcome.run_id)
            if outcome.evaluation <= 1
            else None
        )
        with self._tracing.span("register", run, traceparent=place) as span:
            span.set_attributes(
                model=outcome.model, run=outcome.run_id, evaluation=outcome.evaluation
            )

            def traced(session: Session) -> Sequence[Event]:
                session.info[TRACE_HEADERS] = span.headers
                return work(session, self.clock.now())

            decided = await self.database.run(traced)
            for event in decided:
                if isinstance(event, VersionRegistered):
                    span.set_attributes(version=event.version, answer=event.answer)
            self.publish_decided(decided)

    async def record_live_feedback(self, records: Sequence[Record]) -> None:
        """Take in live feedback. What is no feedback is the dataset service's to complain about.
        Raises Unavailable.
        """
        heard: dict[str, list[FeedbackScored]] = {}
        for record in records:
            with suppress(Unprocessable):
                event = decode(record.value, record.headers, FeedbackScored).event
                heard.setdefault(self.models.get(event.model).model, []).append(event)
        for name, events in heard.items():
            model = self.models.get(name)
            work = partial(monitor_live_rewards, model=model, feedback=events, now=self.clock.now())
            self._report_live_monitor(name, watched := await self.database.run(work))
            if watched.moved is not None:
                await self.update_state_metrics(name)
            await self.evaluate_trial(name, events)

    async def evaluate_trial(self, model: str, feedback: Sequence[FeedbackScored] = ()) -> None:
        """Take in what users say of a challenger on trial, and end the trial when it is time.
        Raises Unavailable.
        """
        places = self.deployer.canary_target_names(model)
        work = partial(
            evaluate_trial,
            model=self.models.get(model),
            targets=places,
            now=self.clock.now(),
            feedback=feedback,
        )
        found = await self.database.run(work)
        self._metrics.set(
            "ratchet_registry_on_trial", found is not None and found.ending is None, model=model
        )
        if found is None:
            return
        for direction, wealth in (
            ("worse", found.evidence.worse),
            ("better", found.evidence.better),
        ):
            self._metrics.set(
                "ratchet_registry_trial_wealth", wealth, model=model, direction=direction
            )
        if found.ending is not None:
            self.publish_decided([found.ending])
            await self.update_state_metrics(model)

    async def decide(self, work: Callable[[Session, datetime], tuple[E, R]]) -> tuple[E, R]:
        """Decide something, or find that it was decided, and set going what follows; to the end,
        even when whoever asked goes away in the middle.
        """

        async def to_the_end() -> tuple[E, R]:
            event, found = await self.database.run(lambda session: work(session, self.clock.now()))
            self.publish_decided([event] if event is not None else [])
            return event, found

        return await asyncio.shield(asyncio.ensure_future(to_the_end()))

    def publish_decided(self, events: Sequence[Event]) -> None:
        """Set going what follows from events that are in the outbox."""
        for event in events:
            if isinstance(event, VersionPromoted):
                self._metrics.count("ratchet_registry_promotions_total", model=event.model)
                self._champion_moved(event.model, event.version)
                self._log.info(
                    "promoted",
                    model=event.model,
                    version=event.version,
                    previous=event.previous,
                    reason=event.reason,
                )
            elif isinstance(event, VersionRolledBack):
                self._metrics.count(
                    "ratchet_registry_rollbacks_total", model=event.model, actor=event.actor
                )
                self._champion_moved(event.model, event.version)
                self._log.info(
                    "rolled back",
                    model=event.model,
                    version=event.version,
                    origin=event.from_version,
                    reason=event.reason,
                )
            elif isinstance(event, VersionWithdrawn):
                self._metrics.count(
                    "ratchet_registry_withdrawals_total",
                    model=event.model,
                    quarantined=str(event.quarantined).lower(),
                )
                self._log.info(
                    "withdrawn", model=event.model, version=event.version, reason=event.reason
                )
        if events:
            self._publisher.wake()

    def _work(self, record: Record) -> Work:
        if record.topic == DATASET_WITHDRAWALS:
            withdrawn = decode(record.value, record.headers, ExamplesWithdrawn).event
            self.models.get(withdrawn.model)
            return lambda session, now: record_withdrawal(session, withdrawn, record.offset, now)
        if record.topic == TRAINING_BATCHES:
            batch = decode(record.value, record.headers, BatchReady).event
            self.models.get(batch.model)
            return lambda session, now: batch_ready(session, batch)
        if record.topic == TRAINING_PROGRESS:
            progress = decode(record.value, record.headers, TrainingProgressed).event
            self.models.get(progress.model)
            return lambda session, now: training_progressed(session, progress, now)
        if record.topic == TRAINING_CHECKPOINTS:
            checkpoint = decode(record.value, record.headers, CheckpointSaved).event
            model = self.models.get(checkpoint.model)
            canary = model.canary if self.deployer.canary_target_names(model.model) else None
            return lambda session, now: checkpoint_saved(session, checkpoint, now, canary)
        ended = decode(record.value, record.headers, TrainingRolledBack).event
        self.models.get(ended.model)
        return lambda session, now: training_rolled_back(session, ended, now)

    def _champion_moved(self, model: str, version: str) -> None:
        self._metrics.set("ratchet_registry_champion_number", version_number(version), model=model)
        self.deployer.wake()

    def _report_live_monitor(self, model: str, watched: MonitorResult) -> None:
        found = watched.evidence
        if found is not None:
            self._metrics.set(
                "ratchet_registry_live_reward", found.champion, model=model, alias="champion"
            )
            self._metrics.set(
                "ratchet_registry_live_reward", found.previous, model=model, alias="previous"
            )
            self._metrics.set("ratchet_registry_live_wealth", found.e_value, model=model)
        self._metrics.set("ratchet_registry_live_worse", watched.worse, model=model)
        if watched.moved is not None:
            self.publish_decided([watched.moved])
        elif watched.worse:
            self._log.warning("the champion does worse in live use", model=model, evidence=found)

    async def update_state_metrics(self, model: str) -> None:
        """Let the metrics say which version is champion, and whether the model is on hold."""

        def state(session: Session) -> tuple[int, bool]:
            aliases = aliases_of(session, model)
            return version_number(aliases.champion) if aliases and aliases.champion else 0, hold_of(
                session, model
            ) is not None

        champion, on_hold = await self.database.run(state)
        self._metrics.set("ratchet_registry_champion_number", champion, model=model)
        self._metrics.set("ratchet_registry_on_hold", on_hold, model=model)


TRIAL_CHECK_SECONDS = 5.0


async def watch_trials(
    registry: Registry, log: Log, interval_seconds: float = TRIAL_CHECK_SECONDS
) -> None:
    """Until cancelled. Feedback ends a trial by itself; what it does not say is that time goes by."""
    while True:
        for model in registry.models.files:
            try:
                await registry.evaluate_trial(model)
            except Unavailable as error:
                log.warning("trials wait", model=model, reason=str(error))
        await asyncio.sleep(interval_seconds)
