"""Queries, state labels and colours that several dashboards use."""

from deploy.grafana.dashboard_builder import MODEL
from deploy.grafana.panels import BLUE, GREEN, GREY, ORANGE, RED, Query, StateLabels

OUTCOME_COLOURS = {"promotable": GREEN, "inconclusive": BLUE, "rejected": ORANGE, "failed": RED}
"""Outcomes of a training run."""

READY_STATES: StateLabels = {1: ("ready", GREEN), 0: ("not ready", RED)}
ALARM_STATES: StateLabels = {0: ("quiet", GREEN), 1: ("raised", RED)}
TRAINING_STATES: StateLabels = {0: ("idle", GREY), 1: ("training", BLUE)}

_LOOKBACK = "1m"


def verdict_counts(instant: bool = False) -> Query:
    """Ended runs by outcome: over the whole time range if `instant`, otherwise per interval."""
    window = "$__range" if instant else "$__rate_interval"
    return Query(
        f"round(sum by (outcome) (increase(ratchet_training_runs_total{{{MODEL}}}[{window}])))",
        "{{outcome}}",
        instant,
    )


def current_champion() -> Query:
    """Version number of the champion. A registry exports it from its start."""
    return Query(
        f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}", instant=True
    )


def seconds_since_champion_change() -> Query:
    """Seconds since the champion's number last changed within the time range."""
    changed = f"changes(ratchet_registry_champion_number{{{MODEL}}}[{_LOOKBACK}]) > 0"
    return Query(
        f"time() - max by (model) (max_over_time(timestamp({changed})[$__range:30s]))",
        "{{model}}",
        instant=True,
    )


def feedback_reward() -> Query:
    """Mean reward; no value without feedback."""
    gained, lost, given = (
        f"sum by (model) (rate(ratchet_feedback_reward_{part}{{{MODEL}}}[$__rate_interval]))"
        for part in ("gained_total", "lost_total", "count")
    )
    return Query(f"({gained} - {lost}) / ({given} > 0)", "{{model}}")


def live_rewards() -> tuple[Query, ...]:
    """Mean reward in live use of the champion and of the previous version."""
    return (
        Query(
            f"max by (model, alias) (ratchet_registry_live_reward{{{MODEL}}})",
            "{{model}} {{alias}}",
        ),
    )
