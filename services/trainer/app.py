"""The shell: one batch after another, each from its announcement to the registry's answer."""

import asyncio
from datetime import datetime
from functools import partial

from services.trainer.bus_view.registry_state import Champion
from services.trainer.bus_view.view import BusView
from services.trainer.errors import RunFailed, RunInterrupted
from services.trainer.machine.bases import LocalBase
from services.trainer.run.handoff import RunHandoff
from services.trainer.run.progress import SOURCE, ProgressReporter
from services.trainer.run.supervision import OwnershipCheck, RunSupervisor
from services.trainer.run.training_run import TrainingRun, failed, lane_configuration
from services.trainer.run_folder import Outcome, RunFolders
from services.trainer.warm_up import warm_up
from services.trainer.worker.client import TrainingProcess
from services.trainer.worker.model_session import ModelSession
from shared.clock import Clock
from shared.config.model_file import ModelFile, Models
from shared.config.training import TrainingConfig
from shared.errors import InvalidArtefact, PartitionLost, StorageUnavailable, Unprocessable
from shared.events import BatchReady, CheckpointSaved, TrainingRolledBack
from shared.failpoints import reach
from shared.identity import identity
from shared.kafka.topic_reader import TopicReader
from shared.logs import Log
from shared.messaging.bus import Producer, Record, publish
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.trace_context import traceparent_for_batch, traceparent_in
from shared.observability.tracing import NOOP_TRACING, Span, Tracing
from shared.storage.object_store import ObjectStore

INVALID_FILES_ADVICE = (
    "compare the object store with its backup; the batch can be announced again once its files "
    "are whole"
)


class Trainer:
    """Handles one batch at a time."""

    def __init__(
        self,
        models: Models,
        bases: dict[str, LocalBase],
        store: ObjectStore,
        runs: RunFolders,
        child: TrainingProcess,
        view_reader: TopicReader,
        producer: Producer,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        log: Log,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        """`bases` are the models' base models, by model; `others` reads what `Others` needs."""
        self._models = models
        self._bases = bases
        self._store = store
        self._runs = runs
        self._child = child
        self._others = BusView(view_reader, clock, health, log)
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._tracing = tracing
        self._benches: dict[tuple[LocalBase, str, str], ModelSession] = {}
        self._handovers = RunHandoff(store, runs, log)
        self._interruptions = RunSupervisor(child)
        self.pause, self.settled = self._interruptions.pause, self._interruptions.after_rebalance
        self._announced: datetime | None = None

    async def warm_up(self) -> None:
        """Make ready for the first model's first lane. Raises RunFailed when its base cannot be
        loaded.
        """
        model = self._models.files[min(self._models.files)]
        lane, settings = next(iter(model.lanes.items()))
        await warm_up(
            self._models,
            model.model,
            lane,
            self._bench(model, settings.training),
            self._runs,
            self._others,
        )

    def window_opens_at(self, record: Record) -> datetime | None:
        """When the training window of a batch's lane opens next; None when its run may go on at
        once.

        A run that has begun here goes on, whatever the hour. What is no batch of a declared model
        is not kept waiting either.
        """
        try:
            batch = decode(record.value, record.headers, BatchReady).event
            lane = self._models.get(batch.model).lanes.get(batch.lane)
        except Unprocessable:
            return None
        run_id, now = identity("run", batch.batch_id), self._clock.now()
        if lane is None or lane.window is None or lane.window.is_open(now):
            return None
        if self._runs.plan(run_id) is not None or self._others.champions.has_ended(run_id):
            return None
        return lane.window.next_open(now)

    async def handle(self, record: Record, is_owner: OwnershipCheck) -> None:
        """Bring a batch to its end. Raises Forgone, with nothing published from then on, when
        `owned` says that it is another trainer's.
        """
        batch = decode(record.value, record.headers, BatchReady).event
        model = self._models.get(batch.model)
        self._announced = record.timestamp
        self._metrics.set("ratchet_training_in_progress", 1, model=batch.model)
        try:
            with self._tracing.span(
                "train", traceparent_in(record.headers) or traceparent_for_batch(batch.batch_id)
            ) as span:
                await self._interruptions.run(
                    self._bring_to_its_end(batch, model, is_owner, span), is_owner
                )
        finally:
            self._metrics.set("ratchet_training_in_progress", 0, model=batch.model)

    async def _bring_to_its_end(
        self, batch: BatchReady, model: ModelFile, owned: OwnershipCheck, span: Span
    ) -> None:
        run_id = identity("run", batch.batch_id)
        span.set_attributes(model=batch.model, batch=batch.batch_id, run=run_id, lane=batch.lane)
        log = self._log.bind(model=batch.model, run=run_id, batch=batch.number)
        champion = await self._others.wait_for_champion(model.model, log)
        if self._others.champions.has_ended(run_id):
            log.info("already ended")
        else:
            await self._settle(batch, model, run_id, champion, owned, log, span)
        await reach("trainer.ended")
        self._runs.discard_working_files(run_id)
        await asyncio.to_thread(self._handovers.clear, run_id)

    async def _settle(
        self,
        batch: BatchReady,
        model: ModelFile,
        run_id: str,
        champion: Champion,
        owned: OwnershipCheck,
        log: Log,
        span: Span,
    ) -> None:
        """Train and evaluate until there is an outcome that nothing more follows from."""
        progress = ProgressReporter(
            batch,
            run_id,
            self._producer,
            self._clock,
            self._metrics,
            self._health,
            log,
            span.headers,
        )
        bench = self._bench(model, lane_configuration(model, batch))
        leave = partial(self._leave, run_id, batch.model, log)
        run = TrainingRun(
            batch,
            run_id,
            model,
            self._models,
            self._store,
            self._runs,
            bench,
            progress,
            leave,
            self._clock,
        )
        log.info("run begins", champion=champion.version, examples=batch.counts.training)
        if await asyncio.to_thread(self._handovers.fetch, run_id):
            log.info("what another worker had left was fetched")
        evaluation = 1
        while not self._others.champions.has_ended(run_id):
            try:
                outcome = await self._outcome(run, evaluation, champion)
            except RunInterrupted as interrupted:
                progress.leave_phase()
                await leave()
                log.info("interrupted", step=interrupted.step)
                await self._interruptions.suspend()
                continue
            finally:
                progress.leave_phase()
            if not await self._publish_once(outcome, owned, log, span) or isinstance(
                outcome, TrainingRolledBack
            ):
                break
            answer = await self._others.wait_for_answer(outcome, log)
            if answer.answer != "reevaluate":
                break
            evaluation += 1
            champion = await self._others.wait_for_champion(model.model, log)

    async def _leave(self, run_id: str, model: str, log: Log) -> None:
        """Put what is done so far where the run's next owner finds it. Training is not held up by
        an object store that is away.
        """
        try:
            if await asyncio.to_thread(self._handovers.upload, run_id):
                self._metrics.count("ratchet_training_checkpoints_total", model=model)
        except StorageUnavailable as error:
            log.warning("the run's newest state stays on this machine", reason=str(error))

    async def _outcome(self, run: TrainingRun, evaluation: int, champion: Champion) -> Outcome:
        recorded = self._others.champions.published_checkpoint(
            run.run_id, evaluation
        ) or self._runs.outcome(run.run_id, evaluation)
        if recorded is not None:
            return recorded
        batch, model = run.batch, run.model
        outcome: Outcome
        try:
            quarantined, withdrawn = (
                self._others.champions.quarantined_batches(batch.model),
                self._others.withdrawals.for_model(batch.model),
            )
            history = self._others.history.steps_before(batch.model, run.run_id)
            outcome = await run.evaluate(evaluation, champion, quarantined, withdrawn, history)
        except RunFailed as failure:
            outcome = failed(
                batch,
                run.run_id,
                model,
                champion,
                run.bench.base,
                evaluation,
                failure.reason,
                failure.advice,
                self._clock,
            )
        except InvalidArtefact as error:
            outcome = failed(
                batch,
                run.run_id,
                model,
                champion,
                run.bench.base,
                evaluation,
                str(error),
                INVALID_FILES_ADVICE,
                self._clock,
            )
        try:
            self._runs.write_outcome(run.run_id, evaluation, outcome)
        except RunFailed as failure:
            # What holds is what stands on the topic; after a crash before that, the evaluation is
            # done again.
            self._log.warning(
                "the outcome is not on this machine's disk", run=run.run_id, reason=failure.reason
            )
        await reach("trainer.recorded")
        return outcome

    async def _publish_once(
        self, outcome: Outcome, owned: OwnershipCheck, log: Log, span: Span
    ) -> bool:
        """Publish an outcome unless some trainer has; whether the run goes on with it. Raises
        Forgone.

        A worker that slept for longer than its session may believe that the batch is its own until
        the next heartbeat: what stands on the topics is what holds.
        """
        if not await owned():
            raise PartitionLost("another trainer has this batch now; nothing is published")
        await self._others.refresh()
        if self._others.champions.has_ended(outcome.run_id):
            log.info("another trainer has ended this run")
            return False
        if self._others.champions.published_checkpoint(outcome.run_id, outcome.evaluation) is None:
            await self._publish(outcome, log, span)
            await reach("trainer.published")
        return True

    async def _publish(self, outcome: Outcome, log: Log, span: Span) -> None:
        saved = isinstance(outcome, CheckpointSaved)
        topic = TRAINING_CHECKPOINTS if saved else TRAINING_ROLLBACKS
        await publish(self._producer, topic, outcome.model, outcome, SOURCE, span.headers)
        told = "promotable" if isinstance(outcome, CheckpointSaved) else outcome.outcome
        span.set_attributes(outcome=told)
        self._metrics.count("ratchet_training_runs_total", model=outcome.model, outcome=told)
        if outcome.verdict and outcome.evaluation == 1 and self._announced is not None:
            waited = (self._clock.now() - self._announced).total_seconds()
            self._metrics.observe(
                "ratchet_training_verdict_seconds", waited, model=outcome.model, lane=outcome.lane
            )
        alarm = outcome.verdict.alarm if outcome.verdict else None
        self._metrics.set("ratchet_training_reward_hacking", alarm is not None, model=outcome.model)
        if alarm:
            log.error("tripwire", alarm=alarm)
        reasons = (
            "; ".join(outcome.verdict.reasons)
            if outcome.verdict
            else getattr(outcome, "reason", "")
        )
        log.info("outcome", outcome=told, evaluation=outcome.evaluation, reasons=reasons)

    def _bench(self, model: ModelFile, training: TrainingConfig) -> ModelSession:
        base = self._bases[model.model]
        key = (base, training.precision, training.quantisation)
        if key not in self._benches:
            self._benches[key] = ModelSession(self._child, *key)
        return self._benches[key]
