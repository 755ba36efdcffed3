"""The steps of one run, in order: choose data, train, evaluate, decide, build the outcome event.

Completed steps are on disk and are not repeated.
"""

from dataclasses import dataclass
from pathlib import Path

from services.trainer.bus_view.view import EvaluationInputs
from services.trainer.data.objective_data import ObjectiveData, assign_objectives
from services.trainer.data.training_set import TrainingSet, read_batches, select_examples
from services.trainer.errors import RunFailed, RunInterrupted
from services.trainer.gate.base_answers import BASE, base_answers
from services.trainer.gate.evaluation_suite import EvaluationSuite, build_suite
from services.trainer.gate.evidence import GateEvidence
from services.trainer.gate.judgement import Judgement, Look, judge
from services.trainer.protocol import Trained
from services.trainer.run.batch_job import BatchJob
from services.trainer.run.model_card import model_card
from services.trainer.run.outcome import EvaluatedCandidate, FailedRun, RunFacts, outcome_event
from services.trainer.run.progress import ProgressReporter
from services.trainer.run.second_attempt import facts_of_attempt, plan_retry
from services.trainer.run_folder import Outcome, RunPlan, TrainedRun, WorkFolder
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.config.models import Models
from shared.errors import InvalidArtefact
from shared.events import Artefact, Digest, RunMetrics, Verdict
from shared.failpoints import reach
from shared.service.runtime import Runtime
from shared.storage.adapters import (
    MODEL_CARD,
    adapted_projections,
    adapter_digest,
    adapter_files,
    adapter_folder,
    write_adapter,
)
from shared.storage.object_store import ObjectStore

INVALID_FILES_ADVICE = (
    "compare the object store with its backup; once its files are whole, the batch can be "
    "announced again"
)


@dataclass(frozen=True)
class TrainingRun:
    """A run and its collaborators."""

    job: BatchJob
    models: Models
    store: ObjectStore
    work: WorkFolder
    session: ModelSession
    progress: ProgressReporter
    runtime: Runtime

    async def outcome(self, evaluation: int, inputs: EvaluationInputs) -> Outcome:
        """Run the steps that are not completed yet; record and return the event of evaluation
        number `evaluation` (from 1).

        A failure of the run itself is an outcome as well. Raises RunInterrupted, after the hand-off
        of the checkpoint, if training was stopped on request; Unavailable if an external system
        does not respond.
        """
        result: EvaluatedCandidate | FailedRun
        try:
            with self.progress:
                result = await self._run_steps(evaluation, inputs)
        except RunInterrupted:
            await self.job.handoff.upload_newest()
            raise
        except RunFailed as failure:
            retry = self.job.folder.retry()
            reason = f"{retry.reason}; then: {failure.reason}" if retry else failure.reason
            result = FailedRun(inputs.champion, reason, failure.advice)
        except InvalidArtefact as error:
            result = FailedRun(inputs.champion, str(error), INVALID_FILES_ADVICE)
        facts = self._facts
        outcome = outcome_event(facts, evaluation, result, self.runtime.clock.now())
        if isinstance(result, EvaluatedCandidate):
            card = model_card(outcome, facts.batch, facts.base.licence, result.adapted)
            self.store.put(f"{self._adapter_prefix}/{MODEL_CARD}", card.encode())
        try:
            self.job.folder.write(outcome)
        except RunFailed as failure:
            # The event on the topic is authoritative. After a crash before its publication, the
            # evaluation is repeated.
            self.runtime.log.warning(
                "outcome not written to disk", run=facts.run_id, reason=failure.reason
            )
        await reach("trainer.recorded")
        return outcome

    async def _run_steps(self, evaluation: int, inputs: EvaluationInputs) -> EvaluatedCandidate:
        """Run the steps of the current attempt."""
        folder, progress, base = self.job.folder, self.progress, self.job.facts.base
        progress.attempt = self._attempt
        await progress.enter_phase("loading")
        self._require_lane()
        plan = folder.plan()
        if plan is None:
            plan = self._new_plan(inputs)
            folder.write(plan)
        run, trained_adapter = folder.trained(), folder.adapter
        training_set = await self._leave_out_refused(self._choose_data(plan))
        # A candidate that cannot be compared with the champion need not be trained.
        self._fetch_adapter(inputs.champion.adapter)
        if run is None:
            run = await self._train(plan, training_set)
        else:
            await self.session.load()

        await progress.enter_phase("evaluating")
        suite = await self._evaluation_suite(training_set)
        champion = self._champion(inputs)
        candidate, files = self._candidate(trained_adapter)
        evidence, probes = await suite.run(self.session, champion, candidate, progress.on_progress)
        metrics = self._metrics(run, training_set, suite.skipped)

        await progress.enter_phase("deciding")
        found = self._judge(
            evaluation, inputs, training_set.mean_reward, evidence, suite.golden_digest
        )
        if found.only_forgot and self._order_retry(found.verdict):
            return await self._run_steps(evaluation, inputs)
        # A first attempt that is retried is never uploaded: a paused worker could overwrite the
        # second one with it.
        adapter = write_adapter(self.store, self._adapter_prefix, files, base.digest)
        adapted = adapted_projections(trained_adapter)
        return EvaluatedCandidate(plan, adapter, metrics, found.verdict, probes, adapted)

    def _order_retry(self, first: Verdict) -> bool:
        """Record that the run makes a second attempt. Return False if it has made it already, or
        if no gentler setting is left.
        """
        retry = plan_retry(self.job.facts, first)
        if retry is None or self.job.folder.retry() is not None:
            return False
        self.job.folder.write(retry)
        self.job.log.info("retrying", reason=retry.reason)
        model = self.job.facts.batch.model
        self.runtime.metrics.count("ratchet_training_second_attempts_total", model=model)
        return True

    def _require_lane(self) -> None:
        lane = self.job.facts.batch.lane
        if lane not in self.job.facts.model.lanes:
            raise RunFailed(
                f"the model file declares no lane {lane!r}", "declare the lane under lanes"
            )

    def _new_plan(self, inputs: EvaluationInputs) -> RunPlan:
        champion, lineage = inputs.champion, self.job.facts.configuration.lineage
        return RunPlan(
            parent_version=champion.version,
            parent=champion.adapter if lineage == "continue" else None,
            lineage=lineage,
            quarantined=tuple(sorted(inputs.quarantined)),
            withdrawn=tuple(sorted(inputs.withdrawn.feedback_ids)),
            withdrawn_through=inputs.withdrawn.through,
            configuration=self.job.facts.configuration,
        )

    def _choose_data(self, plan: RunPlan) -> TrainingSet:
        batch, model = self.job.facts.batch, self.job.facts.model
        lane = model.lanes[batch.lane]
        training_set = select_examples(
            read_batches(self.store, batch.manifest),
            plan.quarantined,
            {example.messages for example in self.models.golden(batch.model)},
            withdrawn=frozenset(plan.withdrawn),
            training_set=lane.training_set,
            replay=self.job.facts.configuration.replay,
            replay_window=lane.replay_window,
            held_out_newest=model.gate.held_out_newest,
        )
        if training_set.new:
            return training_set
        if training_set.withdrawn:
            raise RunFailed(
                "all training examples of the batch were withdrawn",
                "no action needed; the next batch starts from the champion",
            )
        raise RunFailed(
            "the batch has no training example",
            "read the batch's report for what was dropped, and why",
        )

    async def _leave_out_refused(self, training_set: TrainingSet) -> TrainingSet:
        """Leave out the examples whose prompts the base's chat template refuses. Raises RunFailed
        if no new example is left.
        """
        refused = (await self.session.check_prompts(training_set.prompts)).refused
        if not refused:
            return training_set
        remaining = training_set.without(refused)
        reason = next(iter(refused.values()))
        self.job.log.warning("examples skipped", examples=remaining.skipped, reason=reason)
        if not remaining.new:
            raise RunFailed(
                f"no training example of the batch can be rendered: {reason}",
                "take a base whose chat template accepts the conversations of the application, or "
                "send feedback with conversations that it accepts",
            )
        return remaining

    async def _train(self, plan: RunPlan, training_set: TrainingSet) -> TrainedRun:
        folder, configuration = self.job.folder, self._facts.configuration
        examples = [*training_set.new, *training_set.replayed]
        await self.session.estimate_memory(examples, configuration)
        await self.session.load()
        parent = self._fetch_adapter(plan.parent)
        data = await self._training_data(plan, training_set)
        await self.progress.enter_phase("training")
        await reach("trainer.planned")
        trained = await self.session.train(
            data,
            configuration,
            parent,
            folder.adapter,
            self.progress.on_progress,
            folder.attempt,
        )
        run = self._trained_run(trained, training_set, data)
        folder.write(run)
        await self.job.handoff.upload_newest()
        await reach("trainer.trained")
        return run

    async def _training_data(self, plan: RunPlan, training_set: TrainingSet) -> ObjectiveData:
        facts = self.job.facts
        prompts = self.models.rehearsal(
            facts.batch.model, facts.batch.lane, built_in=plan.configuration is not None
        )
        rehearsed = await base_answers(
            [prompt.messages for prompt in prompts],
            self.session,
            self.work,
            facts.configuration.max_tokens,
            self.progress.on_progress,
        )
        data = assign_objectives(training_set, rehearsed, facts.configuration)
        self.job.log.info(
            "objectives chosen",
            objectives=data.objectives,
            pairs=len(training_set.pairs),
            negatives=len(training_set.negatives),
        )
        return data

    def _trained_run(
        self, trained: Trained, training_set: TrainingSet, data: ObjectiveData
    ) -> TrainedRun:
        return TrainedRun(
            trained=trained,
            examples_new=len(training_set.new),
            examples_replayed=len(training_set.replayed),
            examples_rehearsed=data.rehearsed,
            files=self.job.folder.adapter_digests(),
            objectives=data.objectives,
            pairs=len(training_set.pairs),
            negatives=len(training_set.negatives),
        )

    async def _evaluation_suite(self, training_set: TrainingSet) -> EvaluationSuite:
        return await build_suite(
            self.models,
            self.job.facts.batch.model,
            training_set.held_out,
            training_set.new,
            self.job.facts.configuration.max_tokens,
            self.session,
            self.work,
            self.progress.on_progress,
        )

    def _champion(self, inputs: EvaluationInputs) -> EvaluatedModel:
        adapter = inputs.champion.adapter
        return EvaluatedModel(adapter.digest, self._fetch_adapter(adapter)) if adapter else BASE

    def _candidate(self, adapter: Path) -> tuple[EvaluatedModel, dict[str, bytes]]:
        """Return the candidate, named by the digest that it will have in the object store, and its
        files.
        """
        files = adapter_files(adapter)
        return EvaluatedModel(adapter_digest(files, self.job.facts.base.digest), adapter), files

    def _judge(
        self,
        evaluation: int,
        inputs: EvaluationInputs,
        reward: float | None,
        evidence: GateEvidence,
        golden: Digest | None,
    ) -> Judgement:
        facts, retry = self.job.facts, self.job.folder.retry()
        return judge(
            evidence,
            facts.model.gate,
            inputs.champion.version,
            Look(facts.run_id, evaluation, retry.reason if retry else None),
            gates=inputs.gates,
            history=inputs.history,
            reward=reward,
            golden=golden,
        )

    def _metrics(self, run: TrainedRun, training_set: TrainingSet, skipped: int) -> RunMetrics:
        """Return the metrics of a run at the end of its evaluation, which has `skipped` prompts of
        the model's files.
        """
        return RunMetrics(
            training_loss=run.trained.training_loss,
            steps=run.trained.steps,
            epochs=self.job.facts.configuration.epochs,
            examples_new=run.examples_new,
            examples_replayed=run.examples_replayed,
            examples_rehearsed=run.examples_rehearsed,
            tokens=run.trained.tokens,
            train_seconds=run.trained.seconds,
            evaluate_seconds=self.progress.seconds,
            mean_reward=training_set.mean_reward,
            objectives=run.objectives,
            pairs=run.pairs,
            negatives=run.negatives,
            examples_skipped=training_set.skipped + skipped,
        )

    def _fetch_adapter(self, adapter: Artefact | None) -> Path | None:
        """Return the local folder of an adapter, None for the base. Only the newest one is kept on
        disk.
        """
        if adapter is None:
            return None
        return self.work.fetch_adapter(self.store, adapter, self.job.facts.base.digest)

    @property
    def _attempt(self) -> int:
        return 1 if self.job.folder.retry() is None else 2

    @property
    def _facts(self) -> RunFacts:
        """The facts of the current attempt."""
        return facts_of_attempt(self.job.facts, self.job.folder.retry())

    @property
    def _adapter_prefix(self) -> str:
        return adapter_folder(self.job.facts.batch.model, self.job.facts.run_id)
