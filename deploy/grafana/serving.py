"""The registry and what it serves: which version answers where, how it does in use, how it got
there.
"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.dashboard_builder import MODEL, NAMESPACE, DashboardRow, build_dashboard
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    GREY,
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
    ALARM_STATES,
    current_champion,
    live_rewards,
    seconds_since_champion_change,
)

REGISTRIES = f'{NAMESPACE}, service="registry"'

ANSWERS = DashboardRow(
    "Does the right version answer? Does it do well?",
    (
        stat_panel(
            "Version that answers",
            "The number of each model's champion; 0 is the base.",
            current_champion(),
        ),
        stat_panel(
            "Served as decided",
            "Whether each deploy target serves the champion's file, by its digest.",
            Query(
                f"min by (model) (ratchet_registry_serves_champion{{{MODEL}}})",
                "{{model}}",
                instant=True,
            ),
            states={1: ("yes", GREEN), 0: ("no", RED)},
            no_value="no target",
        ),
        stat_panel(
            "Worse in live use",
            "Whether the champion does worse than the version before it.",
            Query(
                f"max by (model) (ratchet_registry_live_worse{{{MODEL}}})",
                "{{model}}",
                instant=True,
            ),
            states={0: ("no", GREEN), 1: ("yes", RED)},
            no_value="not known yet",
        ),
        stat_panel(
            "On hold",
            "While a model is on hold, nothing but a person moves its champion: `ratchet "
            "hold --help`.",
            Query(
                f"max by (model) (ratchet_registry_on_hold{{{MODEL}}})", "{{model}}", instant=True
            ),
            states={0: ("free", GREEN), 1: ("on hold", ORANGE)},
        ),
        stat_panel(
            "Deployments undone",
            "In the time range. What answered before still does; the registry tries again.",
            Query(
                f"round(sum(increase(ratchet_registry_deployment_failures_total{{{MODEL}}}[$__range])))",
                "undone",
                instant=True,
            ),
            steps=RED_FROM_ONE,
            no_value="none",
        ),
        stat_panel(
            "Last change",
            "How long ago a champion moved, up or down, to the minute.",
            seconds_since_champion_change(),
            unit="s",
            no_value="none in range",
        ),
    ),
)

SERVED = DashboardRow(
    "Which version answers, where?",
    (
        state_timeline_panel(
            "Decided",
            "The number of each model's champion.",
            Query(f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}"),
            width=12,
        ),
        state_timeline_panel(
            "Served",
            "The number of the version that each target was last seen to serve. It follows "
            "what is decided within seconds.",
            Query(
                f"max by (model, target) (ratchet_registry_served_number{{{MODEL}}})",
                "{{model}} {{target}}",
            ),
            width=12,
        ),
        bar_panel(
            "Promotions",
            "Versions that became champion.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_registry_promotions_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
            width=12,
        ),
        bar_panel(
            "Rollbacks",
            "By who asked: an operator, or the monitor of live use.",
            Query(
                "sum by (model, actor) "
                f"(increase(ratchet_registry_rollbacks_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} by {{actor}}",
            ),
            width=12,
        ),
    ),
)

IN_USE = DashboardRow(
    "How does it do in use?",
    (
        time_series_panel(
            "Champion against the version before it",
            "Mean reward in live use, over as many rewards of each.",
            *live_rewards(),
            width=12,
        ),
        time_series_panel(
            "Evidence that the champion is worse",
            "The wealth of a test that may be looked at at any time. At 1 nothing is known; "
            "from 1 / `monitor.error` of the model file on, "
            "50 by default, the champion is called worse and rolled back.",
            Query(f"max by (model) (ratchet_registry_live_wealth{{{MODEL}}})", "{{model}}"),
            steps=((None, GREEN), (10, ORANGE), (50, RED)),
            logarithmic=True,
            width=12,
        ),
        state_timeline_panel(
            "Worse in live use",
            "Raised while the champion does worse than the version before it.",
            Query(f"max by (model) (ratchet_registry_live_worse{{{MODEL}}})", "{{model}}"),
            states=ALARM_STATES,
            width=12,
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

TRIALS = DashboardRow(
    "How does a challenger do?",
    (
        state_timeline_panel(
            "On trial",
            "While some users try a challenger beside the champion. Only models with a "
            "`canary` have trials.",
            Query(f"max by (model) (ratchet_registry_on_trial{{{MODEL}}})", "{{model}}"),
            states={0: ("no", GREY), 1: ("on trial", BLUE)},
            width=8,
        ),
        time_series_panel(
            "Evidence on the challenger",
            "The wealth of two tests, that it is worse and that it is better. At 1 nothing "
            "is known; at 1 / `canary.error` of the model "
            "file, 50 by default, it is withdrawn or promoted.",
            Query(
                f"max by (model, direction) (ratchet_registry_trial_wealth{{{MODEL}}})",
                "{{model}} {{direction}}",
            ),
            logarithmic=True,
        ),
        bar_panel(
            "Challengers withdrawn",
            "Quarantined: users said that it was worse, and nothing more is learned from its "
            "batch. Not: no target could serve it in time.",
            Query(
                "sum by (model, quarantined) "
                f"(increase(ratchet_registry_withdrawals_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} quarantined: {{quarantined}}",
            ),
        ),
    ),
)

DEPLOYMENTS = DashboardRow(
    "How does it get there?",
    (
        bar_gauge_panel(
            "A deployment takes",
            "From the move to the verified switch, by target, in the time range: half of "
            "them, and nine in ten.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le, model, target) "
                    f"(increase(ratchet_registry_deploy_seconds_bucket{{{MODEL}}}[$__range])))",
                    f"{{{{model}}}} {{{{target}}}} {name}",
                    instant=True,
                )
                for share, name in ((0.5, "half"), (0.9, "nine in ten"))
            ),
            unit="s",
        ),
        bar_panel(
            "Deployments undone",
            "By target and the step that failed. `probe`: the target does not answer; "
            "`verify`: it does not answer as it was evaluated.",
            Query(
                "sum by (model, target, step) "
                f"(increase(ratchet_registry_deployment_failures_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{target}}: {{step}}",
            ),
        ),
        time_series_panel(
            "Outcomes that wait",
            "What the trainer said and the registry has not taken in, and live feedback that "
            "is not counted yet.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}, "
                'group=~"ratchet-registry.*"})',
                "{{group}}",
            ),
            soft_min=0,
        ),
        bar_panel(
            "Adapters removed",
            "By the retention rule of the model file: of versions, and of candidates that "
            "became none.",
            Query(
                "sum by (model, kind) "
                f"(increase(ratchet_registry_adapters_removed_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{kind}}",
            ),
        ),
        bar_gauge_panel(
            "Disk in use",
            "Of what the registry writes to: merged models, its database, the object store "
            "where they are local.",
            Query(
                f"1 - min by (folder, instance) (ratchet_disk_free_bytes{{{REGISTRIES}}} / "
                f"ratchet_disk_size_bytes{{{REGISTRIES}}})",
                "{{folder}} {{instance}}",
                instant=True,
            ),
            unit="percentunit",
            steps=((None, GREEN), (0.8, ORANGE), (0.9, RED)),
        ),
        time_series_panel(
            "Memory",
            "Resident memory of each registry. A merge needs about as much as the largest "
            "tensor, many times over.",
            Query(f"process_resident_memory_bytes{{{REGISTRIES}}}", "{{instance}}"),
            unit="bytes",
            soft_min=0,
        ),
    ),
)


def serving() -> Dashboard:
    """The registry, and what it serves."""
    about = (
        "The registry and what it serves: which version answers where, how it does in use, how "
        "it got there."
    )
    return build_dashboard(
        "ratchet-serving",
        "Ratchet / Registry and serving",
        about,
        (ANSWERS, SERVED, IN_USE, TRIALS, DEPLOYMENTS),
    )
