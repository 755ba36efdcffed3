"""Publication of a run's outcome, at most once across all trainers."""

from services.trainer.bus_view.view import BusView
from services.trainer.run.batch_job import BatchJob
from services.trainer.run.progress import SOURCE
from services.trainer.run_folder import Outcome
from shared.errors import PartitionLost
from shared.events import CheckpointSaved
from shared.failpoints import reach
from shared.messaging.bus import Producer, publish
from shared.messaging.topics import TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS
from shared.service.runtime import Runtime


class OutcomePublisher:
    """Publishes outcomes, with their log lines and metrics."""

    def __init__(self, view: BusView, producer: Producer, runtime: Runtime) -> None:
        self._view = view
        self._producer = producer
        self._runtime = runtime

    async def publish_once(self, outcome: Outcome, job: BatchJob) -> bool:
        """Publish an outcome unless a trainer already has. Return False if the run has ended, or
        was cancelled.

        A worker that paused for longer than its session may believe that it owns the batch until
        its next heartbeat; the topics are authoritative. Raises PartitionLost if another trainer
        owns the batch.
        """
        if not await job.is_owner():
            raise PartitionLost("another trainer owns this batch now; nothing is published")
        await self._view.refresh()
        run = self._view.run(outcome.run_id)
        if run.has_ended:
            job.log.info("run already ended by another trainer")
            return False
        if self._view.is_cancelled(outcome.run_id):
            return False
        if outcome.evaluation not in run.checkpoints:
            is_checkpoint = isinstance(outcome, CheckpointSaved)
            topic = TRAINING_CHECKPOINTS if is_checkpoint else TRAINING_ROLLBACKS
            await publish(self._producer, topic, outcome.model, outcome, SOURCE, job.span.headers)
            self._report(outcome, job)
            await reach("trainer.published")
        return True

    def report_cancelled(self, job: BatchJob) -> None:
        """Report the end of a run that an operator has cancelled."""
        job.span.set_attributes(outcome="cancelled")
        model = job.facts.batch.model
        self._runtime.metrics.count("ratchet_training_runs_total", model=model, outcome="cancelled")
        control = self._view.run(job.facts.run_id).control
        job.log.info(
            "run cancelled",
            actor=control.actor if control else None,
            reason=control.reason if control else None,
        )

    def _report(self, outcome: Outcome, job: BatchJob) -> None:
        name = "promotable" if isinstance(outcome, CheckpointSaved) else outcome.outcome
        job.span.set_attributes(outcome=name)
        self._update_metrics(outcome, name, job)
        verdict = outcome.verdict
        if verdict and verdict.alarm:
            job.log.error("reward hacking suspected", alarm=verdict.alarm)
        reasons = "; ".join(verdict.reasons) if verdict else getattr(outcome, "reason", "")
        job.log.info("outcome", outcome=name, evaluation=outcome.evaluation, reasons=reasons)

    def _update_metrics(self, outcome: Outcome, name: str, job: BatchJob) -> None:
        metrics, verdict, model = self._runtime.metrics, outcome.verdict, outcome.model
        metrics.count("ratchet_training_runs_total", model=model, outcome=name)
        # The time for which a run was cancelled is not the trainer's.
        was_resumed = self._view.run(outcome.run_id).resumption is not None
        is_first = outcome.evaluation == 1 and not was_resumed
        if verdict and is_first and job.announced_at is not None:
            seconds = (self._runtime.clock.now() - job.announced_at).total_seconds()
            metrics.observe(
                "ratchet_training_verdict_seconds", seconds, model=model, lane=outcome.lane
            )
        alarm = verdict.alarm if verdict else None
        metrics.set("ratchet_training_reward_hacking", alarm is not None, model=model)
        if verdict and verdict.budget:
            metrics.set(
                "ratchet_training_golden_decisions", verdict.budget.golden_decisions, model=model
            )
