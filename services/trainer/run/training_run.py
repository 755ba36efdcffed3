"""One run, from a batch to a verdict: choose, train, examine, decide. What is finished is on disk,
and is not done again.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.trainer.bus_view.registry_state import Champion
from services.trainer.bus_view.withdrawals import WithdrawnExamples
from services.trainer.data.objective_data import assign_objectives
from services.trainer.data.training_set import TrainingSet, read_batches, select_examples
from services.trainer.errors import RunFailed
from services.trainer.gate.base_answers import BASE, rehearsal_samples
from services.trainer.gate.decision import alpha_for_gate, decide
from services.trainer.gate.evaluation_suite import build_suite
from services.trainer.gate.reward_hacking import (
    CandidateStep,
    apply_alarm,
    candidate_step,
    detect_reward_hacking,
)
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import EvaluationProgress, Stepped
from services.trainer.run.model_card import card_of, licence_in
from services.trainer.run.progress import ProgressReporter
from services.trainer.run_folder import Outcome, RunFolders, RunPlan, TrainedRun
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.clock import Clock
from shared.config.model_file import ModelFile, Models
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    BatchReady,
    CheckpointSaved,
    RunMetrics,
    TrainingRolledBack,
    Verdict,
)
from shared.failpoints import reach
from shared.identity import identity
from shared.storage.adapters import MODEL_CARD, adapter_folder, write_adapter
from shared.storage.object_store import ObjectStore


@dataclass(frozen=True)
class TrainingRun:
    """A run and what it works with. What a call is given of the outside is that of the moment in
    which an evaluation begins. `leave` puts what is done so far where the run's next owner finds
    it.
    """

    batch: BatchReady
    run_id: str
    model: ModelFile
    models: Models
    store: ObjectStore
    runs: RunFolders
    bench: ModelSession
    progress: ProgressReporter
    leave: Callable[[], Awaitable[None]]
    clock: Clock

    @property
    def configuration(self) -> TrainingConfig:
        return lane_configuration(self.model, self.batch)

    async def evaluate(
        self,
        evaluation: int,
        champion: Champion,
        quarantined: Collection[str],
        withdrawn: WithdrawnExamples,
        history: Sequence[CandidateStep] = (),
    ) -> Outcome:
        """The outcome of evaluation `evaluation` (from 1), trained for first where that is still to
        do; `history` is of earlier runs.

        Raises RunFailed, Unusable when the run cannot give a version; RunInterrupted when it was
        told to stop training; Unavailable when something outside is away.
        """
        await self.progress.enter_phase("loading")
        if self.batch.lane not in self.model.lanes:
            raise RunFailed(
                f"the model file declares no lane {self.batch.lane!r}", "declare it under lanes"
            )
        plan = self._plan(champion, quarantined, withdrawn)
        chosen = self._choose(plan)
        if not chosen.new and chosen.withdrawn:
            raise RunFailed(
                "all that the batch had to train on was withdrawn",
                "none: the next batch goes on from what is served",
            )
        if not chosen.new:
            raise RunFailed(
                "the batch has no example to train on",
                "look at its report: what was dropped, and why",
            )
        self._folder_of(
            champion.adapter
        )  # what cannot be compared with the champion need not be trained
        if self.runs.trained(self.run_id) is None:
            await self.bench.estimate_memory([*chosen.new, *chosen.replayed], self.configuration)
        await self.bench.load()
        run = self.runs.trained(self.run_id) or await self._train(plan, chosen)
        folder = self.runs.adapter_folder(self.run_id)
        prefix = adapter_folder(self.batch.model, self.run_id)
        artefact = write_adapter(
            self.store, prefix, self.runs.adapter_files(self.run_id), self.bench.base.digest
        )
        outcome = await self._examine(
            evaluation, plan, champion, chosen, run, artefact, folder, history
        )
        self.store.put(
            f"{prefix}/{MODEL_CARD}",
            card_of(outcome, self.batch, licence_in(self.bench.base.folder)).encode(),
        )
        return outcome

    def _plan(
        self, champion: Champion, quarantined: Collection[str], withdrawn: WithdrawnExamples
    ) -> RunPlan:
        plan = self.runs.plan(self.run_id)
        if plan is None:
            lineage = self.configuration.lineage
            plan = RunPlan(
                parent_version=champion.version,
                parent=champion.adapter if lineage == "continue" else None,
                lineage=lineage,
                quarantined=tuple(sorted(quarantined)),
                withdrawn=tuple(sorted(withdrawn.feedback_ids)),
                withdrawn_through=withdrawn.through,
            )
            self.runs.write_plan(self.run_id, plan)
        return plan

    def _choose(self, plan: RunPlan) -> TrainingSet:
        lane = self.model.lanes[self.batch.lane]
        return select_examples(
            read_batches(self.store, self.batch.manifest),
            plan.quarantined,
            {reference.messages for reference in self.models.golden(self.batch.model)},
            withdrawn=frozenset(plan.withdrawn),
            training_set=lane.training_set,
            replay=self.configuration.replay,
            replay_window=lane.replay_window,
            held_out_newest=self.model.gate.held_out_newest,
        )

    async def _train(self, plan: RunPlan, chosen: TrainingSet) -> TrainedRun:
        parent = self._folder_of(plan.parent)
        max_tokens, heard = self.configuration.max_tokens, self.progress.on_progress
        known = await rehearsal_samples(
            self.models, self.batch.model, self.batch.lane, max_tokens, self.bench, self.runs, heard
        )
        lessons = assign_objectives(chosen, known, self.configuration)
        self.progress.log(
            "lessons",
            objectives=lessons.objectives,
            pairs=len(chosen.pairs),
            negatives=len(chosen.negatives),
        )
        await self.progress.enter_phase("training")
        out = self.runs.adapter_folder(self.run_id)
        checkpoints = self.runs.checkpoints_folder(self.run_id)
        await reach("trainer.planned")
        trained = await self.bench.train(
            lessons, self.configuration, parent, out, self._heard, checkpoints
        )
        run = self.runs.write_trained(self.run_id, trained, chosen, len(known), lessons)
        await self.leave()
        await reach("trainer.trained")
        return run

    async def _heard(self, reply: Stepped | EvaluationProgress) -> None:
        await self.progress.on_progress(reply)
        await self.leave()

    async def _examine(
        self,
        evaluation: int,
        plan: RunPlan,
        champion: Champion,
        chosen: TrainingSet,
        run: TrainedRun,
        artefact: Artefact,
        folder: Path,
        history: Sequence[CandidateStep],
    ) -> Outcome:
        await self.progress.enter_phase("evaluating")
        baseline = (
            EvaluatedModel(champion.adapter.digest, self._folder_of(champion.adapter))
            if champion.adapter
            else BASE
        )
        candidate = EvaluatedModel(artefact.digest, folder)
        self.bench.keep_only([BASE.name, baseline.name, candidate.name])
        heard, max_tokens = self.progress.on_progress, self.configuration.max_tokens
        sets = await build_suite(
            self.models,
            self.batch.model,
            chosen.held_out,
            chosen.new,
            max_tokens,
            self.bench,
            self.runs,
            heard,
        )
        evidence, probes = await sets.run(self.bench, baseline, candidate, heard)
        evaluate_seconds = self.progress.seconds
        await self.progress.enter_phase("deciding")
        gate = self.model.gate
        alpha = alpha_for_gate(
            gate.confidence, self.batch.number + 1, evaluation, self.model.shards
        )
        verdict = decide(
            evidence,
            gate,
            champion.version,
            alpha,
            seed=int(identity("gate", self.run_id, evaluation)[:8], 16),
        )
        step = candidate_step(chosen.mean_reward, verdict)
        verdict = apply_alarm(
            verdict,
            detect_reward_hacking([*history, step], gate.tripwire) if step else None,
            gate.tripwire,
        )
        metrics = RunMetrics(
            training_loss=run.trained.training_loss,
            steps=run.trained.steps,
            epochs=self.configuration.epochs,
            examples_new=run.examples_new,
            examples_replayed=run.examples_replayed,
            examples_rehearsed=run.examples_rehearsed,
            tokens=run.trained.tokens,
            train_seconds=run.trained.seconds,
            evaluate_seconds=evaluate_seconds,
            mean_reward=chosen.mean_reward,
            objectives=run.objectives,
            pairs=run.pairs,
            negatives=run.negatives,
        )
        if verdict.decision != "promote":
            return self._rolled_back(evaluation, plan, artefact, metrics, verdict)
        return CheckpointSaved(
            event_id=identity("CheckpointSaved", self.run_id, evaluation),
            occurred_at=self.clock.now(),
            model=self.batch.model,
            model_digest=self.model.digest,
            run_id=self.run_id,
            batch_id=self.batch.batch_id,
            lane=self.batch.lane,
            parent_version=plan.parent_version,
            evaluation=evaluation,
            adapter=artefact,
            base_digest=self.bench.base.digest,
            configuration=self.configuration,
            metrics=metrics,
            verdict=verdict,
            probes=probes,
            withdrawn_through=plan.withdrawn_through,
            lineage=plan.lineage,
            parent_adapter=plan.parent,
            base=self.bench.base.name,
        )

    def _rolled_back(
        self,
        evaluation: int,
        plan: RunPlan,
        artefact: Artefact,
        metrics: RunMetrics,
        verdict: Verdict,
    ) -> TrainingRolledBack:
        rejected = verdict.decision == "reject"
        return TrainingRolledBack(
            event_id=identity("TrainingRolledBack", self.run_id, evaluation),
            occurred_at=self.clock.now(),
            model=self.batch.model,
            model_digest=self.model.digest,
            run_id=self.run_id,
            batch_id=self.batch.batch_id,
            lane=self.batch.lane,
            parent_version=plan.parent_version,
            evaluation=evaluation,
            outcome="rejected" if rejected else "inconclusive",
            reason=verdict.reasons[0],
            advice="the batch is quarantined; look at its examples"
            if rejected
            else "none: its examples are replayed in later runs",
            adapter=artefact,
            configuration=self.configuration,
            metrics=metrics,
            verdict=verdict,
            lineage=plan.lineage,
            parent_adapter=plan.parent,
            base=self.bench.base.name,
            base_digest=self.bench.base.digest,
        )

    def _folder_of(self, adapter: Artefact | None) -> Path | None:
        return (
            self.runs.fetch_adapter(self.store, adapter, self.bench.base.digest)
            if adapter
            else None
        )


def lane_configuration(model: ModelFile, batch: BatchReady) -> TrainingConfig:
    """The configuration of a batch's lane, the default one where the model file declares no such
    lane.
    """
    lane = model.lanes.get(batch.lane)
    return lane.training if lane else TrainingConfig(lane=batch.lane)


def failed(
    batch: BatchReady,
    run_id: str,
    model: ModelFile,
    parent: Champion,
    base: LocalBase,
    evaluation: int,
    reason: str,
    advice: str,
    clock: Clock,
) -> TrainingRolledBack:
    """The outcome of a run that cannot give a version; `parent` is the champion that it would have
    been compared with.
    """
    lineage = lane_configuration(model, batch).lineage
    return TrainingRolledBack(
        event_id=identity("TrainingRolledBack", run_id, evaluation),
        occurred_at=clock.now(),
        model=batch.model,
        model_digest=model.digest,
        run_id=run_id,
        batch_id=batch.batch_id,
        lane=batch.lane,
        parent_version=parent.version,
        evaluation=evaluation,
        outcome="failed",
        reason=reason,
        advice=advice,
        configuration=lane_configuration(model, batch),
        lineage=lineage,
        parent_adapter=parent.adapter if lineage == "continue" else None,
        base=base.name,
        base_digest=base.digest,
    )
