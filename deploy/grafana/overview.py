"""The first page: is it healthy, is it getting better, what changed last."""

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

FLAGS = "ratchet_training_reward_hacking|ratchet_dataset_feedback_jump|ratchet_registry_live_worse"

ANSWERS = DashboardRow(
    "Healthy? Learning? What changed last?",
    (
        stat_panel(
            "Services ready",
            "Of the four services, those of which at least one instance takes work. Below 4: "
            "see `Healthy?` for which one, and its log "
            "for why.",
            Query(
                f"sum(max by (service) (ratchet_service_ready{{{NAMESPACE}}}))",
                "ready",
                instant=True,
            ),
            steps=((None, RED), (4, GREEN)),
            no_value="none",
            width=3,
        ),
        stat_panel(
            "Stalled for",
            "The longest time without progress of an instance that has work to do. A run of "
            "training reports at least at every step; "
            "minutes mean that something hangs, and the instance's liveness probe is about "
            "to fail.",
            Query(f"max(ratchet_service_stalled_seconds{{{NAMESPACE}}})", "stalled", instant=True),
            unit="s",
            steps=((None, GREEN), (60, ORANGE), (300, RED)),
            width=3,
        ),
        stat_panel(
            "Alarms",
            "Suspicions that are raised now: reward hacking, a jump in the mix of feedback, "
            "a champion that does worse in live use. "
            "Which, for which model: `Training` and `Registry and serving`.",
            Query(
                f'sum(max by (__name__, model, shard, kind) ({{__name__=~"{FLAGS}", {MODEL}}}))',
                "alarms",
                instant=True,
            ),
            steps=RED_FROM_ONE,
            width=3,
        ),
        stat_panel(
            "Served as decided",
            "Whether every deploy target serves the champion's file, by its digest.",
            Query(f"min(ratchet_registry_serves_champion{{{MODEL}}})", "served", instant=True),
            states={1: ("yes", GREEN), 0: ("no", RED)},
            no_value="no target",
            width=3,
        ),
        stat_panel(
            "Verdicts",
            "Runs that ended in the time range, by what the gate said. Only `inconclusive` "
            "for long: there is little left to prove, or "
            "too few held-out examples. Only `rejected`: look at who sends the feedback.",
            verdict_counts(instant=True),
            colours=OUTCOME_COLOURS,
            no_value="none ended",
            width=6,
        ),
        stat_panel(
            "Version that answers",
            "The number of each model's champion; 0 is the base.",
            current_champion(),
            width=3,
        ),
        stat_panel(
            "Last change",
            "How long ago a champion moved, up or down, to the minute.",
            seconds_since_champion_change(),
            unit="s",
            no_value="none in range",
            width=3,
        ),
    ),
)

LEARNING = DashboardRow(
    "Is it getting better?",
    (
        time_series_panel(
            "Reward of feedback",
            "Mean reward of all feedback on a model's answers, from -1 to 1. It follows what "
            "people say of what is served now.",
            feedback_reward(),
            width=8,
        ),
        time_series_panel(
            "Champion against the version before it",
            "Mean reward in live use, over as many rewards of each. A champion that stays "
            "below for long is rolled back by the registry.",
            *live_rewards(),
            width=8,
        ),
        bar_panel(
            "Verdicts over time",
            "Runs that ended, by what the gate said.",
            verdict_counts(),
            colours=OUTCOME_COLOURS,
        ),
    ),
)

CHANGES = DashboardRow(
    "What changed last?",
    (
        state_timeline_panel(
            "Version that answers, over time",
            "The number of each model's champion. A new band is a promotion or a rollback; "
            "why is in the registry's history of the model.",
            Query(f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}"),
            width=16,
        ),
        bar_panel(
            "Moves of the champion",
            "Promotions and rollbacks, by who asked. A rollback by `monitor` means that live "
            "use was worse.",
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
            "Which build runs",
            "Instances by the version of Ratchet. Two of them for longer than an upgrade "
            "takes: one did not come up.",
            Query(
                f"count by (version) (ratchet_build_info{{{NAMESPACE}}})",
                "{{version}}",
                instant=True,
            ),
            width=6,
        ),
        bar_gauge_panel(
            "Up for",
            "Time since the youngest instance of each service started. Short again and "
            "again: it restarts.",
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
            "On hold",
            "While a model is on hold, nothing but a person moves its champion.",
            Query(f"max by (model) (ratchet_registry_on_hold{{{MODEL}}})", "{{model}}"),
            states={0: ("free", GREEN), 1: ("on hold", ORANGE)},
            width=12,
        ),
    ),
)

HEALTH = DashboardRow(
    "Healthy?",
    (
        state_timeline_panel(
            "Services",
            "Whether an instance of each service takes work. Nothing at all: Prometheus does "
            "not reach it.",
            Query(f"max by (service) (ratchet_service_ready{{{NAMESPACE}}})", "{{service}}"),
            states=READY_STATES,
            width=12,
        ),
        bar_panel(
            "Dead letters",
            "Records that could not be processed, by topic. `ratchet dlq list` says why; "
            "`ratchet dlq replay` puts them back.",
            Query(
                "sum by (topic) "
                f"(increase(ratchet_dead_letters_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{topic}}",
            ),
            width=12,
        ),
        time_series_panel(
            "Records that wait",
            "What each consumer group has not committed yet. Growing without end: too few "
            "instances, or one that is stuck.",
            Query(f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}}})", "{{group}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Feedback accepted",
            "Valid feedback per second, by model.",
            Query(
                f"sum by (model) (rate(ratchet_feedback_received_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
            unit="reqps",
            soft_min=0,
        ),
        time_series_panel(
            "From the fiftieth example to a verdict",
            "The slowest tenth, over six hours. Long: the trainer waits for a window, for "
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
    """Whether anything needs a person, in the first row; the other rows say more of each answer."""
    about = "Is it healthy, is it getting better, and what changed last."
    return build_dashboard(
        "ratchet-overview", "Ratchet / Overview", about, (ANSWERS, LEARNING, CHANGES, HEALTH)
    )
