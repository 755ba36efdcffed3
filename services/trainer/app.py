"""Trainer: brings one announced batch at a time to its outcome and the registry's answer."""

import asyncio
from datetime import datetime
from functools import partial

from services.trainer.bus_view.view import BusView, EvaluationInputs
from services.trainer.errors import RunFailed, RunInterrupted
from services.trainer.machine.bases import LocalBase
from services.trainer.run.batch_job import BatchJob, run_id_of
from services.trainer.run.handoff import RunHandoff
from services.trainer.run.outcome import RunFacts
from services.trainer.run.outcome_publisher import OutcomePublisher
from services.trainer.run.progress import ProgressReporter
from services.trainer.run.supervision import OwnershipCheck, RunSupervisor
from services.trainer.run.training_run import TrainingRun
from services.trainer.run_folder import Outcome, RunFolders
from services.trainer.warm_up import warm_up
from services.trainer.worker.client import TrainingProcess
from services.trainer.worker.model_session import ModelSession
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.config.training import TrainingConfig
from shared.errors import StorageUnavailable, Unprocessable
from shared.events import BatchReady, TrainingRolledBack
from shared.failpoints import reach
from shared.kafka.topic_reader import TopicReader
from shared.messaging.bus import Producer, Record
from shared.messaging.codec import decode
from shared.observability.trace_context import traceparent_for_batch, traceparent_in
from shared.service.runtime import Runtime
from shared.storage.object_store import ObjectStore


class Trainer:
    """Handles one batch at a time."""

    def __init__(
        self,
        models: Models,
        bases: dict[str, LocalBase],
        store: ObjectStore,
        folders: RunFolders,
        process: TrainingProcess,
        view_reader: TopicReader,
        producer: Producer,
        runtime: Runtime,
    ) -> None:
        """`bases` are the base models by model; `view_reader` reads the topics of the bus view."""
        self._models = models
        self._bases = bases
        self._store = store
        self._folders = folders
        self._process = process
        self._producer = producer
        self._runtime = runtime
        self._sessions: dict[tuple[LocalBase, str, str], ModelSession] = {}
        self._view = BusView(view_reader, runtime)
        self._handoff = RunHandoff(store, folders, runtime.log)
        self._supervisor = RunSupervisor(process)
        self._publisher = OutcomePublisher(self._view, producer, runtime)

    async def warm_up(self) -> None:
        """Prepare for the first model's first lane. Raises RunFailed if its base cannot load."""
        model = self._models.files[min(self._models.files)]
        lane, settings = next(iter(model.lanes.items()))
        session = self._session(model, settings.training)
        await warm_up(self._models, model.model, lane, session, self._folders, self._view)

    async def pause(self, seconds: float) -> None:
        """Stop the current training and hand off its checkpoint, within `seconds`."""
        await self._supervisor.pause(seconds)

    async def after_rebalance(self) -> None:
        """Continue the paused run, or abandon it if another trainer owns its batch now."""
        await self._supervisor.after_rebalance()

    def window_opens_at(self, record: Record) -> datetime | None:
        """Return when the training window of a batch's lane opens; None if the batch may be handled
        now.

        A run that has started continues at any hour. Records that are not a batch of a declared
        model do not wait either.
        """
        try:
            batch = decode(record.value, record.headers, BatchReady).event
            lane = self._models.get(batch.model).lanes.get(batch.lane)
        except Unprocessable:
            return None
        run_id, now = run_id_of(batch), self._runtime.clock.now()
        if lane is None or lane.window is None or lane.window.is_open(now):
            return None
        if self._folders.plan(run_id) is not None or self._view.run(run_id).has_ended:
            return None
        return lane.window.next_open(now)

    async def handle(self, record: Record, is_owner: OwnershipCheck) -> None:
        """Bring a batch to its outcome and wait for the registry's answer.

        Raises PartitionLost, and publishes nothing from then on, once `is_owner` returns False.
        """
        batch = decode(record.value, record.headers, BatchReady).event
        model = self._models.get(batch.model)
        metrics = self._runtime.metrics
        metrics.set("ratchet_training_in_progress", 1, model=batch.model)
        try:
            parent = traceparent_in(record.headers) or traceparent_for_batch(batch.batch_id)
            with self._runtime.tracing.span("train", parent) as span:
                run_id = run_id_of(batch)
                span.set_attributes(
                    model=batch.model, batch=batch.batch_id, run=run_id, lane=batch.lane
                )
                log = self._runtime.log.bind(model=batch.model, run=run_id, batch=batch.number)
                job = BatchJob(batch, model, record.timestamp, is_owner, log, span)
                await self._supervisor.run(self._complete(job), is_owner)
        finally:
            metrics.set("ratchet_training_in_progress", 0, model=batch.model)

    async def _complete(self, job: BatchJob) -> None:
        await self._run_until_answered(job)
        await reach("trainer.ended")
        self._folders.discard_working_files(job.run_id)
        await asyncio.to_thread(self._handoff.clear, job.run_id)

    async def _run_until_answered(self, job: BatchJob) -> None:
        """Train and evaluate until the run has ended: rolled back, or answered by the registry."""
        run_id, model = job.run_id, job.batch.model
        inputs = await self._view.evaluation_inputs(model, run_id, job.log)
        published = self._view.run(run_id)
        if published.has_ended:
            job.log.info("run already ended")
            return
        run = self._training_run(job)
        champion = inputs.champion.version
        job.log.info("run started", champion=champion, examples=job.batch.counts.training)
        if await asyncio.to_thread(self._handoff.fetch, job.run_id):
            job.log.info("run state fetched from the object store")
        evaluation = 1
        while not published.has_ended:
            try:
                outcome = await self._outcome(run, evaluation, inputs)
            except RunInterrupted as interrupted:
                await run.hand_off()
                job.log.info("interrupted", step=interrupted.step)
                await self._supervisor.suspend()
                continue
            is_open = await self._publisher.publish_once(outcome, job)
            if not is_open or isinstance(outcome, TrainingRolledBack):
                break
            answer = await self._view.wait_for_answer(outcome, job.log)
            if answer.answer != "reevaluate":
                break
            evaluation += 1
            inputs = await self._view.evaluation_inputs(model, run_id, job.log)

    async def _outcome(
        self, run: TrainingRun, evaluation: int, inputs: EvaluationInputs
    ) -> Outcome:
        """Return the outcome of an evaluation: the recorded one, if there is one."""
        run_id = run.facts.run_id
        published = self._view.run(run_id).checkpoints.get(evaluation)
        recorded = published or self._folders.outcome(run_id, evaluation)
        if recorded is not None:
            return recorded
        outcome = await run.outcome(evaluation, inputs)
        try:
            self._folders.write_outcome(run_id, evaluation, outcome)
        except RunFailed as failure:
            # The event on the topic is authoritative. After a crash before its publication, the
            # evaluation is repeated.
            self._runtime.log.warning(
                "outcome not written to disk", run=run_id, reason=failure.reason
            )
        await reach("trainer.recorded")
        return outcome

    def _training_run(self, job: BatchJob) -> TrainingRun:
        session = self._session(job.model, job.configuration)
        facts = RunFacts(job.run_id, job.batch, job.model, job.configuration, session.base)
        progress = ProgressReporter(
            job.batch, job.run_id, self._producer, self._runtime, job.log, job.span.headers
        )
        return TrainingRun(
            facts,
            self._models,
            self._store,
            self._folders,
            session,
            progress,
            partial(self._hand_off, job),
            self._runtime.clock,
        )

    async def _hand_off(self, job: BatchJob) -> None:
        """Upload the run's newest state for a next owner. An unavailable object store does not stop
        training.
        """
        try:
            if await asyncio.to_thread(self._handoff.upload, job.run_id):
                self._runtime.metrics.count(
                    "ratchet_training_checkpoints_total", model=job.batch.model
                )
        except StorageUnavailable as error:
            job.log.warning("run state not uploaded", reason=str(error))

    def _session(self, model: ModelFile, training: TrainingConfig) -> ModelSession:
        base = self._bases[model.model]
        key = (base, training.precision, training.quantisation)
        if key not in self._sessions:
            self._sessions[key] = ModelSession(self._process, *key)
        return self._sessions[key]
