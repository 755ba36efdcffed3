"""The training dashboard: runs, gate verdicts, durations and resources."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.dashboard_builder import MODEL, NAMESPACE, DashboardRow, build_dashboard
from deploy.grafana.panels import (
    BLUE,
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
    ALARM_STATES,
    OUTCOME_COLOURS,
    TRAINING_STATES,
    verdict_counts,
)

TRAINERS = f'{NAMESPACE}, service="trainer"'

SUMMARY = DashboardRow(
    "Summary",
    (
        stat_panel(
            "Active runs",
            "Models with an active training run.",
            Query(
                f"sum(max by (model) (ratchet_training_in_progress{{{MODEL}}}))",
                "runs",
                instant=True,
            ),
            no_value="none",
        ),
        stat_panel(
            "Verdicts",
            "Runs that ended in the time range, by gate verdict.",
            verdict_counts(instant=True),
            colours=OUTCOME_COLOURS,
            no_value="none ended",
            width=6,
        ),
        stat_panel(
            "Reward hacking",
            "Models whose reward rises while the held-out score does not: promotions are blocked "
            "until an operator decides.",
            Query(
                f"sum(max by (model) (ratchet_training_reward_hacking{{{MODEL}}}))",
                "models",
                instant=True,
            ),
            steps=RED_FROM_ONE,
            no_value="none",
        ),
        stat_panel(
            "Waiting batches",
            "Batches whose lane's training window is closed, or whose model's training is paused; "
            "and the number of paused models.",
            Query(f"sum(ratchet_training_batches_waiting{{{NAMESPACE}}})", "batches", instant=True),
            Query(
                f"sum(max by (model) (ratchet_registry_training_paused{{{MODEL}}}))",
                "models paused",
                instant=True,
            ),
            steps=((None, GREEN), (5, ORANGE)),
            width=3,
        ),
        stat_panel(
            "Next window",
            "Time at which the next waiting batch may start.",
            Query(
                f"1000 * min(ratchet_training_window_opens_seconds{{{NAMESPACE}}} > 0)",
                "opens",
                instant=True,
            ),
            unit="dateTimeFromNow",
            no_value="none waiting",
            width=3,
        ),
        stat_panel(
            "Ready trainers",
            "Ready instances, one for each GPU or machine.",
            Query(f"sum(ratchet_service_ready{{{TRAINERS}}})", "ready", instant=True),
            steps=((None, RED), (1, GREEN)),
            no_value="none",
        ),
    ),
)

RUN = DashboardRow(
    "Training run",
    (
        time_series_panel(
            "Loss",
            "Loss of the newest step, in nats per answer token. It falls within a run; if it is "
            "not a number, the run ends as failed.",
            Query(f"max by (model) (ratchet_training_loss{{{MODEL}}})", "{{model}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Gradient norm",
            "Gradient norm of the newest step, before clipping. Spikes indicate contradictory "
            "examples or too high a learning rate.",
            Query(f"max by (model) (ratchet_training_gradient_norm{{{MODEL}}})", "{{model}}"),
            logarithmic=True,
        ),
        time_series_panel(
            "Throughput",
            "Tokens trained per second. If it drops by half, something else uses the machine.",
            Query(f"max by (model) (ratchet_training_tokens_per_second{{{MODEL}}})", "{{model}}"),
            soft_min=0,
        ),
        state_timeline_panel(
            "Runs",
            "Times at which each model had an active training run.",
            Query(f"max by (model) (ratchet_training_in_progress{{{MODEL}}})", "{{model}}"),
            states=TRAINING_STATES,
            width=16,
        ),
        bar_panel(
            "Steps",
            "Training steps, including those repeated after an interruption.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_training_steps_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
        ),
    ),
)

VERDICTS = DashboardRow(
    "Gate verdicts",
    (
        bar_panel(
            "Verdicts over time",
            "Runs that ended, by gate verdict.",
            verdict_counts(),
            colours=OUTCOME_COLOURS,
        ),
        bar_gauge_panel(
            "Phases of a run",
            "Mean duration of each phase in the time range. If loading takes long, the base model "
            "was not in memory.",
            Query(
                "sum by (phase) "
                f"(increase(ratchet_training_phase_seconds_sum{{{MODEL}}}[$__range])) / "
                "(sum by (phase) "
                f"(increase(ratchet_training_phase_seconds_count{{{MODEL}}}[$__range])) > 0)",
                "{{phase}}",
                instant=True,
            ),
            unit="s",
        ),
        bar_gauge_panel(
            "Time from the fiftieth example to the verdict",
            "Median and 90th percentile in the time range.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le, model, lane) "
                    f"(increase(ratchet_training_verdict_seconds_bucket{{{MODEL}}}[$__range])))",
                    f"{{{{model}}}} {{{{lane}}}} {name}",
                    instant=True,
                )
                for share, name in ((0.5, "p50"), (0.9, "p90"))
            ),
            unit="s",
            steps=((None, BLUE), (1_800, ORANGE)),
        ),
        state_timeline_panel(
            "Reward hacking suspected",
            "Raised when the newest candidates gain reward and their held-out score does not "
            "improve. An operator may still promote by hand.",
            Query(f"max by (model) (ratchet_training_reward_hacking{{{MODEL}}})", "{{model}}"),
            states=ALARM_STATES,
            width=16,
        ),
        bar_gauge_panel(
            "Decisions on the golden set",
            "Gates that have used the present golden examples. From 200 on, add new ones.",
            Query(
                f"max by (model) (ratchet_training_golden_decisions{{{MODEL}}})",
                "{{model}}",
                instant=True,
            ),
            steps=((None, BLUE), (200, ORANGE)),
        ),
    ),
)

RESOURCES = DashboardRow(
    "Checkpoints and resources",
    (
        bar_panel(
            "Checkpoints, resumptions and second attempts",
            "Checkpoints uploaded to the object store, and runs resumed from one. Resumptions "
            "without a deployment mean that workers crash. Frequent second attempts mean that the "
            "recipe forgets: lower the learning rate, or rehearse more.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_training_checkpoints_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} checkpoints",
            ),
            Query(
                "sum by (model) "
                f"(increase(ratchet_training_resumed_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} resumed",
            ),
            Query(
                "sum by (model) "
                f"(increase(ratchet_training_second_attempts_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}} second attempts",
            ),
        ),
        bar_gauge_panel(
            "Disk usage",
            "Disks that the trainer writes to. A run needs space for its checkpoints.",
            Query(
                f"1 - min by (folder, instance) (ratchet_disk_free_bytes{{{TRAINERS}}} / "
                f"ratchet_disk_size_bytes{{{TRAINERS}}})",
                "{{folder}} {{instance}}",
                instant=True,
            ),
            unit="percentunit",
            steps=((None, GREEN), (0.8, ORANGE), (0.9, RED)),
        ),
        bar_panel(
            "Object store errors",
            "Failed object store operations, by service.",
            Query(
                "sum by (service, operation) "
                f"(increase(ratchet_object_store_errors_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{service}} {{operation}}",
            ),
        ),
        time_series_panel(
            "Batches waiting for the trainer",
            "Batches announced and not finished. More than one for a long time: training is "
            "slower than feedback.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}, "
                'group="ratchet-trainer"})',
                "{{group}}",
            ),
            soft_min=0,
            width=12,
        ),
        time_series_panel(
            "Memory",
            "Resident memory of each trainer, without its training process.",
            Query(f"process_resident_memory_bytes{{{TRAINERS}}}", "{{instance}}"),
            unit="bytes",
            soft_min=0,
            width=12,
        ),
    ),
)


def training() -> Dashboard:
    """The dashboard of the trainer."""
    description = "The trainer: runs, gate verdicts, checkpoints and resources."
    return build_dashboard(
        "ratchet-training", "Ratchet / Training", description, (SUMMARY, RUN, VERDICTS, RESOURCES)
    )
