"""Progress of one run: events, log lines, metrics, and the reports behind liveness."""

from collections.abc import Awaitable, Callable
from typing import Self

from services.trainer.protocol import EvaluationProgress, Stepped
from shared.config.models import Models
from shared.errors import BusUnavailable
from shared.events import BatchReady, Phase, TrainingProgressed
from shared.failpoints import reach
from shared.identity import identity
from shared.logs import Log
from shared.messaging.bus import Producer, publish
from shared.messaging.codec import Headers
from shared.messaging.topics import TRAINING_PROGRESS
from shared.observability.metrics import Metrics
from shared.service.runtime import Runtime

SOURCE = "ratchet/trainer"
LOG_EVERY_STEPS = 10
"""Training steps between two log lines; the last step is always logged."""

MIN_EVENT_SECONDS = 0.5
"""Minimum time between two events of a phase; the first and the last step are always published."""

OUTCOMES = ("promotable", "rejected", "inconclusive", "failed", "cancelled")

_STEP_FIELDS = {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "seconds_left"}


def initialize_run_metrics(metrics: Metrics, models: Models) -> None:
    """Export the counters of runs with the value zero before the first run."""
    for name, file in models.files.items():
        for outcome in OUTCOMES:
            metrics.init_series("ratchet_training_runs_total", model=name, outcome=outcome)
        metrics.init_series("ratchet_training_second_attempts_total", model=name)
        for lane in file.lanes:
            metrics.init_series("ratchet_training_verdict_seconds", model=name, lane=lane)


class ProgressReporter:
    """Publishes a run's progress and measures the duration of its phases. Each phase lasts until
    the next one begins; the last one ends with the reporter's context.
    """

    def __init__(
        self,
        batch: BatchReady,
        run_id: str,
        producer: Producer,
        runtime: Runtime,
        log: Log,
        trace_headers: Headers = (),
        after_step: Callable[[], Awaitable[None]] | None = None,
        resumption: int | None = None,
    ) -> None:
        """`log` is bound to the run; `trace_headers` are added to each event's headers;
        `after_step` is called after each training step is reported; `resumption` is the number of
        the operator's decision that resumed the run. `attempt` is the number of the run's current
        attempt.
        """
        self._batch = batch
        self._run_id = run_id
        self._producer = producer
        self._clock = runtime.clock
        self._metrics = runtime.metrics
        self._health = runtime.health
        self._log = log
        self._trace_headers = trace_headers
        self._after_step = after_step
        self._resumption = () if resumption is None else (f"resumed {resumption}",)
        self.attempt = 1
        self._phase: Phase | None = None
        self._phase_started_at = self._published_at = self._clock.monotonic()
        self._step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave_phase()

    async def enter_phase(self, phase: Phase) -> None:
        self._leave_phase()
        self._phase, self._phase_started_at, self._step = phase, self._clock.monotonic(), 0
        self._health.record_progress(busy=True)
        await self._publish(0, 0)

    def _leave_phase(self) -> None:
        if self._phase is not None:
            self._log.info("phase completed", phase=self._phase, seconds=round(self.seconds, 1))
            self._metrics.observe(
                "ratchet_training_phase_seconds",
                self.seconds,
                model=self._batch.model,
                phase=self._phase,
            )
        self._phase = None
        self._health.record_progress()

    @property
    def seconds(self) -> float:
        """Duration of the current phase so far."""
        return self._clock.monotonic() - self._phase_started_at

    async def on_progress(self, reply: Stepped | EvaluationProgress) -> None:
        """Report a progress reply of the training process."""
        self._health.record_progress(busy=True)
        if isinstance(reply, Stepped):
            await reach("trainer.heard_step")
            self._measure(reply)
            if reply.step % LOG_EVERY_STEPS == 0 or reply.step == reply.total_steps:
                values = reply.model_dump(exclude={"kind"}, exclude_none=True)
                self._log.info("step", **{name: _rounded(value) for name, value in values.items()})
            step, total = reply.step, reply.total_steps
        else:
            step, total = reply.done, reply.total
        is_due = self._clock.monotonic() - self._published_at >= MIN_EVENT_SECONDS
        if step in (1, total) or is_due:
            await self._publish(step, total, reply if isinstance(reply, Stepped) else None)
        if self._after_step is not None and isinstance(reply, Stepped):
            await self._after_step()

    def _measure(self, stepped: Stepped) -> None:
        model = self._batch.model
        if stepped.step > 1 and stepped.step != self._step + 1:
            self._log.info("training resumed from a checkpoint", step=stepped.step - 1)
            self._metrics.count("ratchet_training_resumed_total", model=model)
        self._step = stepped.step
        self._metrics.count("ratchet_training_steps_total", model=model)
        self._metrics.set("ratchet_training_loss", stepped.loss, model=model)
        self._metrics.set(
            "ratchet_training_tokens_per_second", stepped.tokens_per_second, model=model
        )
        if stepped.gradient_norm is not None:
            self._metrics.set("ratchet_training_gradient_norm", stepped.gradient_norm, model=model)

    async def _publish(self, step: int, total: int, stepped: Stepped | None = None) -> None:
        assert self._phase is not None
        self._published_at = self._clock.monotonic()
        event = TrainingProgressed(
            event_id=self._event_id(self._phase, step, total),
            occurred_at=self._clock.now(),
            model=self._batch.model,
            run_id=self._run_id,
            batch_id=self._batch.batch_id,
            phase=self._phase,
            step=step,
            total_steps=total,
            **(stepped.model_dump(include=_STEP_FIELDS) if stepped else {}),
        )
        try:
            await publish(
                self._producer, TRAINING_PROGRESS, self._run_id, event, SOURCE, self._trace_headers
            )
        except BusUnavailable as error:
            # Progress events are optional, so they do not fail a run. The outcome is different:
            # without it nothing is committed.
            self._log.warning("progress not published", run=self._run_id, reason=str(error))

    def _event_id(self, phase: Phase, step: int, total: int) -> str:
        attempt = () if self.attempt == 1 else (self.attempt,)
        of_run = ("TrainingProgressed", self._run_id, phase, step, total)
        return identity(*of_run, *attempt, *self._resumption)


def _rounded(value: int | float) -> int | float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
