"""The two streams: what comes in, what it is worth, which batches it becomes, and whether the
streams keep up.
"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import MODEL, NAMESPACE, Row, board
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Query,
    bars,
    curve,
    levels,
    spread,
    tile,
    timeline,
)
from deploy.grafana.shown import RAISED, READY, reward_of_feedback

STREAMS = f'{NAMESPACE}, service=~"feedback|dataset"'
GROUPS = f'{NAMESPACE}, group=~"ratchet-feedback|ratchet-dataset"'

ANSWERS = Row(
    "Do the streams keep up? Does feedback arrive? Does a batch close?",
    (
        tile(
            "Streams ready",
            "Instances of the two services that take work.",
            Query(
                f"sum by (service) (ratchet_service_ready{{{STREAMS}}})", "{{service}}", now=True
            ),
            steps=((None, RED), (1, GREEN)),
            none="none",
        ),
        tile(
            "Records that wait",
            "What the two consumer groups have not committed yet.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{GROUPS}}})", "{{group}}", now=True
            ),
            steps=((None, GREEN), (1_000, ORANGE), (100_000, RED)),
        ),
        tile(
            "Accepted",
            "Valid feedback in the time range.",
            Query(
                f"sum by (model) (increase(ratchet_feedback_received_total{{{MODEL}}}[$__range]))",
                "{{model}}",
                now=True,
            ),
            unit="short",
            none="none",
        ),
        tile(
            "Dead letters",
            "Records of the two streams that could not be processed, in the time range. "
            "`ratchet dlq list` says why.",
            Query(
                f"sum(increase(ratchet_dead_letters_total{{{NAMESPACE}, "
                'topic=~"feedback.received|feedback.scored"}[$__range]))',
                "letters",
                now=True,
            ),
            steps=((None, GREEN), (1, ORANGE), (100, RED)),
            none="none",
        ),
        tile(
            "Batches",
            "Batches closed in the time range.",
            Query(
                "round(sum by (model) "
                f"(increase(ratchet_dataset_batches_total{{{MODEL}}}[$__range])))",
                "{{model}}",
                now=True,
            ),
            none="none",
        ),
        tile(
            "Newest batch",
            "Age of the newest example of each model's newest batch. Old although feedback "
            "arrives: see what becomes of it.",
            Query(
                f"time() - max by (model) (ratchet_dataset_newest_batch_timestamp_seconds{{{MODEL}}})",
                "{{model}}",
                now=True,
            ),
            unit="s",
            steps=((None, GREEN), (86_400, ORANGE), (604_800, RED)),
            none="none yet",
        ),
    ),
)

FEEDBACK = Row(
    "What do people say?",
    (
        curve(
            "Feedback by kind",
            "Valid feedback per second.",
            Query(
                "sum by (model, feedback_type) "
                f"(rate(ratchet_feedback_received_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{feedback_type}}",
            ),
            unit="reqps",
            least=0,
        ),
        curve("Reward", "Mean reward of feedback, from -1 to 1.", reward_of_feedback()),
        spread(
            "Rewards given",
            "How many rewards fell into each range.",
            Query(
                f"sum by (le) (increase(ratchet_feedback_reward_bucket{{{MODEL}}}[$__rate_interval]))",
                "{{le}}",
            ),
        ),
        bars(
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
        bars(
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

OVER_HTTP = Row(
    "Does feedback arrive over HTTP?",
    (
        bars(
            "Requests by answer",
            "202 is in Kafka; 422 names what is wrong; 429 and 503 are to be sent again.",
            Query(
                "sum by (status) "
                f"(increase(ratchet_intake_requests_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{status}}",
            ),
            width=12,
        ),
        curve(
            "Events accepted",
            "Events per second that were answered 202.",
            Query(
                f"sum(rate(ratchet_intake_events_total{{{NAMESPACE}}}[$__rate_interval]))",
                "accepted",
            ),
            unit="reqps",
            least=0,
            width=12,
        ),
        curve(
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
            least=0,
            width=12,
        ),
        curve(
            "Under way",
            "Bytes of requests that are not answered yet. At "
            "`RATCHET_INTAKE_IN_FLIGHT_BYTES`, more is answered 429.",
            Query(
                f"max by (instance) (ratchet_intake_bytes_in_flight{{{NAMESPACE}}})",
                "{{instance}}",
            ),
            unit="bytes",
            least=0,
            width=12,
        ),
    ),
)

BATCHES = Row(
    "What becomes of it?",
    (
        bars(
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
        levels(
            "How full the next batch is",
            "Training examples that wait, as a share of those that fill a batch. Full and "
            "not closed: what waits is held back.",
            Query(
                f"max by (model, shard) (ratchet_dataset_pending_examples{{{MODEL}}}) / on "
                "(model) group_left () "
                f"max by (model) (ratchet_dataset_batch_size{{{MODEL}}})",
                "{{model}} shard {{shard}}",
                now=True,
            ),
            unit="percentunit",
            width=6,
        ),
        levels(
            "Held back",
            "Examples that may not enter a batch yet, by reason: limits on a user's "
            "influence, or the user is new.",
            Query(
                f"max by (model, shard, reason) (ratchet_dataset_held_back_examples{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{reason}}",
                now=True,
            ),
            steps=((None, GREEN), (1, ORANGE)),
            width=6,
        ),
        timeline(
            "The mix of feedback has jumped",
            "Raised while the share of a kind of feedback is far from what it was: perhaps a "
            "campaign. Look at who sends it. A kind is "
            "shown once it has been raised.",
            Query(
                f"max by (model, shard, kind) (ratchet_dataset_feedback_jump{{{MODEL}}})",
                "{{model}} shard {{shard}}: {{kind}}",
            ),
            states=RAISED,
            width=12,
        ),
        bars(
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

HEALTH = Row(
    "Do the streams keep up?",
    (
        timeline(
            "Instances",
            "Whether each instance takes work.",
            Query(f"ratchet_service_ready{{{STREAMS}}}", "{{service}} {{instance}}"),
            states=READY,
            width=12,
        ),
        curve(
            "Records that wait",
            "By group and topic. Growing: more instances, up to the partitions of the topic.",
            Query(
                f"sum by (group, topic) (ratchet_consumer_lag_records{{{GROUPS}}})",
                "{{group}} {{topic}}",
            ),
            least=0,
            width=12,
        ),
        curve(
            "Without progress",
            "While there is work, the time since the last commit. Beyond a minute an "
            "instance counts as stalled, and its liveness fails.",
            Query(
                f"max by (service, instance) (ratchet_service_stalled_seconds{{{STREAMS}}})",
                "{{service}} {{instance}}",
            ),
            unit="s",
            steps=((None, GREEN), (60, RED)),
            least=0,
        ),
        bars(
            "Rebalances",
            "Each stops the stream until its state is back. Many without a deployment: "
            "sessions time out.",
            Query(
                f"sum by (service) (increase(faust_rebalances_total{{{STREAMS}}}[$__rate_interval]))",
                "{{service}}",
            ),
        ),
        curve(
            "Events in hand",
            "Events that a stream has taken and not finished.",
            Query(f"sum by (service) (faust_events_active{{{STREAMS}}})", "{{service}}"),
            least=0,
        ),
        curve(
            "Memory",
            "Resident memory of each instance. The dataset's grows with the examples that "
            "wait and with the de-duplication window.",
            Query(f"process_resident_memory_bytes{{{STREAMS}}}", "{{service}} {{instance}}"),
            unit="bytes",
            least=0,
        ),
        curve(
            "Processor",
            "Cores in use. One instance uses one core at most: at 1, add instances.",
            Query(
                f"rate(process_cpu_seconds_total{{{STREAMS}}}[$__rate_interval])",
                "{{service}} {{instance}}",
            ),
            steps=((None, BLUE), (0.9, ORANGE)),
            least=0,
        ),
        curve(
            "A delivery takes",
            "Mean time of the newest deliveries to Kafka. Long: the broker is slow, or far away.",
            Query(f"max by (service) (faust_send_seconds{{{STREAMS}}})", "{{service}}"),
            unit="s",
            least=0,
        ),
    ),
)


def streams() -> Dashboard:
    """The services feedback and dataset."""
    about = (
        "The services feedback and dataset: what comes in, what becomes of it, and whether they "
        "keep up."
    )
    return board(
        "ratchet-streams",
        "Ratchet / Streams",
        about,
        (ANSWERS, FEEDBACK, OVER_HTTP, BATCHES, HEALTH),
        "now-6h",
    )
