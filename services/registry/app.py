"""The registry's application: it maps topics to event types and handlers, runs each decision in one
transaction with its events in the outbox, and acts on these events.

Live feedback is handled in batches by a consumer of its own, so that no outcome waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from services.registry.deploy.deployer import Deployer
from services.registry.handlers import (
    HandlerContext,
    batch_ready,
    checkpoint_saved,
    examples_withdrawn,
    model_declared,
    training_progressed,
    training_request_answered,
    training_rolled_back,
    waiting_reported,
)
from services.registry.reporting import DecisionReport
from services.registry.rollout.canary_trial import evaluate_trial, update_share
from services.registry.rollout.live_monitor import monitor_live_rewards
from services.registry.store.audit_queries import OPERATOR, add_audit_entry
from services.registry.store.database import Database, RefusedByDatabase, Session, SessionInfo
from services.registry.store.outbox import TRACE_HEADERS, RegistryEvent, enqueue
from services.registry.store.queries import aliases_of, hold_of
from services.registry.store.tables import Json
from services.registry.store.training_queries import pause_of
from shared.config.canary import CanarySettings
from shared.config.models import Models
from shared.errors import ContractViolation, RatchetError, Unavailable, Unprocessable
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    ExamplesWithdrawn,
    FeedbackScored,
    TrainingProgressed,
    TrainingRequestAnswered,
    TrainingRolledBack,
    VersionEvent,
    VersionPromoted,
    VersionRegistered,
    VersionRolledBack,
    WaitingReported,
    WithdrawalRequested,
)
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import (
    DATASET_WAITING,
    DATASET_WITHDRAWALS,
    TRAINING_ANSWERS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.observability.trace_context import (
    traceparent_for_batch,
    traceparent_for_version,
    traceparent_in,
)
from shared.observability.tracing import NOOP_TRACING, Span
from shared.service.runtime import Runtime
from shared.storage.keys import require_artefacts

GROUP = "ratchet-registry"
LIVE_GROUP = "ratchet-registry-live"
MAX_BATCH_SIZE = 500
TRIAL_CHECK_SECONDS = 5.0

LiveEvent = FeedbackScored | WithdrawalRequested
LIVE_EVENTS: tuple[type[LiveEvent], ...] = (FeedbackScored, WithdrawalRequested)

D = TypeVar("D", bound=RegistryEvent | None)
E = TypeVar("E", bound=Event)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Subscription(Generic[E]):
    """Event type of a topic, and its handler."""

    event_type: type[E]
    handle: Callable[[Session, E, HandlerContext], Sequence[VersionEvent]]


SUBSCRIPTIONS: Mapping[str, Subscription[Any]] = {
    DATASET_WITHDRAWALS: Subscription(ExamplesWithdrawn, examples_withdrawn),
    DATASET_WAITING: Subscription(WaitingReported, waiting_reported),
    TRAINING_ANSWERS: Subscription(TrainingRequestAnswered, training_request_answered),
    TRAINING_BATCHES: Subscription(BatchReady, batch_ready),
    TRAINING_PROGRESS: Subscription(TrainingProgressed, training_progressed),
    TRAINING_CHECKPOINTS: Subscription(CheckpointSaved, checkpoint_saved),
    TRAINING_ROLLBACKS: Subscription(TrainingRolledBack, training_rolled_back),
}
TOPICS = tuple(SUBSCRIPTIONS)


class Registry:
    """Runs handlers and acts on their decisions: reports them and wakes the deployer."""

    def __init__(
        self,
        database: Database,
        models: Models,
        deployer: Deployer,
        runtime: Runtime,
    ) -> None:
        self.database = database
        self.models = models
        self.deployer = deployer
        self.clock = runtime.clock
        self._log = runtime.log
        self._tracing = runtime.tracing
        self._report = DecisionReport(runtime.metrics, runtime.log)
        self._report.init_series(models, TOPICS)

    async def register_declared_models(self) -> None:
        """Give every declared model that has no version its version 0."""
        for model in self.models.files.values():
            declare = partial(model_declared, model=model, now=self.clock.now())
            await self._decide(declare, lambda decided: decided)
            await self.database.run(partial(update_share, model=model))
            await self.update_state_metrics(model.model)

    async def handle(self, record: Record) -> None:
        """Handle one record. Raises Unprocessable for an event that can never be handled,
        Unavailable while the database is.
        """
        subscription = SUBSCRIPTIONS[record.topic]
        event = decode(record.value, record.headers, subscription.event_type).event
        require_artefacts(event)
        canary = self._canary_settings(event.model)
        context = HandlerContext(self.clock.now(), record.offset, canary)
        with self._span(record, event) as span:
            try:
                decided = await self._decide(
                    lambda session: subscription.handle(session, event, context),
                    lambda decided: decided,
                    {TRACE_HEADERS: span.headers},
                )
            except RefusedByDatabase as error:
                raise ContractViolation(
                    f"it contradicts what the registry has stored: {error.orig}"
                ) from error
            _add_result(span, decided)

    def _canary_settings(self, model: str) -> CanarySettings | None:
        """Return the settings of a model's canary trials; None if no target supports them. Raises
        UnknownModel.
        """
        canary = self.models.get(model).canary
        return canary if self.deployer.canary_target_names(model) else None

    @contextmanager
    def _span(self, record: Record, event: Event) -> Iterator[Span]:
        """Open the span of an outcome, between those of its run and of a deployment; other events
        have none.
        """
        if not isinstance(event, CheckpointSaved | TrainingRolledBack):
            with NOOP_TRACING.span("register") as span:
                yield span
            return
        parent = traceparent_in(record.headers) or traceparent_for_batch(event.batch_id)
        # A version is created at the first evaluation of its run; deployments continue from there.
        traceparent = (
            traceparent_for_version(event.batch_id, event.run_id) if event.evaluation <= 1 else None
        )
        with self._tracing.span("register", parent, traceparent=traceparent) as span:
            span.set_attributes(model=event.model, run=event.run_id, evaluation=event.evaluation)
            yield span

    async def record_live_feedback(self, records: Sequence[Record]) -> None:
        """Handle a batch of live feedback. Ignores invalid records, which the dataset service
        sends to the dead letters. Raises Unavailable.
        """
        by_model: dict[str, list[LiveEvent]] = {}
        for record in records:
            with suppress(Unprocessable):
                event = decode(
                    record.value, record.headers, *LIVE_EVENTS, default=FeedbackScored
                ).event
                by_model.setdefault(self.models.get(event.model).model, []).append(event)
        for name, feedback in by_model.items():
            monitor = partial(
                monitor_live_rewards,
                model=self.models.get(name),
                feedback=feedback,
                now=self.clock.now(),
            )
            result = await self._decide(monitor, lambda result: _present(result.moved))
            self._report.report_monitor(name, result)
            if result.moved is not None:
                await self.update_state_metrics(name)
            await self.evaluate_trial(
                name, [event for event in feedback if isinstance(event, FeedbackScored)]
            )

    async def evaluate_trial(self, model: str, feedback: Sequence[FeedbackScored] = ()) -> None:
        """Record feedback on a model's canary trial, and end the trial when it is due. Raises
        Unavailable.
        """
        evaluate = partial(
            evaluate_trial,
            model=self.models.get(model),
            targets=self.deployer.canary_target_names(model),
            now=self.clock.now(),
            feedback=feedback,
        )
        status = await self._decide(
            evaluate, lambda status: _present(status.ending if status else None)
        )
        self._report.report_trial(model, status)
        if status is not None and status.ending is not None:
            await self.update_state_metrics(model)

    async def watch_trials(self, interval_seconds: float = TRIAL_CHECK_SECONDS) -> None:
        """Evaluate canary trials regularly until cancelled: their time may run out without
        feedback.
        """
        while True:
            for model in self.models.files:
                try:
                    await self.evaluate_trial(model)
                except Unavailable as error:
                    self._log.warning(
                        "canary trial evaluation postponed", model=model, reason=str(error)
                    )
            await asyncio.sleep(interval_seconds)

    async def decide(
        self, work: Callable[[Session, datetime], tuple[D, R]], operator: str | None = None
    ) -> tuple[D, R]:
        """Run a decision with its event, if any. `operator` names who asked for it, for the audit
        log. Completes even if the caller is cancelled, for example when an HTTP client disconnects.
        """
        decision = self._decide(
            lambda session: work(session, self.clock.now()),
            lambda result: _present(result[0]),
            {OPERATOR: operator},
        )
        return await asyncio.shield(asyncio.ensure_future(decision))

    async def _decide(
        self,
        work: Callable[[Session], R],
        decided_in: Callable[[R], Sequence[RegistryEvent]],
        info: SessionInfo | None = None,
    ) -> R:
        """Run a decision in a transaction whose outbox gets the events decided in its result, then
        act on them. Raises Unavailable.
        """

        def transaction(session: Session) -> R:
            result = work(session)
            enqueue(session, decided_in(result), self.clock.now())
            return result

        result = await self.database.run(transaction, info)
        self._act_on(decided_in(result))
        return result

    async def record_refusal(
        self, model: str, actor: str, operator: str | None, reason: str, evidence: Json
    ) -> None:
        """Record a refused request in the audit log. A database error is logged: the request has
        had no effect.
        """
        add = partial(
            add_audit_entry,
            model=model,
            actor=actor,
            action="refused",
            reason=reason,
            now=self.clock.now(),
            evidence=evidence,
        )
        try:
            await self.database.run(add, {OPERATOR: operator})
        except RatchetError as error:
            self._log.warning("refused request not audited", model=model, reason=str(error))

    def _act_on(self, events: Sequence[RegistryEvent]) -> None:
        """Report decided events, and wake the deployer for a moved champion."""
        for event in events:
            self._report.report_event(event)
            if isinstance(event, VersionPromoted | VersionRolledBack):
                self.deployer.wake()

    async def update_state_metrics(self, model: str) -> None:
        """Export which version is champion, and whether the model is on hold or its training is
        paused.
        """

        def state(session: Session) -> tuple[str | None, bool, bool]:
            aliases = aliases_of(session, model)
            champion = aliases.champion if aliases else None
            on_hold = hold_of(session, model) is not None
            return champion, on_hold, pause_of(session, model) is not None

        champion, on_hold, paused = await self.database.run(state)
        self._report.show_champion(model, champion)
        self._report.show_hold(model, on_hold)
        self._report.show_pause(model, paused)


def _present(event: RegistryEvent | None) -> Sequence[RegistryEvent]:
    return [event] if event is not None else []


def _add_result(span: Span, decided: Iterable[VersionEvent]) -> None:
    """Describe a registered version, if any, in the span of its outcome."""
    for event in decided:
        if isinstance(event, VersionRegistered):
            span.set_attributes(version=event.version, answer=event.answer)
