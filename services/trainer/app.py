"""Trainer: brings one announced batch at a time to its outcome and the registry's answer."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from services.trainer.batch_queue import ResumedBatch, Wait
from services.trainer.bus_view.view import BusView, EvaluationInputs
from services.trainer.errors import RunInterrupted
from services.trainer.machine.bases import LocalBase
from services.trainer.run.batch_job import BatchJob, run_facts, settled
from services.trainer.run.handoff import RunHandoff
from services.trainer.run.outcome_publisher import OutcomePublisher
from services.trainer.run.progress import ProgressReporter
from services.trainer.run.resumption import discard_outdated_state
from services.trainer.run.supervision import OwnershipCheck, RunSupervisor
from services.trainer.run.training_run import TrainingRun
from services.trainer.run_folder import Outcome, WorkFolder
from services.trainer.warm_up import warm_up
from services.trainer.worker.client import TrainingProcess
from services.trainer.worker.model_session import ModelSession
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.config.template_variables import TemplateVariables
from shared.config.training import TrainingConfig
from shared.errors import Unprocessable
from shared.events import BatchReady, TrainingRolledBack
from shared.failpoints import reach
from shared.identity import run_identity
from shared.kafka.topic_reader import TopicReader
from shared.messaging.bus import Producer, Record
from shared.messaging.codec import decode
from shared.observability.trace_context import traceparent_for_batch, traceparent_in
from shared.service.runtime import Runtime
from shared.storage.keys import require_artefacts
from shared.storage.object_store import ObjectStore


class Trainer:
    """Handles one batch at a time."""

    def __init__(
        self,
        models: Models,
        bases: dict[str, LocalBase],
        store: ObjectStore,
        work: WorkFolder,
        process: TrainingProcess,
        view_reader: TopicReader,
        producer: Producer,
        runtime: Runtime,
    ) -> None:
        """`bases` are the base models by model; `view_reader` reads the topics of the bus view."""
        self._models = models
        self._bases = bases
        self._store = store
        self._work = work
        self._process = process
        self._producer = producer
        self._runtime = runtime
        self._sessions: dict[tuple[LocalBase, str, str, TemplateVariables], ModelSession] = {}
        self._view = BusView(view_reader, runtime)
        self._supervisor = RunSupervisor(process)
        self._publisher = OutcomePublisher(self._view, producer, runtime)

    async def warm_up(self) -> None:
        """Prepare for the first model's first lane. Raises RunFailed if its base cannot load."""
        model = self._models.files[min(self._models.files)]
        lane, settings = next(iter(model.lanes.items()))
        session = self._session(model, settings.training)
        await warm_up(
            self._models, model.model, lane, session, self._work, self._view, self._runtime
        )

    async def pause(self, seconds: float) -> None:
        """Stop the current training and hand off its checkpoint, within `seconds`."""
        if not await self._supervisor.pause(seconds):
            self._runtime.log.warning(
                f"the running step did not end within {seconds:g} s; the run will resume from its "
                "newest checkpoint",
                advice="raise RATCHET_STOP_SECONDS to let a step end",
            )

    async def after_rebalance(self) -> None:
        """Continue the paused run, or abandon it if another trainer owns its batch now."""
        await self._supervisor.after_rebalance()

    async def refresh(self) -> None:
        """Read the new events of other services. Raises BusUnavailable."""
        await self._view.refresh()

    def wait_of(self, record: Record) -> Wait | None:
        """Return the wait of a batch as of the last refresh; None if the batch may be handled now.

        It waits while training of its model is paused and while the window of its lane is closed.
        A run that has started continues at any time, unless it was cancelled and resumed. Cancelled
        runs, and records that are not a batch of a declared model, do not wait.
        """
        try:
            batch = decode(record.value, record.headers, BatchReady).event
            lane = self._models.get(batch.model).lanes.get(batch.lane)
        except Unprocessable:
            return None
        run_id, now = run_identity(batch.batch_id), self._runtime.clock.now()
        pause, window = self._view.pause_of(batch.model), lane.window if lane else None
        if pause is not None:
            wait = Wait(f"training paused by {pause.actor}: {pause.reason}")
        elif window is not None and not window.is_open(now):
            wait = Wait("training window closed", window.next_open(now))
        else:
            return None
        run = self._view.run(run_id)
        has_started = self._work.run(run_id).plan() is not None and run.resumption is None
        is_over = run.has_ended or self._view.is_cancelled(run_id)
        return None if has_started or is_over else wait

    def resumed_batches(self) -> Iterator[ResumedBatch]:
        """Yield the batches of runs that are resumed and have not ended, as of the last refresh."""
        return self._view.resumed_batches()

    async def handle(self, record: Record, is_owner: OwnershipCheck) -> None:
        """Bring a batch to its outcome and wait for the registry's answer, or until an operator
        cancels its run.

        Raises PartitionLost, and publishes nothing from then on, once `is_owner` returns False.
        """
        batch = decode(record.value, record.headers, BatchReady).event
        require_artefacts(batch)
        model = self._models.get(batch.model)
        metrics = self._runtime.metrics
        metrics.set("ratchet_training_in_progress", 1, model=batch.model)
        try:
            parent = traceparent_in(record.headers) or traceparent_for_batch(batch.batch_id)
            with self._runtime.tracing.span("train", parent) as span:
                facts = run_facts(batch, model, self._bases[batch.model])
                span.set_attributes(
                    model=batch.model, batch=batch.batch_id, run=facts.run_id, lane=batch.lane
                )
                folder = self._work.run(facts.run_id)
                log = self._runtime.log.bind(
                    model=batch.model, run=facts.run_id, batch=batch.number
                )
                handoff = RunHandoff(self._store, folder, batch.model, log, metrics)
                job = BatchJob(facts, folder, handoff, record.timestamp, is_owner, log, span)
                cancellation = self._view.wait_for_cancellation(facts.run_id)
                await self._supervisor.run(self._complete(job), is_owner, cancellation)
                if self._view.is_cancelled(facts.run_id):
                    self._publisher.report_cancelled(job)
        finally:
            metrics.set("ratchet_training_in_progress", 0, model=batch.model)

    async def _complete(self, job: BatchJob) -> None:
        await self._run_until_answered(job)
        await reach("trainer.ended")
        if not self._view.is_cancelled(job.facts.run_id):
            await asyncio.to_thread(self._discard, job)

    async def _run_until_answered(self, job: BatchJob) -> None:
        """Train and evaluate until the run has ended: rolled back, answered by the registry, or
        cancelled.
        """
        run_id, batch = job.facts.run_id, job.facts.batch
        inputs = await self._view.evaluation_inputs(batch.model, run_id, job.log)
        published = self._view.run(run_id)
        if published.has_ended:
            job.log.info("run already ended")
            return
        if self._view.is_cancelled(run_id):
            return
        run = await self._start(job, inputs)
        evaluation = 1
        while not published.has_ended:
            outcome = self._recorded_outcome(job, evaluation)
            try:
                outcome = outcome or await run.outcome(evaluation, inputs)
            except RunInterrupted as interrupted:
                job.log.info("interrupted", step=interrupted.step)
                if self._view.is_cancelled(run_id):
                    return
                await self._supervisor.suspend()
                continue
            is_open = await self._publisher.publish_once(outcome, job)
            if not is_open or isinstance(outcome, TrainingRolledBack):
                return
            answer = await self._view.wait_for_answer(outcome, job.log)
            if answer.answer != "reevaluate":
                return
            evaluation += 1
            inputs = await self._view.evaluation_inputs(batch.model, run_id, job.log)

    async def _start(self, job: BatchJob, inputs: EvaluationInputs) -> TrainingRun:
        """Start a run, from the state that a previous owner has handed off if there is any, or that
        a resumed run had when it was cancelled.
        """
        champion, examples = inputs.champion.version, job.facts.batch.counts.training
        job.log.info("run started", champion=champion, examples=examples)
        run = self._view.run(job.facts.run_id)
        if run.resumption is not None and not run.checkpoints:
            discard = discard_outdated_state
            if await asyncio.to_thread(discard, job.folder, job.handoff, inputs):
                job.log.info("resumed run begins again: the champion or its data have changed")
        if await asyncio.to_thread(job.handoff.fetch):
            job.log.info("run state fetched from the object store")
        session = self._session(job.facts.model, job.facts.configuration)
        adapter = inputs.champion.adapter
        parent = self._view.configuration_of(adapter) if adapter else None
        facts = await settled(job.facts, job.folder, session, parent)
        job = replace(job, facts=facts)
        progress = ProgressReporter(
            facts.batch,
            facts.run_id,
            self._producer,
            self._runtime,
            job.log,
            job.span.headers,
            job.handoff.upload_newest,
            run.resumption,
        )
        return TrainingRun(
            job, self._models, self._store, self._work, session, progress, self._runtime
        )

    def _recorded_outcome(self, job: BatchJob, evaluation: int) -> Outcome | None:
        """Return the outcome that any trainer published for an evaluation, or that this one has
        recorded.
        """
        published = self._view.run(job.facts.run_id)
        return published.checkpoints.get(evaluation) or job.folder.outcome(evaluation)

    def _discard(self, job: BatchJob) -> None:
        """Delete the state of a run that has ended; its records remain."""
        job.folder.discard_working_files()
        job.handoff.clear()

    def _session(self, model: ModelFile, training: TrainingConfig) -> ModelSession:
        base = self._bases[model.model]
        key = (base, training.precision, training.quantisation, model.template_variables)
        if key not in self._sessions:
            self._sessions[key] = ModelSession(self._process, *key)
        return self._sessions[key]
