"""The steps of one run, in order: choose data, train, evaluate, decide, build the outcome event.

Completed steps are on disk and are not repeated.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.trainer.bus_view.view import EvaluationInputs
from services.trainer.data.objective_data import assign_objectives
from services.trainer.data.training_set import TrainingSet, read_batches, select_examples
from services.trainer.errors import RunFailed
from services.trainer.gate.base_answers import BASE, rehearsal_samples
from services.trainer.gate.decision import GateEvidence, alpha_for_gate, decide
from services.trainer.gate.evaluation_suite import build_suite
from services.trainer.gate.reward_hacking import (
    CandidateStep,
    apply_alarm,
    candidate_step,
    detect_reward_hacking,
)
from services.trainer.protocol import EvaluationProgress, Stepped
from services.trainer.run.model_card import model_card
from services.trainer.run.outcome import EvaluatedCandidate, FailedRun, RunFacts, outcome_event
from services.trainer.run.progress import ProgressReporter
from services.trainer.run_folder import Outcome, RunFolders, RunPlan, TrainedRun
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.clock import Clock
from shared.config.models import Models
from shared.errors import InvalidArtefact
from shared.events import Artefact, Probe, RunMetrics, Verdict
from shared.failpoints import reach
from shared.identity import identity
from shared.storage.adapters import MODEL_CARD, adapter_folder, write_adapter
from shared.storage.object_store import ObjectStore

INVALID_FILES_ADVICE = (
    "compare the object store with its backup; once its files are whole, the batch can be "
    "announced again"
)


@dataclass(frozen=True)
class TrainingRun:
    """A run and its collaborators. `hand_off` uploads its newest state for a next owner."""

    facts: RunFacts
    models: Models
    store: ObjectStore
    folders: RunFolders
    session: ModelSession
    progress: ProgressReporter
    hand_off: Callable[[], Awaitable[None]]
    clock: Clock

    async def outcome(self, evaluation: int, inputs: EvaluationInputs) -> Outcome:
        """Run the steps that are not completed yet, and return the event of evaluation number
        `evaluation` (from 1).

        A failure of the run itself is an outcome as well. Raises RunInterrupted if training was
        stopped on request, Unavailable if an external system does not respond.
        """
        result: EvaluatedCandidate | FailedRun
        try:
            result = await self._run_steps(evaluation, inputs)
        except RunFailed as failure:
            result = FailedRun(inputs.champion, failure.reason, failure.advice)
        except InvalidArtefact as error:
            result = FailedRun(inputs.champion, str(error), INVALID_FILES_ADVICE)
        finally:
            self.progress.leave_phase()
        outcome = outcome_event(self.facts, evaluation, result, self.clock.now())
        if isinstance(result, EvaluatedCandidate):
            self._write_model_card(outcome)
        return outcome

    async def _run_steps(self, evaluation: int, inputs: EvaluationInputs) -> EvaluatedCandidate:
        await self.progress.enter_phase("loading")
        self._require_lane()
        plan = self._plan(inputs)
        training_set = self._choose_data(plan)
        # A candidate that cannot be compared with the champion need not be trained.
        self._fetch_adapter(inputs.champion.adapter)
        run = await self._trained(plan, training_set)
        adapter = self._store_adapter()
        evidence, probes = await self._evaluate(inputs, training_set, adapter)
        metrics = self._metrics(run, training_set, evaluate_seconds=self.progress.seconds)
        await self.progress.enter_phase("deciding")
        verdict = self._decide(evaluation, inputs, training_set, evidence)
        return EvaluatedCandidate(plan, adapter, metrics, verdict, probes)

    def _require_lane(self) -> None:
        lane = self.facts.batch.lane
        if lane not in self.facts.model.lanes:
            raise RunFailed(
                f"the model file declares no lane {lane!r}", "declare the lane under lanes"
            )

    def _plan(self, inputs: EvaluationInputs) -> RunPlan:
        plan = self.folders.plan(self.facts.run_id)
        if plan is None:
            champion, lineage = inputs.champion, self.facts.configuration.lineage
            plan = RunPlan(
                parent_version=champion.version,
                parent=champion.adapter if lineage == "continue" else None,
                lineage=lineage,
                quarantined=tuple(sorted(inputs.quarantined)),
                withdrawn=tuple(sorted(inputs.withdrawn.feedback_ids)),
                withdrawn_through=inputs.withdrawn.through,
            )
            self.folders.write_plan(self.facts.run_id, plan)
        return plan

    def _choose_data(self, plan: RunPlan) -> TrainingSet:
        batch, model = self.facts.batch, self.facts.model
        lane = model.lanes[batch.lane]
        training_set = select_examples(
            read_batches(self.store, batch.manifest),
            plan.quarantined,
            {example.messages for example in self.models.golden(batch.model)},
            withdrawn=frozenset(plan.withdrawn),
            training_set=lane.training_set,
            replay=self.facts.configuration.replay,
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

    async def _trained(self, plan: RunPlan, training_set: TrainingSet) -> TrainedRun:
        """Return the trained run, after training if that is not completed yet."""
        run = self.folders.trained(self.facts.run_id)
        if run is None:
            examples = [*training_set.new, *training_set.replayed]
            await self.session.estimate_memory(examples, self.facts.configuration)
        await self.session.load()
        return run or await self._train(plan, training_set)

    async def _train(self, plan: RunPlan, training_set: TrainingSet) -> TrainedRun:
        run_id, configuration = self.facts.run_id, self.facts.configuration
        parent = self._fetch_adapter(plan.parent)
        rehearsed = await rehearsal_samples(
            self.models,
            self.facts.batch.model,
            self.facts.batch.lane,
            configuration.max_tokens,
            self.session,
            self.folders,
            self.progress.on_progress,
        )
        data = assign_objectives(training_set, rehearsed, configuration)
        self.progress.log(
            "objectives chosen",
            objectives=data.objectives,
            pairs=len(training_set.pairs),
            negatives=len(training_set.negatives),
        )
        await self.progress.enter_phase("training")
        await reach("trainer.planned")
        trained = await self.session.train(
            data,
            configuration,
            parent,
            self.folders.adapter_folder(run_id),
            self._on_training_progress,
            self.folders.checkpoints_folder(run_id),
        )
        run = self.folders.write_trained(run_id, trained, training_set, len(rehearsed), data)
        await self.hand_off()
        await reach("trainer.trained")
        return run

    async def _on_training_progress(self, reply: Stepped | EvaluationProgress) -> None:
        await self.progress.on_progress(reply)
        await self.hand_off()

    def _store_adapter(self) -> Artefact:
        files = self.folders.adapter_files(self.facts.run_id)
        return write_adapter(self.store, self._adapter_prefix, files, self.facts.base.digest)

    async def _evaluate(
        self, inputs: EvaluationInputs, training_set: TrainingSet, adapter: Artefact
    ) -> tuple[GateEvidence, tuple[Probe, ...]]:
        await self.progress.enter_phase("evaluating")
        champion = BASE
        if inputs.champion.adapter is not None:
            folder = self._fetch_adapter(inputs.champion.adapter)
            champion = EvaluatedModel(inputs.champion.adapter.digest, folder)
        candidate = EvaluatedModel(adapter.digest, self.folders.adapter_folder(self.facts.run_id))
        self.session.keep_only([BASE.name, champion.name, candidate.name])
        suite = await build_suite(
            self.models,
            self.facts.batch.model,
            training_set.held_out,
            training_set.new,
            self.facts.configuration.max_tokens,
            self.session,
            self.folders,
            self.progress.on_progress,
        )
        return await suite.run(self.session, champion, candidate, self.progress.on_progress)

    def _decide(
        self,
        evaluation: int,
        inputs: EvaluationInputs,
        training_set: TrainingSet,
        evidence: GateEvidence,
    ) -> Verdict:
        facts, gate = self.facts, self.facts.model.gate
        alpha = alpha_for_gate(
            gate.confidence, facts.batch.number + 1, evaluation, facts.model.shards
        )
        seed = int(identity("gate", facts.run_id, evaluation)[:8], 16)
        verdict = decide(evidence, gate, inputs.champion.version, alpha, seed=seed)
        step = candidate_step(training_set.mean_reward, verdict)
        return apply_alarm(verdict, self._alarm(inputs.history, step), gate.reward_hacking)

    def _alarm(self, history: Sequence[CandidateStep], step: CandidateStep | None) -> str | None:
        if step is None:
            return None
        return detect_reward_hacking([*history, step], self.facts.model.gate.reward_hacking)

    def _metrics(
        self, run: TrainedRun, training_set: TrainingSet, evaluate_seconds: float
    ) -> RunMetrics:
        return RunMetrics(
            training_loss=run.trained.training_loss,
            steps=run.trained.steps,
            epochs=self.facts.configuration.epochs,
            examples_new=run.examples_new,
            examples_replayed=run.examples_replayed,
            examples_rehearsed=run.examples_rehearsed,
            tokens=run.trained.tokens,
            train_seconds=run.trained.seconds,
            evaluate_seconds=evaluate_seconds,
            mean_reward=training_set.mean_reward,
            objectives=run.objectives,
            pairs=run.pairs,
            negatives=run.negatives,
        )

    def _write_model_card(self, outcome: Outcome) -> None:
        card = model_card(outcome, self.facts.batch, self.facts.base.licence)
        self.store.put(f"{self._adapter_prefix}/{MODEL_CARD}", card.encode())

    def _fetch_adapter(self, adapter: Artefact | None) -> Path | None:
        """Return the local folder of an adapter, None for the base. Only the newest one is kept on
        disk.
        """
        if adapter is None:
            return None
        return self.folders.fetch_adapter(self.store, adapter, self.facts.base.digest)

    @property
    def _adapter_prefix(self) -> str:
        return adapter_folder(self.facts.batch.model, self.facts.run_id)
