"""The metrics that Ratchet exports: a closed catalogue, in the order of the flow, then what every
service says of itself.

Names are Prometheus's way: base units, which a name ends in where there is one, and `_total` for
what only grows.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `service` names those that have it, with commas between them.
    Labels are bounded: models, reasons and services, never users or events. Without a unit it is a
    number of what its name says.
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
"""What Faust counts itself has names that begin so; it is read from Faust
(shared/kafka/faust_metrics.py).
"""

_STREAMS = "feedback, dataset"

CATALOGUE: tuple[Metric, ...] = (
    Metric(
        "ratchet_intake_requests_total",
        "counter",
        "feedback",
        ("status",),
        "Requests to the HTTP intake, by their answer's status.",
    ),
    Metric(
        "ratchet_intake_events_total",
        "counter",
        "feedback",
        (),
        "Events that the HTTP intake put on the bus, acknowledged.",
    ),
    Metric(
        "ratchet_intake_bytes_in_flight",
        "gauge",
        "feedback",
        (),
        "Bytes of requests to the HTTP intake that are under way.",
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
        "Feedback events that were valid.",
    ),
    Metric(
        "ratchet_feedback_refused_total",
        "counter",
        "feedback",
        ("reason",),
        "Feedback that went to the dead letters, by what was wrong.",
    ),
    Metric(
        "ratchet_feedback_redactions_total",
        "counter",
        "feedback",
        ("model", "kind"),
        "Pieces of personal data that were replaced.",
    ),
    Metric(
        "ratchet_feedback_reward",
        "histogram",
        "feedback",
        ("model",),
        "Rewards given.",
        (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1),
    ),
    Metric(
        "ratchet_feedback_reward_gained_total",
        "counter",
        "feedback",
        ("model",),
        "Sum of the rewards above zero.",
    ),
    Metric(
        "ratchet_feedback_reward_lost_total",
        "counter",
        "feedback",
        ("model",),
        "Sum of the rewards below zero, without their sign.",
    ),
    Metric(
        "ratchet_dead_letters_total",
        "counter",
        "any",
        ("topic",),
        "Records that could not be processed and went to the dead letters.",
    ),
    Metric(
        "ratchet_dataset_decisions_total",
        "counter",
        "dataset",
        ("model", "decision", "reason"),
        "What became of scored events.",
    ),
    Metric(
        "ratchet_dataset_pending_examples",
        "gauge",
        "dataset",
        ("model", "shard"),
        "Training examples that wait for their batch.",
    ),
    Metric(
        "ratchet_dataset_held_back_examples",
        "gauge",
        "dataset",
        ("model", "shard", "reason"),
        "Training examples that may not enter a batch yet: for limits on influence, or of "
        "newcomers.",
    ),
    Metric(
        "ratchet_dataset_feedback_jump",
        "gauge",
        "dataset",
        ("model", "shard", "kind"),
        "1 while the share of a kind of feedback has jumped: look at who sends it.",
    ),
    Metric(
        "ratchet_dataset_withdrawals_total",
        "counter",
        "dataset",
        ("model",),
        "Withdrawals of a user's feedback, one for each shard.",
    ),
    Metric(
        "ratchet_dataset_batch_size",
        "gauge",
        "dataset",
        ("model",),
        "Training examples that close a batch: batch_size, or pool.",
    ),
    Metric("ratchet_dataset_batches_total", "counter", "dataset", ("model",), "Batches closed."),
    Metric(
        "ratchet_dataset_newest_batch_timestamp_seconds",
        "gauge",
        "dataset",
        ("model", "shard"),
        "Unix time of the newest example in the newest batch; absent before the first.",
        unit="seconds",
    ),
    Metric(
        "ratchet_training_runs_total",
        "counter",
        "trainer",
        ("model", "outcome"),
        "Runs that ended, by outcome.",
    ),
    Metric(
        "ratchet_training_phase_seconds",
        "histogram",
        "trainer",
        ("model", "phase"),
        "Time that a phase of a run took.",
        _SECONDS,
        "seconds",
    ),
    Metric(
        "ratchet_training_verdict_seconds",
        "histogram",
        "trainer",
        ("model", "lane"),
        "From the announcement of a full batch to the first verdict on it.",
        _MINUTES,
        "seconds",
    ),
    Metric(
        "ratchet_training_in_progress",
        "gauge",
        "trainer",
        ("model",),
        "1 while a run of the model is in hand.",
    ),
    Metric(
        "ratchet_training_loss",
        "gauge",
        "trainer",
        ("model",),
        "Loss of the newest step.",
        unit="nats per answer token",
    ),
    Metric(
        "ratchet_training_gradient_norm",
        "gauge",
        "trainer",
        ("model",),
        "Norm of the newest step's gradient, before clipping.",
    ),
    Metric(
        "ratchet_training_tokens_per_second",
        "gauge",
        "trainer",
        ("model",),
        "Speed of the run in hand.",
        unit="tokens per second",
    ),
    Metric(
        "ratchet_training_steps_total",
        "counter",
        "trainer",
        ("model",),
        "Steps of training, those that were done again included.",
    ),
    Metric(
        "ratchet_training_checkpoints_total",
        "counter",
        "trainer",
        ("model",),
        "Checkpoints that reached the object store.",
    ),
    Metric(
        "ratchet_training_resumed_total",
        "counter",
        "trainer",
        ("model",),
        "Times that training went on from a checkpoint.",
    ),
    Metric(
        "ratchet_training_reward_hacking",
        "gauge",
        "trainer",
        ("model",),
        "1 while reward rises and held-out does not follow: promotion is stopped.",
    ),
    Metric(
        "ratchet_training_batches_waiting",
        "gauge",
        "trainer",
        (),
        "Batches that wait for their lane's training window.",
    ),
    Metric(
        "ratchet_training_window_opens_seconds",
        "gauge",
        "trainer",
        (),
        "Unix time at which the next batch that waits for its window may begin; 0 when none waits.",
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
        "Rollbacks, by who asked (operator or monitor).",
    ),
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
        "Evidence that the champion does worse than the version before it; it is called "
        "worse from 1 / monitor.error on.",
    ),
    Metric(
        "ratchet_registry_live_worse",
        "gauge",
        "registry",
        ("model",),
        "1 while the champion does worse in live use.",
    ),
    Metric(
        "ratchet_registry_on_hold",
        "gauge",
        "registry",
        ("model",),
        "1 while nothing but a person moves the champion.",
    ),
    Metric(
        "ratchet_registry_on_trial",
        "gauge",
        "registry",
        ("model",),
        "1 while users try a challenger beside the champion.",
    ),
    Metric(
        "ratchet_registry_trial_wealth",
        "gauge",
        "registry",
        ("model", "direction"),
        "Evidence on the challenger of the newest trial, worse or better: it acts at 1 / error.",
    ),
    Metric(
        "ratchet_registry_withdrawals_total",
        "counter",
        "registry",
        ("model", "quarantined"),
        "Challengers withdrawn after a trial.",
    ),
    Metric(
        "ratchet_registry_champion_number",
        "gauge",
        "registry",
        ("model",),
        "Number of the version that is champion.",
    ),
    Metric(
        "ratchet_registry_deploy_seconds",
        "histogram",
        "registry",
        ("model", "target"),
        "Promotion to verified switch.",
        _SECONDS,
        "seconds",
    ),
    Metric(
        "ratchet_registry_serves_champion",
        "gauge",
        "registry",
        ("model", "target"),
        "1 when the target was last seen to serve the champion's very file; 0 when it could "
        "not be brought to. The deploying replica's.",
    ),
    Metric(
        "ratchet_registry_served_number",
        "gauge",
        "registry",
        ("model", "target"),
        "Number of the version that the target was last seen to serve as champion. The "
        "deploying replica's.",
    ),
    Metric(
        "ratchet_registry_deployment_failures_total",
        "counter",
        "registry",
        ("model", "target", "step"),
        "Deployments undone.",
    ),
    Metric(
        "ratchet_registry_adapters_removed_total",
        "counter",
        "registry",
        ("model", "kind"),
        "Adapters that the retention rule removed: of a version, or of a candidate that "
        "became none.",
    ),
    Metric(
        "ratchet_object_store_errors_total",
        "counter",
        "dataset, trainer, registry",
        ("operation",),
        "Operations that the object store did not carry out.",
    ),
    Metric(
        "ratchet_consumer_lag_records",
        "gauge",
        "any",
        ("group", "topic"),
        "Records that a group has not committed yet, in the partitions that this process owns.",
        unit="records",
    ),
    Metric("ratchet_service_live", "gauge", "any", (), "1 while /healthz would answer 200."),
    Metric("ratchet_service_ready", "gauge", "any", (), "1 while /readyz would answer 200."),
    Metric(
        "ratchet_service_stalled_seconds",
        "gauge",
        "any",
        (),
        "Time since the newest progress while there is work to do, or since a recovery "
        "began; 0 when there is nothing to do.",
        unit="seconds",
    ),
    Metric(
        "ratchet_disk_free_bytes",
        "gauge",
        "any",
        ("folder",),
        "Free space where the service writes, by setting.",
        unit="bytes",
    ),
    Metric(
        "ratchet_disk_size_bytes",
        "gauge",
        "any",
        ("folder",),
        "Size of the file system there.",
        unit="bytes",
    ),
    Metric(
        "ratchet_build_info",
        "gauge",
        "any",
        ("version",),
        "Always 1; the label says which version runs.",
    ),
    Metric(
        "faust_messages_received_total",
        "counter",
        _STREAMS,
        (),
        "Messages that Faust has handed to streams.",
    ),
    Metric(
        "faust_events_total", "counter", _STREAMS, (), "Events that Faust's streams have taken."
    ),
    Metric(
        "faust_events_active", "gauge", _STREAMS, (), "Events that Faust's streams have in hand."
    ),
    Metric(
        "faust_messages_sent_total",
        "counter",
        _STREAMS,
        (),
        "Messages that Faust was given to send, which are those of changelogs.",
    ),
    Metric(
        "faust_send_errors_total", "counter", _STREAMS, (), "Messages that Faust could not send."
    ),
    Metric(
        "faust_send_seconds",
        "gauge",
        _STREAMS,
        (),
        "Mean time that the newest of them took.",
        unit="seconds",
    ),
    Metric("faust_rebalances_total", "counter", _STREAMS, (), "Rebalances that this worker saw."),
    Metric(
        "faust_rebalance_seconds",
        "gauge",
        _STREAMS,
        (),
        "Mean time that the newest rebalances took, recovery included.",
        unit="seconds",
    ),
)


class Metrics:
    """A process's share of the catalogue, on a registry of its own, and the `process_*` metrics of
    Prometheus's own client.
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
        """Let a series begin at zero: Prometheus sees the first increase of what was there before
        it.
        """
        self._collectors[name].labels(**labels)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter. KeyError when the catalogue has no such metric for this service."""
        collector = self._collectors[name]
        assert isinstance(collector, Counter)
        (collector.labels(**labels) if labels else collector).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauge(name, labels).set(value)

    def set_function(self, name: str, value: Callable[[], float], **labels: str) -> None:
        """Have a gauge ask for its value whenever it is looked at, from any thread. `value` must
        not raise.
        """
        self._gauge(name, labels).set_function(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        collector = self._collectors[name]
        assert isinstance(collector, Histogram)
        (collector.labels(**labels) if labels else collector).observe(value)

    def remove_series(self, name: str, **labels: str) -> None:
        """Drop a series that is another process's to tell from now on; without labels, all of a
        metric.
        """
        collector = self._collectors[name]
        if not labels:
            collector.clear()
            return
        with suppress(KeyError):  # it may never have been told
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
