"""The streams dashboard: feedback, rewards, batches and the health of the two stream services."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.dashboard_builder import MODEL, NAMESPACE, DashboardRow, build_dashboard
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Query,
    bar_gauge_panel,
    bar_panel,
    heatmap_panel,
    stat_panel,
    state_timeline_panel,
    time_series_panel,
)
from deploy.grafana.shared_queries import ALARM_STATES, READY_STATES, feedback_reward

STREAMS = f'{NAMESPACE}, service=~"feedback|dataset"'
GROUPS = f'{NAMESPACE}, group=~"ratchet-feedback|ratchet-dataset"'

SUMMARY = DashboardRow(
    "Summary",
    (
        stat_panel(
            "Ready instances",
            "Ready instances of the feedback and dataset services.",
            Query(
                f"sum by (service) (ratchet_service_ready{{{STREAMS}}})",
                "{{service}}",
                instant=True,
            ),
            steps=((None, RED), (1, GREEN)),
            no_value="none",
        ),
        stat_panel(
            "Consumer lag",
            "Records that the two consumer groups have not committed yet.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{GROUPS}}})",
                "{{group}}",
                instant=True,
            ),
            steps=((None, GREEN), (1_000, ORANGE), (100_000, RED)),
        ),
        stat_panel(
            "Accepted feedback",
            "Valid feedback in the time range.",
            Query(
                f"sum by (model) (increase(ratchet_feedback_received_total{{{MODEL}}}[$__range]))",
                "{{model}}",
                instant=True,
            ),
            unit="short",
            no_value="none",
        ),
        stat_panel(
            "Dead letters",
            "Records of feedback.received and feedback.scored that could not be processed, in the "
            "time range. `ratchet dlq list` shows the reasons.",
            Query(
                f"sum(increase(ratchet_dead_letters_total{{{NAMESPACE}, "
                'topic=~"feedback.received|feedback.scored"}[$__range]))',
                "dead letters",
                instant=True,
            ),
            steps=((None, GREEN), (1, ORANGE), (100, RED)),
            no_value="none",
        ),
        stat_panel(
            "Batches",
            "Batches closed in the time range.",
            Query(
                "round(sum by (model) "
                f"(increase(ratchet_dataset_batches_total{{{MODEL}}}[$__range])))",
                "{{model}}",
                instant=True,
            ),
            no_value="none",
        ),
        stat_panel(
            "Newest batch",
            "Age of the newest example in each model's newest batch. If it is old although "
            "feedback arrives, look at the row `Batches`.",
            Query(
                "time() - max by (model) "
                f"(ratchet_dataset_newest_batch_timestamp_seconds{{{MODEL}}})",
                "{{model}}",
                instant=True,
            ),
            unit="s",
            steps=((None, GREEN), (86_400, ORANGE), (604_800, RED)),
            no_value="none yet",
        ),
    ),
)

FEEDBACK = DashboardRow(
    "Feedback",
    (
        time_series_panel(
            "Feedback by kind",
            "Valid feedback per second.",
            Query(
                "sum by (model, feedback_type) "
                f"(rate(ratchet_feedback_received_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{feedback_type}}",
            ),
            unit="reqps",
            soft_min=0,
        ),
        time_series_panel("Reward", "Mean reward of feedback, from -1 to 1.", feedback_reward()),
        heatmap_panel(
            "Reward distribution",
            "Number of rewards in each range.",
            Query(
                "sum by (le) "
                f"(increase(ratchet_feedback_reward_bucket{{{MODEL}}}[$__rate_interval]))",
                "{{le}}",
            ),
        ),
        bar_panel(
            "Rejected feedback",
            "Dead-lettered records, by error. `UnknownModel`: no model file declares the model of "
            "the feedback.",
            Query(
                "sum by (reason) "
                f"(increase(ratchet_feedback_refused_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{reason}}",
            ),
            width=12,
        ),
        bar_panel(
            "Redacted personal data",
            "Items of personal data redacted before storage, by kind.",
            Query(
                "sum by (model, kind) "
                f"(increase(ratchet_feedback_redactions_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{kind}}",
            ),
            width=12,
        ),
    ),
)

HTTP_INTAKE = DashboardRow(
    "HTTP intake",
    (
        bar_panel(
            "Requests by status",
            "202: the events are in Kafka; 422: invalid, the response names the error; 429 and "
            "503: the client should retry.",
            Query(
                "sum by (status) "
                f"(increase(ratchet_intake_requests_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{status}}",
            ),
            width=12,
        ),
        time_series_panel(
            "Accepted events",
            "Events per second in requests answered with 202.",
            Query(
                f"sum(rate(ratchet_intake_events_total{{{NAMESPACE}}}[$__rate_interval]))",
                "accepted",
            ),
            unit="reqps",
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Kafka acknowledgement latency",
            "Time from a valid request to Kafka's acknowledgement, median and 90th percentile.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"(increase(ratchet_intake_acknowledged_seconds_bucket{{{NAMESPACE}}}[$__rate_interval])))",
                    name,
                )
                for share, name in ((0.5, "p50"), (0.9, "p90"))
            ),
            unit="s",
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Bytes in flight",
            "Bytes of requests that are not answered yet. At `RATCHET_INTAKE_IN_FLIGHT_BYTES`, "
            "further requests get status 429.",
            Query(
                f"max by (instance) (ratchet_intake_bytes_in_flight{{{NAMESPACE}}})",
                "{{instance}}",
            ),
            unit="bytes",
            soft_min=0,
            width=12,
        ),
    ),
)

BATCHES = DashboardRow(
    "Batches",
    (
        bar_panel(
            "Decisions",
            "Scored events by decision and reason. Every dropped event is counted here with its "
            "reason.",
            Query(
                "sum by (decision, reason) "
                f"(increase(ratchet_dataset_decisions_total{{{MODEL}}}[$__rate_interval]))",
                "{{decision}}: {{reason}}",
            ),
            width=12,
        ),
        bar_gauge_panel(
            "Next batch",
            "Pending training examples as a share of the batch size. If it is full and does not "
            "close, the pending examples are deferred.",
            Query(
                f"max by (model, shard) (ratchet_dataset_pending_examples{{{MODEL}}}) / on "
                "(model) group_left () "
                f"max by (model) (ratchet_dataset_batch_size{{{MODEL}}})",
                "{{model}} shard {{shard}}",
                instant=True,
            ),
            unit="percentunit",
            width=6,
        ),
        bar_gauge_panel(
            "Deferred examples",
            "Examples deferred from the batch, by reason: limits on a user's influence, or a new "
            "user.",
            Query(
                f"max by (model, shard, reason) (ratchet_dataset_held_back_examples{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{reason}}",
                instant=True,
            ),
            steps=((None, GREEN), (1, ORANGE)),
            width=6,
        ),
        state_timeline_panel(
            "Feedback mix alarm",
            "Raised while the share of a kind of feedback differs strongly from its previous "
            "level, which may indicate a campaign. Check who sends it. A kind appears after its "
            "first alarm.",
            Query(
                f"max by (model, shard, kind) (ratchet_dataset_feedback_jump{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{kind}}",
            ),
            states=ALARM_STATES,
            width=6,
        ),
        state_timeline_panel(
            "Dropped feedback alarm",
            "Raised while a shard drops more than half of its newest feedback. The log has the "
            "main reason. A shard appears after its first alarm.",
            Query(
                f"max by (model, shard) (ratchet_dataset_mostly_dropped{{{MODEL}}})",
                "{{model}} shard {{shard}}",
            ),
            states=ALARM_STATES,
            width=6,
        ),
        bar_panel(
            "Closed batches and withdrawals",
            "Batches, and withdrawals of a user's feedback, counted once per shard.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_dataset_batches_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} batches",
            ),
            Query(
                "sum by (model) "
                f"(increase(ratchet_dataset_withdrawals_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} withdrawals",
            ),
            width=12,
        ),
    ),
)

HEALTH = DashboardRow(
    "Stream health",
    (
        state_timeline_panel(
            "Instances",
            "Readiness of each instance.",
            Query(f"ratchet_service_ready{{{STREAMS}}}", "{{service}} {{instance}}"),
            states=READY_STATES,
            width=12,
        ),
        time_series_panel(
            "Consumer lag",
            "By group and topic. If it grows, add instances, up to the number of partitions.",
            Query(
                f"sum by (group, topic) (ratchet_consumer_lag_records{{{GROUPS}}})",
                "{{group}} {{topic}}",
            ),
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Time without progress",
            "Time since the last commit while there is work. After one minute an instance counts "
            "as stalled and its liveness probe fails.",
            Query(
                f"max by (service, instance) (ratchet_service_stalled_seconds{{{STREAMS}}})",
                "{{service}} {{instance}}",
            ),
            unit="s",
            steps=((None, GREEN), (60, RED)),
            soft_min=0,
        ),
        bar_panel(
            "Rebalances",
            "Each rebalance stops the stream until its state is recovered. Many without a "
            "deployment indicate session timeouts.",
            Query(
                "sum by (service) "
                f"(increase(faust_rebalances_total{{{STREAMS}}}[$__rate_interval]))",
                "{{service}}",
            ),
        ),
        time_series_panel(
            "Events in progress",
            "Events that a stream has received and not finished.",
            Query(f"sum by (service) (faust_events_active{{{STREAMS}}})", "{{service}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Memory",
            "Resident memory of each instance. The dataset service's memory grows with the "
            "pending examples and the deduplication window.",
            Query(f"process_resident_memory_bytes{{{STREAMS}}}", "{{service}} {{instance}}"),
            unit="bytes",
            soft_min=0,
        ),
        time_series_panel(
            "CPU",
            "Cores in use. An instance uses at most one core: at 1, add instances.",
            Query(
                f"rate(process_cpu_seconds_total{{{STREAMS}}}[$__rate_interval])",
                "{{service}} {{instance}}",
            ),
            steps=((None, BLUE), (0.9, ORANGE)),
            soft_min=0,
        ),
        time_series_panel(
            "Delivery time",
            "Mean duration of the most recent deliveries to Kafka. If it is long, the broker is "
            "slow or far away.",
            Query(f"max by (service) (faust_send_seconds{{{STREAMS}}})", "{{service}}"),
            unit="s",
            soft_min=0,
        ),
    ),
)


def streams() -> Dashboard:
    """The dashboard of the feedback and dataset services."""
    description = "The feedback and dataset services: feedback, batches and stream health."
    return build_dashboard(
        "ratchet-streams",
        "Ratchet / Streams",
        description,
        (SUMMARY, FEEDBACK, HTTP_INTAKE, BATCHES, HEALTH),
        "now-6h",
    )
