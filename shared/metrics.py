"""The metrics that Ratchet exports: a closed catalogue, in the order of the flow."""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. Labels are bounded: models, reasons and services, never users or events."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    service: str
    labels: tuple[str, ...]
    description: str
    buckets: tuple[float, ...] = ()


_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

CATALOGUE: tuple[Metric, ...] = (
    Metric("ratchet_feedback_received_total", "counter", "feedback", ("model", "feedback_type"), "Feedback events that were valid."),
    Metric("ratchet_feedback_redactions_total", "counter", "feedback", ("model", "kind"), "Pieces of personal data that were replaced."),
    Metric("ratchet_feedback_reward", "histogram", "feedback", ("model",), "Rewards given.", (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1)),
    Metric("ratchet_dead_letters_total", "counter", "any", ("topic",), "Records that could not be processed and went to the dead letters."),
    Metric("ratchet_dataset_decisions_total", "counter", "dataset", ("model", "decision", "reason"), "What became of scored events."),
    Metric("ratchet_dataset_pending_examples", "gauge", "dataset", ("model", "shard"), "Training examples that wait for their batch."),
    Metric(
        "ratchet_dataset_held_back_examples",
        "gauge",
        "dataset",
        ("model", "shard", "reason"),
        "Training examples that may not enter a batch yet: for limits on influence, or of newcomers.",
    ),
    Metric(
        "ratchet_dataset_feedback_jump",
        "gauge",
        "dataset",
        ("model", "shard", "kind"),
        "1 while the share of a kind of feedback has jumped: look at who sends it.",
    ),
    Metric("ratchet_dataset_withdrawals_total", "counter", "dataset", ("model",), "Withdrawals of a user's feedback, one for each shard."),
    Metric("ratchet_dataset_batches_total", "counter", "dataset", ("model",), "Batches closed."),
    Metric("ratchet_training_runs_total", "counter", "trainer", ("model", "outcome"), "Runs that ended, by outcome."),
    Metric("ratchet_training_phase_seconds", "histogram", "trainer", ("model", "phase"), "Time that a phase of a run took.", _SECONDS),
    Metric("ratchet_training_in_progress", "gauge", "trainer", ("model",), "1 while a run of the model is in hand."),
    Metric("ratchet_training_loss", "gauge", "trainer", ("model",), "Loss of the newest step, nats per answer token."),
    Metric("ratchet_training_gradient_norm", "gauge", "trainer", ("model",), "Norm of the newest step's gradient, before clipping."),
    Metric("ratchet_training_tokens_per_second", "gauge", "trainer", ("model",), "Tokens that the run in hand trains in a second."),
    Metric("ratchet_training_steps_total", "counter", "trainer", ("model",), "Steps of training, those that were done again included."),
    Metric("ratchet_training_checkpoints_total", "counter", "trainer", ("model",), "Checkpoints that reached the object store."),
    Metric("ratchet_training_resumed_total", "counter", "trainer", ("model",), "Times that training went on from a checkpoint."),
    Metric(
        "ratchet_training_reward_hacking",
        "gauge",
        "trainer",
        ("model",),
        "1 while reward rises and held-out does not follow: promotion is stopped.",
    ),
    Metric("ratchet_training_batches_waiting", "gauge", "trainer", (), "Batches that wait for their lane's training window."),
    Metric(
        "ratchet_training_window_opens_seconds",
        "gauge",
        "trainer",
        (),
        "Unix time at which the next batch that waits for its window may begin; 0 when none waits.",
    ),
    Metric("ratchet_registry_promotions_total", "counter", "registry", ("model",), "Versions promoted."),
    Metric("ratchet_registry_rollbacks_total", "counter", "registry", ("model", "actor"), "Rollbacks, by who asked (operator or monitor)."),
    Metric(
        "ratchet_registry_live_reward",
        "gauge",
        "registry",
        ("model", "alias"),
        "Mean reward in live use, of champion and previous, over as many rewards of each.",
    ),
    Metric(
        "ratchet_registry_live_wealth",
        "gauge",
        "registry",
        ("model",),
        "Evidence that the champion does worse than the version before it; it is called worse from 1 / monitor.error on.",
    ),
    Metric("ratchet_registry_live_worse", "gauge", "registry", ("model",), "1 while the champion does worse in live use."),
    Metric("ratchet_registry_on_hold", "gauge", "registry", ("model",), "1 while nothing but a person moves the champion."),
    Metric("ratchet_registry_on_trial", "gauge", "registry", ("model",), "1 while users try a challenger beside the champion."),
    Metric(
        "ratchet_registry_trial_wealth",
        "gauge",
        "registry",
        ("model", "direction"),
        "Evidence on the challenger of the newest trial, worse or better: it acts at 1 / error.",
    ),
    Metric("ratchet_registry_withdrawals_total", "counter", "registry", ("model", "quarantined"), "Challengers withdrawn after a trial."),
    Metric("ratchet_registry_champion_number", "gauge", "registry", ("model",), "Number of the version that is champion."),
    Metric(
        "ratchet_registry_deploy_seconds",
        "histogram",
        "registry",
        ("model", "target"),
        "Promotion to verified switch.",
        _SECONDS,
    ),
    Metric("ratchet_registry_deployment_failures_total", "counter", "registry", ("model", "target", "step"), "Deployments undone."),
    Metric(
        "ratchet_registry_adapters_removed_total",
        "counter",
        "registry",
        ("model", "kind"),
        "Adapters that the retention rule removed: of a version, or of a candidate that became none.",
    ),
)


class Metrics:
    """A process's share of the catalogue, on a registry of its own."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._collectors = {row.name: _collector(row, self.registry) for row in CATALOGUE if row.service in (service, "any")}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter. KeyError when the catalogue has no such metric for this service."""
        collector = self._collectors[name]
        assert isinstance(collector, Counter)
        collector.labels(**labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        collector = self._collectors[name]
        assert isinstance(collector, Gauge)
        (collector.labels(**labels) if labels else collector).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        collector = self._collectors[name]
        assert isinstance(collector, Histogram)
        collector.labels(**labels).observe(value)


def _collector(row: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if row.kind == "counter":
        return Counter(row.name, row.description, row.labels, registry=registry)
    if row.kind == "gauge":
        return Gauge(row.name, row.description, row.labels, registry=registry)
    return Histogram(row.name, row.description, row.labels, registry=registry, buckets=row.buckets)
