"""The trainer: what runs, what the gate says, how long it takes."""

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

ANSWERS = DashboardRow(
    "Does it train? Does it learn? Does anything wait?",
    (
        stat_panel(
            "Runs in hand",
            "Models with a run that has begun and not ended.",
            Query(
                f"sum(max by (model) (ratchet_training_in_progress{{{MODEL}}}))",
                "runs",
                instant=True,
            ),
            no_value="none",
        ),
        stat_panel(
            "Verdicts",
            "Runs that ended in the time range, by what the gate said.",
            verdict_counts(instant=True),
            colours=OUTCOME_COLOURS,
            no_value="none ended",
            width=6,
        ),
        stat_panel(
            "Reward hacking",
            "Models whose reward rises while held-out answers do not get likelier: promotion "
            "is stopped until a person has looked.",
            Query(
                f"sum(max by (model) (ratchet_training_reward_hacking{{{MODEL}}}))",
                "models",
                instant=True,
            ),
            steps=RED_FROM_ONE,
            no_value="none",
        ),
        stat_panel(
            "Batches that wait",
            "Batches whose lane's training window is closed.",
            Query(f"sum(ratchet_training_batches_waiting{{{NAMESPACE}}})", "batches", instant=True),
            steps=((None, GREEN), (5, ORANGE)),
            width=3,
        ),
        stat_panel(
            "Window opens",
            "When the next of them may begin.",
            Query(
                f"1000 * min(ratchet_training_window_opens_seconds{{{NAMESPACE}}} > 0)",
                "opens",
                instant=True,
            ),
            unit="dateTimeFromNow",
            no_value="none waits",
            width=3,
        ),
        stat_panel(
            "Trainers ready",
            "Instances that take work, one for each GPU or machine.",
            Query(f"sum(ratchet_service_ready{{{TRAINERS}}})", "ready", instant=True),
            steps=((None, RED), (1, GREEN)),
            no_value="none",
        ),
    ),
)

RUN = DashboardRow(
    "How does the run in hand do?",
    (
        time_series_panel(
            "Loss",
            "Of the newest step, in nats per answer token. It falls within a run; a rise, or "
            "no number, ends a run as failed.",
            Query(f"max by (model) (ratchet_training_loss{{{MODEL}}})", "{{model}}"),
            soft_min=0,
        ),
        time_series_panel(
            "Norm of the gradient",
            "Of the newest step, before clipping. Leaps mean examples that contradict the "
            "rest, or too high a learning rate.",
            Query(f"max by (model) (ratchet_training_gradient_norm{{{MODEL}}})", "{{model}}"),
            logarithmic=True,
        ),
        time_series_panel(
            "Speed",
            "Tokens that are trained in a second. Half of what it was: something else uses "
            "the machine.",
            Query(f"max by (model) (ratchet_training_tokens_per_second{{{MODEL}}})", "{{model}}"),
            soft_min=0,
        ),
        state_timeline_panel(
            "Runs",
            "When a run of each model was in hand.",
            Query(f"max by (model) (ratchet_training_in_progress{{{MODEL}}})", "{{model}}"),
            states=TRAINING_STATES,
            width=16,
        ),
        bar_panel(
            "Steps",
            "Steps of training, those done again after an interruption included.",
            Query(
                "sum by (model) "
                f"(increase(ratchet_training_steps_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
        ),
    ),
)

VERDICTS = DashboardRow(
    "What does the gate say, and when?",
    (
        bar_panel(
            "Verdicts over time",
            "Runs that ended, by what the gate said.",
            verdict_counts(),
            colours=OUTCOME_COLOURS,
        ),
        bar_gauge_panel(
            "Phases of a run",
            "Mean time of each phase in the time range. Loading that takes long: the base "
            "was not warm.",
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
            "From the fiftieth example to a verdict",
            "Half of them, and nine in ten, were there within this time, in the time range.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le, model, lane) "
                    f"(increase(ratchet_training_verdict_seconds_bucket{{{MODEL}}}[$__range])))",
                    f"{{{{model}}}} {{{{lane}}}} {name}",
                    instant=True,
                )
                for share, name in ((0.5, "half"), (0.9, "nine in ten"))
            ),
            unit="s",
            steps=((None, BLUE), (1_800, ORANGE)),
        ),
        state_timeline_panel(
            "Reward hacking suspected",
            "Raised when the newest candidates earn more reward and held-out answers do not "
            "get likelier. An operator may promote by hand.",
            Query(f"max by (model) (ratchet_training_reward_hacking{{{MODEL}}})", "{{model}}"),
            states=ALARM_STATES,
            width=24,
        ),
    ),
)

KEEPING = DashboardRow(
    "Would it survive its machine?",
    (
        bar_panel(
            "Checkpoints and resumptions",
            "Checkpoints that reached the object store, and times that a run went on from "
            "one. Resumptions without a deployment: workers "
            "die.",
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
        ),
        bar_gauge_panel(
            "Disk in use",
            "Of what the trainer writes to. A run needs room for its checkpoints.",
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
            "Operations that the object store did not carry out, by service.",
            Query(
                "sum by (service, operation) "
                f"(increase(ratchet_object_store_errors_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{service}} {{operation}}",
            ),
        ),
        time_series_panel(
            "Batches that wait for the trainer",
            "Announced and not ended. More than one for long: training is slower than feedback.",
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
    """The trainer."""
    about = "The trainer: what runs, what the gate says and when, and what keeps a run going."
    return build_dashboard(
        "ratchet-training", "Ratchet / Training", about, (ANSWERS, RUN, VERDICTS, KEEPING)
    )
