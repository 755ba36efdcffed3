"""The registry and serving dashboard: served versions, live quality, canaries and deployments."""

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

SUMMARY = DashboardRow(
    "Summary",
    (
        stat_panel(
            "Served version",
            "Number of each model's champion; 0 is the base.",
            current_champion(),
        ),
        stat_panel(
            "Champion served",
            "`yes` if every deploy target serves the champion's file, compared by digest.",
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
            "`yes` while the champion is worse than the previous version.",
            Query(
                f"max by (model) (ratchet_registry_live_worse{{{MODEL}}})",
                "{{model}}",
                instant=True,
            ),
            states={0: ("no", GREEN), 1: ("yes", RED)},
            no_value="unknown",
        ),
        stat_panel(
            "On hold",
            "While a model is on hold, only an operator can move its champion: `ratchet hold "
            "--help`.",
            Query(
                f"max by (model) (ratchet_registry_on_hold{{{MODEL}}})", "{{model}}", instant=True
            ),
            states={0: ("free", GREEN), 1: ("on hold", ORANGE)},
        ),
        stat_panel(
            "Failed deployments",
            "Deployments undone in the time range. The previous version keeps answering; the "
            "registry retries.",
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
            "Time since a champion last moved, up or down, with a precision of a minute.",
            seconds_since_champion_change(),
            unit="s",
            no_value="none in range",
        ),
    ),
)

SERVED = DashboardRow(
    "Serving",
    (
        state_timeline_panel(
            "Champion",
            "Number of each model's champion.",
            Query(f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}"),
            width=12,
        ),
        state_timeline_panel(
            "Served version over time",
            "Number of the version that each target served at the last check. It follows the "
            "champion within seconds.",
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
            "Rollbacks by actor: an operator, or the monitor of live use.",
            Query(
                "sum by (model, actor) "
                f"(increase(ratchet_registry_rollbacks_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} by {{actor}}",
            ),
            width=12,
        ),
    ),
)

LIVE_USE = DashboardRow(
    "Champion in live use",
    (
        time_series_panel(
            "Champion and previous version",
            "Mean reward in live use, over equal numbers of rewards.",
            *live_rewards(),
            width=12,
        ),
        time_series_panel(
            "Evidence that the champion is worse",
            "E-value of an anytime-valid test. 1 means no evidence; at 1 / `monitor.error` of the "
            "model file, 50 by default, the champion is declared worse and rolled back.",
            Query(f"max by (model) (ratchet_registry_live_wealth{{{MODEL}}})", "{{model}}"),
            steps=((None, GREEN), (10, ORANGE), (50, RED)),
            logarithmic=True,
            width=12,
        ),
        state_timeline_panel(
            "Worse in live use over time",
            "Raised while the champion is worse than the previous version.",
            Query(f"max by (model) (ratchet_registry_live_worse{{{MODEL}}})", "{{model}}"),
            states=ALARM_STATES,
            width=12,
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

CANARIES = DashboardRow(
    "Canary trial",
    (
        state_timeline_panel(
            "Canary trials",
            "Times at which some users got a challenger instead of the champion. Only models with "
            "`canary` in the model file have trials.",
            Query(f"max by (model) (ratchet_registry_on_trial{{{MODEL}}})", "{{model}}"),
            states={0: ("none", GREY), 1: ("active", BLUE)},
            width=8,
        ),
        time_series_panel(
            "Evidence on the challenger",
            "E-values of two tests: worse and better. 1 means no evidence; at 1 / `canary.error` "
            "of the model file, 50 by default, the challenger is withdrawn or promoted.",
            Query(
                f"max by (model, direction) (ratchet_registry_trial_wealth{{{MODEL}}})",
                "{{model}} {{direction}}",
            ),
            logarithmic=True,
        ),
        bar_panel(
            "Withdrawn challengers",
            "Quarantined: users rated the challenger worse, and its batch is not used again. Not "
            "quarantined: no target could serve the challenger in time.",
            Query(
                "sum by (model, quarantined) "
                f"(increase(ratchet_registry_withdrawals_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} quarantined: {{quarantined}}",
            ),
        ),
    ),
)

DEPLOYMENTS = DashboardRow(
    "Deployments",
    (
        bar_gauge_panel(
            "Deployment time",
            "Time from the decision to the verified switch, by target, in the time range: median "
            "and 90th percentile.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le, model, target) "
                    f"(increase(ratchet_registry_deploy_seconds_bucket{{{MODEL}}}[$__range])))",
                    f"{{{{model}}}} {{{{target}}}} {name}",
                    instant=True,
                )
                for share, name in ((0.5, "p50"), (0.9, "p90"))
            ),
            unit="s",
        ),
        bar_panel(
            "Failed deployments by step",
            "By target and failed step. `probe`: the target does not answer; `verify`: it answers "
            "differently than in the evaluation.",
            Query(
                "sum by (model, target, step) "
                f"(increase(ratchet_registry_deployment_failures_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{target}}: {{step}}",
            ),
        ),
        time_series_panel(
            "Registry lag",
            "Training outcomes that the registry has not consumed yet, and live feedback that it "
            "has not counted yet.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}, "
                'group=~"ratchet-registry.*"})',
                "{{group}}",
            ),
            soft_min=0,
        ),
        bar_panel(
            "Removed adapters",
            "Adapters removed by the retention rule of the model file, of versions and of "
            "rejected candidates.",
            Query(
                "sum by (model, kind) "
                f"(increase(ratchet_registry_adapters_removed_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} {{kind}}",
            ),
        ),
        bar_gauge_panel(
            "Disk usage",
            "Disks that the registry writes to: merged models, and the database and the object "
            "store if they are local.",
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
            "Resident memory of each registry. A merge needs a multiple of the largest tensor's "
            "size.",
            Query(f"process_resident_memory_bytes{{{REGISTRIES}}}", "{{instance}}"),
            unit="bytes",
            soft_min=0,
        ),
    ),
)


def serving() -> Dashboard:
    """The dashboard of the registry and of serving."""
    description = (
        "The registry and serving: served versions, live quality, canary trials and deployments."
    )
    return build_dashboard(
        "ratchet-serving",
        "Ratchet / Registry and serving",
        description,
        (SUMMARY, SERVED, LIVE_USE, CANARIES, DEPLOYMENTS),
    )
