"""Progress of one run on the bus, for whoever watches."""

from services.trainer.protocol import EvaluationProgress, Stepped
from shared.clock import Clock
from shared.config.model_file import Models
from shared.errors import BusUnavailable
from shared.events import BatchReady, Phase, TrainingProgressed
from shared.failpoints import reach
from shared.identity import identity
from shared.logs import Log
from shared.messaging.bus import Producer, publish
from shared.messaging.codec import Headers
from shared.messaging.topics import TRAINING_PROGRESS
from shared.observability.health import Health
from shared.observability.metrics import Metrics

SOURCE = "ratchet/trainer"
LOG_EVERY_STEPS = 10
"""Steps of training from one line of log to the next; the last step has one as well."""

MIN_EVENT_SECONDS = 0.5
"""Seconds between two events of a phase at least; the first and the last step are always told."""


OUTCOMES = ("promotable", "rejected", "inconclusive", "failed")


def initialize_run_metrics(metrics: Metrics, models: Models) -> None:
    """Let what is counted of runs begin at zero."""
    for name, file in models.files.items():
        for outcome in OUTCOMES:
            metrics.init_series("ratchet_training_runs_total", model=name, outcome=outcome)
        for lane in file.lanes:
            metrics.init_series("ratchet_training_verdict_seconds", model=name, lane=lane)


class ProgressReporter:
    """Tells how far a run is, and counts how long its phases take."""

    def __init__(
        self,
        batch: BatchReady,
        run_id: str,
        producer: Producer,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        log: Log,
        trace_headers: Headers = (),
    ) -> None:
        """`more` are headers of what is said, beside its own."""
        self._batch = batch
        self._run_id = run_id
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._more = trace_headers
        self._phase: Phase | None = None
        self._since = self._told = clock.monotonic()
        self._step = 0

    async def enter_phase(self, phase: Phase) -> None:
        self.leave_phase()
        self._phase, self._since, self._step = phase, self._clock.monotonic(), 0
        self._health.record_progress(busy=True)
        await self._tell(0, 0)

    def leave_phase(self) -> None:
        """The phase in hand is over."""
        if self._phase is not None:
            self._log.info("phase over", phase=self._phase, seconds=round(self.seconds, 1))
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
        """How long the phase in hand has lasted."""
        return self._clock.monotonic() - self._since

    async def on_progress(self, reply: Stepped | EvaluationProgress) -> None:
        """Pass on what the child says."""
        self._health.record_progress(busy=True)
        if isinstance(reply, Stepped):
            await reach("trainer.heard_step")
            self._measure(reply)
            if reply.step % LOG_EVERY_STEPS == 0 or reply.step == reply.total_steps:
                self.log(
                    "step",
                    **{
                        name: _short(value)
                        for name, value in reply.model_dump(
                            exclude={"kind"}, exclude_none=True
                        ).items()
                    },
                )
        step, total = (
            (reply.step, reply.total_steps)
            if isinstance(reply, Stepped)
            else (reply.done, reply.total)
        )
        if step in (1, total) or self._clock.monotonic() - self._told >= MIN_EVENT_SECONDS:
            await self._tell(step, total, reply if isinstance(reply, Stepped) else None)

    def _measure(self, stepped: Stepped) -> None:
        model = self._batch.model
        if stepped.step > 1 and stepped.step != self._step + 1:
            self._log.info("training goes on from a checkpoint", step=stepped.step - 1)
            self._metrics.count("ratchet_training_resumed_total", model=model)
        self._step = stepped.step
        self._metrics.count("ratchet_training_steps_total", model=model)
        self._metrics.set("ratchet_training_loss", stepped.loss, model=model)
        self._metrics.set(
            "ratchet_training_tokens_per_second", stepped.tokens_per_second, model=model
        )
        if stepped.gradient_norm is not None:
            self._metrics.set("ratchet_training_gradient_norm", stepped.gradient_norm, model=model)

    def log(self, what: str, **values: object) -> None:
        """A line in the run's log."""
        self._log.info(what, **values)

    async def _tell(self, step: int, total: int, stepped: Stepped | None = None) -> None:
        assert self._phase is not None
        self._told = self._clock.monotonic()
        event = TrainingProgressed(
            event_id=identity("TrainingProgressed", self._run_id, self._phase, step, total),
            occurred_at=self._clock.now(),
            model=self._batch.model,
            run_id=self._run_id,
            batch_id=self._batch.batch_id,
            phase=self._phase,
            step=step,
            total_steps=total,
            **(
                stepped.model_dump(
                    include={
                        "loss",
                        "learning_rate",
                        "gradient_norm",
                        "tokens_per_second",
                        "seconds_left",
                    }
                )
                if stepped
                else {}
            ),
        )
        try:
            await publish(
                self._producer, TRAINING_PROGRESS, self._run_id, event, SOURCE, self._more
            )
        except BusUnavailable as error:
            # Minutes of training are not thrown away because nobody could watch; the outcome is
            # published or nothing is committed.
            self._log.warning("progress not told", run=self._run_id, reason=str(error))


def _short(value: int | float) -> int | float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
