"""The exported metrics: a closed catalogue in the order of the flow, then the metrics common to all
services.

Names follow the Prometheus conventions: base units as suffix, `_total` for counters.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue.

    `service` names the services that export it, separated by commas, or `any`. Labels are bounded:
    models, reasons and services, never users or events. Without a unit the value is a plain number.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    service: str
    labels: tuple[str, ...]
    description: str
    buckets: tuple[float, ...] = ()
    unit: str = ""

    def applies_to(self, service: str) -> bool:
        return self.service == "any" or service in self.service.split(", ")


_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_MINUTES = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)

FAUST_PREFIX = "faust_"
"""Prefix of Faust's own metrics, which shared/kafka/faust_metrics.py reads."""

_STREAMS = "feedback, dataset"

CATALOGUE: tuple[Metric, ...] = (
    Metric(
        "ratchet_intake_requests_total",
        "counter",
        "feedback",
        ("status",),
        "HTTP intake requests, by response status.",
    ),
    Metric(
        "ratchet_intake_events_total",
        "counter",
        "feedback",
        (),
        "Events that the HTTP intake produced to Kafka and that were acknowledged.",
    ),
    Metric(
        "ratchet_intake_bytes_in_flight",
        "gauge",
        "feedback",
        (),
        "Bytes of HTTP intake requests being processed.",
    ),
    Metric(
        "ratchet_intake_acknowledged_seconds",
        "histogram",
        "feedback",
        (),
        "Time from a valid request to Kafka's acknowledgement.",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        unit="seconds",
    ),
    Metric(
        "ratchet_feedback_received_total",
        "counter",
        "feedback",
        ("model", "feedback_type"),
        "Valid feedback events.",
    ),
    Metric(
        "ratchet_feedback_refused_total",
        "counter",
        "feedback",
        ("reason",),
        "Feedback sent to the dead-letter topic, by error.",
    ),
    Metric(
        "ratchet_feedback_redactions_total",
        "counter",
        "feedback",
        ("model", "kind"),
        "Redacted items of personal data.",
    ),
    Metric(
        "ratchet_feedback_reward",
        "histogram",
        "feedback",
        ("model",),
        "Rewards of scored feedback.",
        (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1),
    ),
    Metric(
        "ratchet_feedback_reward_gained_total",
        "counter",
        "feedback",
        ("model",),
        "Sum of the positive rewards.",
    ),
    Metric(
        "ratchet_feedback_reward_lost_total",
        "counter",
        "feedback",
        ("model",),
        "Sum of the absolute values of the negative rewards.",
    ),
    Metric(
        "ratchet_dead_letters_total",
        "counter",
        "any",
        ("topic",),
        "Records that could not be processed and went to the dead-letter topic.",
    ),
    Metric(
        "ratchet_dataset_decisions_total",
        "counter",
        "dataset",
        ("model", "decision", "reason"),
        "Decisions on scored events.",
    ),
    Metric(
        "ratchet_dataset_pending_examples",
        "gauge",
        "dataset",
        ("model", "shard"),
        "Training examples that are pending for the next batch.",
    ),
    Metric(
        "ratchet_dataset_held_back_examples",
        "gauge",
        "dataset",
        ("model", "shard", "reason"),
        "Training examples deferred from the batch because of influence limits or because "
        "the user is new.",
    ),
    Metric(
        "ratchet_dataset_feedback_jump",
        "gauge",
        "dataset",
        ("model", "shard", "kind"),
        "1 while the share of a kind of feedback is unusually high; check who sends it.",
    ),
    Metric(
        "ratchet_dataset_mostly_dropped",
        "gauge",
        "dataset",
        ("model", "shard"),
        "1 while more than half of the newest feedback is dropped; the log has the main reason.",
    ),
    Metric(
        "ratchet_dataset_withdrawals_total",
        "counter",
        "dataset",
        ("model",),
        "Withdrawals of a user's feedback, counted once per shard.",
    ),
    Metric(
        "ratchet_dataset_batch_size",
        "gauge",
        "dataset",
        ("model",),
        "Number of training examples that close a batch: batch_size, or pool.",
    ),
    Metric("ratchet_dataset_batches_total", "counter", "dataset", ("model",), "Batches closed."),
    Metric(
        "ratchet_dataset_newest_batch_timestamp_seconds",
        "gauge",
        "dataset",
        ("model", "shard"),
        "Unix time of the newest example in the newest batch; absent before the first batch.",
        unit="seconds",
    ),
    Metric(
        "ratchet_training_runs_total",
        "counter",
        "trainer",
        ("model", "outcome"),
        "Training runs that ended, by outcome.",
    ),
    Metric(
        "ratchet_training_phase_seconds",
        "histogram",
        "trainer",
        ("model", "phase"),
        "Duration of each phase of a training run.",
        _SECONDS,
        "seconds",
    ),
    Metric(
        "ratchet_training_verdict_seconds",
        "histogram",
        "trainer",
        ("model", "lane"),
        "Time from the announcement of a full batch to its first verdict.",
        _MINUTES,
        "seconds",
    ),
    Metric(
        "ratchet_training_in_progress",
        "gauge",
        "trainer",
        ("model",),
        "1 while a training run of the model is active.",
    ),
    Metric(
        "ratchet_training_loss",
        "gauge",
        "trainer",
        ("model",),
        "Loss of the latest step.",
        unit="nats per answer token",
    ),
    Metric(
        "ratchet_training_gradient_norm",
        "gauge",
        "trainer",
        ("model",),
        "Gradient norm of the newest step, before clipping.",
    ),
    Metric(
        "ratchet_training_tokens_per_second",
        "gauge",
        "trainer",
        ("model",),
        "Throughput of the active training run.",
        unit="tokens per second",
    ),
    Metric(
        "ratchet_training_steps_total",
        "counter",
        "trainer",
        ("model",),
        "Training steps, including repeated ones.",
    ),
    Metric(
        "ratchet_training_checkpoints_total",
        "counter",
        "trainer",
        ("model",),
        "Checkpoints uploaded to the object store.",
    ),
    Metric(
        "ratchet_training_resumed_total",
        "counter",
        "trainer",
        ("model",),
        "Times that training resumed from a checkpoint.",
    ),
    Metric(
        "ratchet_training_second_attempts_total",
        "counter",
        "trainer",
        ("model",),
        "Runs that trained once more, at a lower learning rate, since their candidate only forgot.",
    ),
    Metric(
        "ratchet_training_reward_hacking",
        "gauge",
        "trainer",
        ("model",),
        "1 while the reward rises and the held-out score does not; promotions are blocked.",
    ),
    Metric(
        "ratchet_training_golden_decisions",
        "gauge",
        "trainer",
        ("model",),
        "Gates that have used the model's present golden examples.",
    ),
    Metric(
        "ratchet_training_batches_waiting",
        "gauge",
        "trainer",
        (),
        "Batches that wait for the window of their lane, or because training is paused.",
    ),
    Metric(
        "ratchet_training_window_opens_seconds",
        "gauge",
        "trainer",
        (),
        "Unix time at which the next batch that waits for its window may start; 0 when none waits.",
        unit="seconds",
    ),
    Metric(
        "ratchet_registry_promotions_total", "counter", "registry", ("model",), "Versions promoted."
    ),
    Metric(
        "ratchet_registry_rollbacks_total",
        "counter",
        "registry",
        ("model", "actor"),
        "Rollbacks, by actor (operator or monitor).",
    ),
    Metric(
        "ratchet_registry_live_reward",
        "gauge",
        "registry",
        ("model", "alias"),
        "Mean reward in live use of champion and previous, over equal numbers of rewards.",
    ),
    Metric(
        "ratchet_registry_live_wealth",
        "gauge",
        "registry",
        ("model",),
        "E-value of the test that the champion is worse than the previous version; the "
        "champion is declared worse at 1 / monitor.error.",
    ),
    Metric(
        "ratchet_registry_live_worse",
        "gauge",
        "registry",
        ("model",),
        "1 while the champion is declared worse in live use.",
    ),
    Metric(
        "ratchet_registry_on_hold",
        "gauge",
        "registry",
        ("model",),
        "1 while the model is on hold: only an operator can move the champion.",
    ),
    Metric(
        "ratchet_registry_training_paused",
        "gauge",
        "registry",
        ("model",),
        "1 while training of the model is paused: its batches wait.",
    ),
    Metric(
        "ratchet_registry_on_trial",
        "gauge",
        "registry",
        ("model",),
        "1 while a canary trial of a challenger is active.",
    ),
    Metric(
        "ratchet_registry_trial_wealth",
        "gauge",
        "registry",
        ("model", "direction"),
        "E-values of the newest canary trial, for worse and better; the trial is "
        "decided at 1 / error.",
    ),
    Metric(
        "ratchet_registry_withdrawals_total",
        "counter",
        "registry",
        ("model", "quarantined"),
        "Challengers withdrawn after a canary trial.",
    ),
    Metric(
        "ratchet_registry_champion_number",
        "gauge",
        "registry",
        ("model",),
        "Version number of the champion.",
    ),
    Metric(
        "ratchet_registry_deploy_seconds",
        "histogram",
        "registry",
        ("model", "target"),
        "Time from promotion to verified switch.",
        _SECONDS,
        "seconds",
    ),
    Metric(
        "ratchet_registry_serves_champion",
        "gauge",
        "registry",
        ("model", "target"),
        "1 if the target served the champion's file at the last check; 0 if it could not "
        "be switched to it. Exported by the deploying replica.",
    ),
    Metric(
        "ratchet_registry_served_number",
        "gauge",
        "registry",
        ("model", "target"),
        "Version number that the target served as champion at the last check. Exported by "
        "the deploying replica.",
    ),
    Metric(
        "ratchet_registry_deployment_failures_total",
        "counter",
        "registry",
        ("model", "target", "step"),
        "Failed deployments, undone.",
    ),
    Metric(
        "ratchet_registry_adapters_removed_total",
        "counter",
        "registry",
        ("model", "kind"),
        "Adapters removed by the retention rule, of versions and of rejected candidates.",
    ),
    Metric(
        "ratchet_registry_webhooks_total",
        "counter",
        "registry",
        ("webhook", "result"),
        "Webhook messages: delivered, failed attempts, abandoned after the last attempt, and gone "
        "because the receiver declined them.",
    ),
    Metric(
        "ratchet_object_store_errors_total",
        "counter",
        "dataset, trainer, registry",
        ("operation",),
        "Object store operations that failed.",
    ),
    Metric(
        "ratchet_consumer_lag_records",
        "gauge",
        "any",
        ("group", "topic"),
        "Records that a consumer group has not committed yet, in the partitions assigned "
        "to this process.",
        unit="records",
    ),
    Metric("ratchet_service_live", "gauge", "any", (), "1 while /healthz returns 200."),
    Metric("ratchet_service_ready", "gauge", "any", (), "1 while /readyz returns 200."),
    Metric(
        "ratchet_service_stalled_seconds",
        "gauge",
        "any",
        (),
        "Time since the last progress while there is work to do, or since the start of a "
        "recovery; 0 without work.",
        unit="seconds",
    ),
    Metric(
        "ratchet_disk_free_bytes",
        "gauge",
        "any",
        ("folder",),
        "Free space on the file system of a folder that the service writes to, by setting.",
        unit="bytes",
    ),
    Metric(
        "ratchet_disk_size_bytes",
        "gauge",
        "any",
        ("folder",),
        "Size of that file system.",
        unit="bytes",
    ),
    Metric(
        "ratchet_build_info",
        "gauge",
        "any",
        ("version",),
        "Always 1; the label is the running version.",
    ),
    Metric(
        "faust_messages_received_total",
        "counter",
        _STREAMS,
        (),
        "Messages that Faust passed to streams.",
    ),
    Metric("faust_events_total", "counter", _STREAMS, (), "Events received by Faust's streams."),
    Metric(
        "faust_events_active", "gauge", _STREAMS, (), "Events that Faust's streams are processing."
    ),
    Metric(
        "faust_messages_sent_total",
        "counter",
        _STREAMS,
        (),
        "Messages passed to Faust's producer, which are those of changelogs.",
    ),
    Metric(
        "faust_send_errors_total", "counter", _STREAMS, (), "Messages that Faust failed to send."
    ),
    Metric(
        "faust_send_seconds",
        "gauge",
        _STREAMS,
        (),
        "Mean duration of the most recent sends.",
        unit="seconds",
    ),
    Metric("faust_rebalances_total", "counter", _STREAMS, (), "Rebalances of this worker."),
    Metric(
        "faust_rebalance_seconds",
        "gauge",
        _STREAMS,
        (),
        "Mean duration of the most recent rebalances, including recovery.",
        unit="seconds",
    ),
)


class Metrics:
    """The metrics of one process, in a registry of its own, plus the `process_*` metrics of the
    Prometheus client.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        rows = [
            row
            for row in CATALOGUE
            if row.applies_to(service) and not row.name.startswith(FAUST_PREFIX)
        ]
        self._collectors = {row.name: _collector(row, self.registry) for row in rows}
        self._labels = {row.name: row.labels for row in rows}
        ProcessCollector(registry=self.registry)

    def init_series(self, name: str, **labels: str) -> None:
        """Create a series at zero, so that Prometheus sees its first increase."""
        self._collectors[name].labels(**labels)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter. Raises KeyError for a metric that this service does not export."""
        collector = self._collectors[name]
        assert isinstance(collector, Counter)
        (collector.labels(**labels) if labels else collector).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauge(name, labels).set(value)

    def set_function(self, name: str, value: Callable[[], float], **labels: str) -> None:
        """Read a gauge from `value` at each scrape, from any thread. `value` must not raise."""
        self._gauge(name, labels).set_function(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        collector = self._collectors[name]
        assert isinstance(collector, Histogram)
        (collector.labels(**labels) if labels else collector).observe(value)

    def remove_series(self, name: str, **labels: str) -> None:
        """Remove a series that another process reports from now on; without labels, all series of
        the metric.
        """
        collector = self._collectors[name]
        if not labels:
            collector.clear()
            return
        with suppress(KeyError):  # the series may never have been set
            collector.remove(*(labels[label] for label in self._labels[name]))

    def _gauge(self, name: str, labels: dict[str, str]) -> Gauge:
        collector = self._collectors[name]
        assert isinstance(collector, Gauge)
        return collector.labels(**labels) if labels else collector


def _collector(row: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if row.kind == "counter":
        return Counter(row.name, row.description, row.labels, registry=registry)
    if row.kind == "gauge":
        return Gauge(row.name, row.description, row.labels, registry=registry)
    return Histogram(row.name, row.description, row.labels, registry=registry, buckets=row.buckets)
