"""The overview dashboard: health, model quality and recent changes."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.dashboard_builder import MODEL, NAMESPACE, DashboardRow, build_dashboard
from deploy.grafana.panels import (
    GREEN,
    ORANGE,
    RED,
    RED_FROM_ONE,
    Query,
    bar_gauge_panel,
    bar_panel,
    stat_panel,
    state_timeline_panel,
    time_series_panel,
)
from deploy.grafana.shared_queries import (
    OUTCOME_COLOURS,
    READY_STATES,
    current_champion,
    feedback_reward,
    live_rewards,
    seconds_since_champion_change,
    verdict_counts,
)

ALARM_METRICS = (
    "ratchet_training_reward_hacking|ratchet_dataset_feedback_jump|ratchet_dataset_mostly_dropped"
    "|ratchet_registry_live_worse"
)

SUMMARY = DashboardRow(
    "Summary",
    (
        stat_panel(
            "Ready services",
            "Number of services, the builder included, with at least one ready instance. Below 5: "
            "the row `Service health` shows which one is missing; see its log.",
            Query(
                f"sum(max by (service) (ratchet_service_ready{{{NAMESPACE}}}))",
                "ready",
                instant=True,
            ),
            steps=((None, RED), (5, GREEN)),
            no_value="none",
            width=3,
        ),
        stat_panel(
            "Stalled for",
            "Longest time without progress of an instance that has work to do. A training run "
            "reports progress at least at every step; if this reaches minutes, the instance hangs "
            "and its liveness probe is about to fail.",
            Query(f"max(ratchet_service_stalled_seconds{{{NAMESPACE}}})", "stalled", instant=True),
            unit="s",
            steps=((None, GREEN), (60, ORANGE), (300, RED)),
            width=3,
        ),
        stat_panel(
            "Alarms",
            "Active alarms: reward hacking, a jump in the feedback mix, a champion that is worse "
            "in live use. The dashboards `Training`, `Streams` and `Registry and serving` show "
            "the models.",
            Query(
                "sum(max by (__name__, model, shard, kind) "
                f'({{__name__=~"{ALARM_METRICS}", {MODEL}}}))',
                "alarms",
                instant=True,
            ),
            steps=RED_FROM_ONE,
            width=3,
        ),
        stat_panel(
            "Champion served",
            "`yes` if every deploy target serves the champion's file, compared by digest.",
            Query(f"min(ratchet_registry_serves_champion{{{MODEL}}})", "served", instant=True),
            states={1: ("yes", GREEN), 0: ("no", RED)},
            no_value="no target",
            width=3,
        ),
        stat_panel(
            "Verdicts",
            "Runs that ended in the time range, by gate verdict. Only `inconclusive` for a long "
            "time: little is left to improve, or there are too few held-out examples. Only "
            "`rejected`: check who sends the feedback.",
            verdict_counts(instant=True),
            colours=OUTCOME_COLOURS,
            no_value="none ended",
            width=6,
        ),
        stat_panel(
            "Served version",
            "Number of each model's champion; 0 is the base.",
            current_champion(),
            width=3,
        ),
        stat_panel(
            "Last change",
            "Time since a champion last moved, up or down, with a precision of a minute.",
            seconds_since_champion_change(),
            unit="s",
            no_value="none in range",
            width=3,
        ),
    ),
)

MODEL_QUALITY = DashboardRow(
    "Model quality",
    (
        time_series_panel(
            "Feedback reward",
            "Mean reward of all feedback on a model's answers, from -1 to 1. It reflects users' "
            "ratings of the served version.",
            feedback_reward(),
            width=8,
        ),
        time_series_panel(
            "Champion and previous version",
            "Mean reward in live use, over equal numbers of rewards. The registry rolls back a "
            "champion that stays below for long.",
            *live_rewards(),
            width=8,
        ),
        bar_panel(
            "Verdicts over time",
            "Runs that ended, by gate verdict.",
            verdict_counts(),
            colours=OUTCOME_COLOURS,
        ),
    ),
)

CHANGES = DashboardRow(
    "Changes",
    (
        state_timeline_panel(
            "Served version over time",
            "Number of each model's champion. A new band is a promotion or a rollback; the reason "
            "is in the registry's history of the model.",
            Query(f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}"),
            width=16,
        ),
        bar_panel(
            "Promotions and rollbacks",
            "Promotions, and rollbacks by actor. A rollback by `monitor` means that the champion "
            "was worse in live use.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_registry_promotions_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} promoted",
            ),
            Query(
                "sum by (model, actor) "
                f"(increase(ratchet_registry_rollbacks_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} rolled back by {{actor}}",
            ),
        ),
        bar_gauge_panel(
            "Running builds",
            "Instances by Ratchet version. Two versions for longer than an upgrade takes: an "
            "instance did not start.",
            Query(
                f"count by (version) (ratchet_build_info{{{NAMESPACE}}})",
                "{{version}}",
                instant=True,
            ),
            width=6,
        ),
        bar_gauge_panel(
            "Uptime",
            "Time since the youngest instance of each service started. Repeatedly short: the "
            "service restarts.",
            Query(
                f"min by (service) (time() - process_start_time_seconds{{{NAMESPACE}}} and "
                "on (instance) ratchet_build_info)",
                "{{service}}",
                instant=True,
            ),
            unit="s",
            width=6,
        ),
        state_timeline_panel(
            "Holds",
            "While a model is on hold, only an operator can move its champion.",
            Query(f"max by (model) (ratchet_registry_on_hold{{{MODEL}}})", "{{model}}"),
            states={0: ("free", GREEN), 1: ("on hold", ORANGE)},
            width=12,
        ),
    ),
)

HEALTH = DashboardRow(
    "Service health",
    (
        state_timeline_panel(
            "Services",
            "Readiness of each service. No data: Prometheus cannot reach it.",
            Query(f"max by (service) (ratchet_service_ready{{{NAMESPACE}}})", "{{service}}"),
            states=READY_STATES,
            width=12,
        ),
        bar_panel(
            "Dead letters",
            "Records that could not be processed, by topic. `ratchet dlq list` shows the reasons; "
            "`ratchet dlq replay` replays them.",
            Query(
                "sum by (topic) "
                f"(increase(ratchet_dead_letters_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{topic}}",
            ),
            width=12,
        ),
        time_series_panel(
            "Consumer lag",
            "Records that each consumer group has not committed yet. Steady growth: too few "
            "instances, or a stuck one.",
            Query(f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}}})", "{{group}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Accepted feedback",
            "Valid feedback per second, by model.",
            Query(
                "sum by (model) "
                f"(rate(ratchet_feedback_received_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
            unit="reqps",
            soft_min=0,
        ),
        time_series_panel(
            "Time from the fiftieth example to the verdict",
            "90th percentile over six hours. If it is long, the trainer waits for a window, for "
            "the machine, or for another model's run.",
            Query(
                "histogram_quantile(0.9, sum by (le, model) "
                f"(rate(ratchet_training_verdict_seconds_bucket{{{MODEL}}}[6h])))",
                "{{model}}",
            ),
            unit="s",
            soft_min=0,
        ),
    ),
)


def overview() -> Dashboard:
    """The dashboard to look at first; the other dashboards show the details."""
    description = "Health, model quality and recent changes."
    return build_dashboard(
        "ratchet-overview",
        "Ratchet / Overview",
        description,
        (SUMMARY, MODEL_QUALITY, CHANGES, HEALTH),
    )
