"""The two streams: what comes in, what it is worth, which batches it becomes, and whether the
streams keep up.
"""

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

ANSWERS = DashboardRow(
    "Do the streams keep up? Does feedback arrive? Does a batch close?",
    (
        stat_panel(
            "Streams ready",
            "Instances of the two services that take work.",
            Query(
                f"sum by (service) (ratchet_service_ready{{{STREAMS}}})",
                "{{service}}",
                instant=True,
            ),
            steps=((None, RED), (1, GREEN)),
            no_value="none",
        ),
        stat_panel(
            "Records that wait",
            "What the two consumer groups have not committed yet.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{GROUPS}}})",
                "{{group}}",
                instant=True,
            ),
            steps=((None, GREEN), (1_000, ORANGE), (100_000, RED)),
        ),
        stat_panel(
            "Accepted",
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
            "Records of the two streams that could not be processed, in the time range. "
            "`ratchet dlq list` says why.",
            Query(
                f"sum(increase(ratchet_dead_letters_total{{{NAMESPACE}, "
                'topic=~"feedback.received|feedback.scored"}[$__range]))',
                "letters",
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
            "Age of the newest example of each model's newest batch. Old although feedback "
            "arrives: see what becomes of it.",
            Query(
                f"time() - max by (model) (ratchet_dataset_newest_batch_timestamp_seconds{{{MODEL}}})",
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
    "What do people say?",
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
            "Rewards given",
            "How many rewards fell into each range.",
            Query(
                f"sum by (le) (increase(ratchet_feedback_reward_bucket{{{MODEL}}}[$__rate_interval]))",
                "{{le}}",
            ),
        ),
        bar_panel(
            "Refused",
            "Records that became dead letters, by what was wrong with them. `UnknownModel`: "
            "no model file declares what they name.",
            Query(
                "sum by (reason) "
                f"(increase(ratchet_feedback_refused_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{reason}}",
            ),
            width=12,
        ),
        bar_panel(
            "Personal data taken out",
            "Pieces that were replaced before anything was stored, by kind.",
            Query(
                "sum by (model, kind) "
                f"(increase(ratchet_feedback_redactions_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{kind}}",
            ),
            width=12,
        ),
    ),
)

OVER_HTTP = DashboardRow(
    "Does feedback arrive over HTTP?",
    (
        bar_panel(
            "Requests by answer",
            "202 is in Kafka; 422 names what is wrong; 429 and 503 are to be sent again.",
            Query(
                "sum by (status) "
                f"(increase(ratchet_intake_requests_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{status}}",
            ),
            width=12,
        ),
        time_series_panel(
            "Events accepted",
            "Events per second that were answered 202.",
            Query(
                f"sum(rate(ratchet_intake_events_total{{{NAMESPACE}}}[$__rate_interval]))",
                "accepted",
            ),
            unit="reqps",
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Kafka acknowledges in",
            "From a valid request to the acknowledgement: half of them, and nine in ten.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"(increase(ratchet_intake_acknowledged_seconds_bucket{{{NAMESPACE}}}[$__rate_interval])))",
                    name,
                )
                for share, name in ((0.5, "half"), (0.9, "nine in ten"))
            ),
            unit="s",
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Under way",
            "Bytes of requests that are not answered yet. At "
            "`RATCHET_INTAKE_IN_FLIGHT_BYTES`, more is answered 429.",
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
    "What becomes of it?",
    (
        bar_panel(
            "Decisions",
            "Scored events by decision and reason. What is dropped is dropped for a reason "
            "that is counted here.",
            Query(
                "sum by (decision, reason) "
                f"(increase(ratchet_dataset_decisions_total{{{MODEL}}}[$__rate_interval]))",
                "{{decision}}: {{reason}}",
            ),
            width=12,
        ),
        bar_gauge_panel(
            "How full the next batch is",
            "Training examples that wait, as a share of those that fill a batch. Full and "
            "not closed: what waits is held back.",
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
            "Held back",
            "Examples that may not enter a batch yet, by reason: limits on a user's "
            "influence, or the user is new.",
            Query(
                f"max by (model, shard, reason) (ratchet_dataset_held_back_examples{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{reason}}",
                instant=True,
            ),
            steps=((None, GREEN), (1, ORANGE)),
            width=6,
        ),
        state_timeline_panel(
            "The mix of feedback has jumped",
            "Raised while the share of a kind of feedback is far from what it was: perhaps a "
            "campaign. Look at who sends it. A kind is "
            "shown once it has been raised.",
            Query(
                f"max by (model, shard, kind) (ratchet_dataset_feedback_jump{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{kind}}",
            ),
            states=ALARM_STATES,
            width=12,
        ),
        bar_panel(
            "Batches closed, users forgotten",
            "Batches, and withdrawals of a user's feedback, one for each shard.",
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
    "Do the streams keep up?",
    (
        state_timeline_panel(
            "Instances",
            "Whether each instance takes work.",
            Query(f"ratchet_service_ready{{{STREAMS}}}", "{{service}} {{instance}}"),
            states=READY_STATES,
            width=12,
        ),
        time_series_panel(
            "Records that wait",
            "By group and topic. Growing: more instances, up to the partitions of the topic.",
            Query(
                f"sum by (group, topic) (ratchet_consumer_lag_records{{{GROUPS}}})",
                "{{group}} {{topic}}",
            ),
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Without progress",
            "While there is work, the time since the last commit. Beyond a minute an "
            "instance counts as stalled, and its liveness fails.",
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
            "Each stops the stream until its state is back. Many without a deployment: "
            "sessions time out.",
            Query(
                f"sum by (service) (increase(faust_rebalances_total{{{STREAMS}}}[$__rate_interval]))",
                "{{service}}",
            ),
        ),
        time_series_panel(
            "Events in hand",
            "Events that a stream has taken and not finished.",
            Query(f"sum by (service) (faust_events_active{{{STREAMS}}})", "{{service}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Memory",
            "Resident memory of each instance. The dataset's grows with the examples that "
            "wait and with the de-duplication window.",
            Query(f"process_resident_memory_bytes{{{STREAMS}}}", "{{service}} {{instance}}"),
            unit="bytes",
            soft_min=0,
        ),
        time_series_panel(
            "Processor",
            "Cores in use. One instance uses one core at most: at 1, add instances.",
            Query(
                f"rate(process_cpu_seconds_total{{{STREAMS}}}[$__rate_interval])",
                "{{service}} {{instance}}",
            ),
            steps=((None, BLUE), (0.9, ORANGE)),
            soft_min=0,
        ),
        time_series_panel(
            "A delivery takes",
            "Mean time of the newest deliveries to Kafka. Long: the broker is slow, or far away.",
            Query(f"max by (service) (faust_send_seconds{{{STREAMS}}})", "{{service}}"),
            unit="s",
            soft_min=0,
        ),
    ),
)


def streams() -> Dashboard:
    """The services feedback and dataset."""
    about = (
        "The services feedback and dataset: what comes in, what becomes of it, and whether they "
        "keep up."
    )
    return build_dashboard(
        "ratchet-streams",
        "Ratchet / Streams",
        about,
        (ANSWERS, FEEDBACK, OVER_HTTP, BATCHES, HEALTH),
        "now-6h",
    )
