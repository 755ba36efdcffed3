"""The trainer: what runs, what the gate says, how long it takes."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import MODEL, NAMESPACE, Row, board
from deploy.grafana.panels import (
    ANY_IS_BAD,
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Query,
    bars,
    curve,
    levels,
    tile,
    timeline,
)
from deploy.grafana.shown import OUTCOMES, RAISED, WORKING, verdicts

TRAINERS = f'{NAMESPACE}, service="trainer"'

ANSWERS = Row(
    "Does it train? Does it learn? Does anything wait?",
    (
        tile(
            "Runs in hand",
            "Models with a run that has begun and not ended.",
            Query(
                f"sum(max by (model) (ratchet_training_in_progress{{{MODEL}}}))", "runs", now=True
            ),
            none="none",
        ),
        tile(
            "Verdicts",
            "Runs that ended in the time range, by what the gate said.",
            verdicts(now=True),
            colours=OUTCOMES,
            none="none ended",
            width=6,
        ),
        tile(
            "Reward hacking",
            "Models whose reward rises while held-out answers do not get likelier: promotion "
            "is stopped until a person has looked.",
            Query(
                f"sum(max by (model) (ratchet_training_reward_hacking{{{MODEL}}}))",
                "models",
                now=True,
            ),
            steps=ANY_IS_BAD,
            none="none",
        ),
        tile(
            "Batches that wait",
            "Batches whose lane's training window is closed.",
            Query(f"sum(ratchet_training_batches_waiting{{{NAMESPACE}}})", "batches", now=True),
            steps=((None, GREEN), (5, ORANGE)),
            width=3,
        ),
        tile(
            "Window opens",
            "When the next of them may begin.",
            Query(
                f"1000 * min(ratchet_training_window_opens_seconds{{{NAMESPACE}}} > 0)",
                "opens",
                now=True,
            ),
            unit="dateTimeFromNow",
            none="none waits",
            width=3,
        ),
        tile(
            "Trainers ready",
            "Instances that take work, one for each GPU or machine.",
            Query(f"sum(ratchet_service_ready{{{TRAINERS}}})", "ready", now=True),
            steps=((None, RED), (1, GREEN)),
            none="none",
        ),
    ),
)

RUN = Row(
    "How does the run in hand do?",
    (
        curve(
            "Loss",
            "Of the newest step, in nats per answer token. It falls within a run; a rise, or "
            "no number, ends a run as failed.",
            Query(f"max by (model) (ratchet_training_loss{{{MODEL}}})", "{{model}}"),
            least=0,
        ),
        curve(
            "Norm of the gradient",
            "Of the newest step, before clipping. Leaps mean examples that contradict the "
            "rest, or too high a learning rate.",
            Query(f"max by (model) (ratchet_training_gradient_norm{{{MODEL}}})", "{{model}}"),
            logarithmic=True,
        ),
        curve(
            "Speed",
            "Tokens that are trained in a second. Half of what it was: something else uses "
            "the machine.",
            Query(f"max by (model) (ratchet_training_tokens_per_second{{{MODEL}}})", "{{model}}"),
            least=0,
        ),
        timeline(
            "Runs",
            "When a run of each model was in hand.",
            Query(f"max by (model) (ratchet_training_in_progress{{{MODEL}}})", "{{model}}"),
            states=WORKING,
            width=16,
        ),
        bars(
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

VERDICTS = Row(
    "What does the gate say, and when?",
    (
        bars(
            "Verdicts over time",
            "Runs that ended, by what the gate said.",
            verdicts(),
            colours=OUTCOMES,
        ),
        levels(
            "Phases of a run",
            "Mean time of each phase in the time range. Loading that takes long: the base "
            "was not warm.",
            Query(
                "sum by (phase) "
                f"(increase(ratchet_training_phase_seconds_sum{{{MODEL}}}[$__range])) / "
                "(sum by (phase) "
                f"(increase(ratchet_training_phase_seconds_count{{{MODEL}}}[$__range])) > 0)",
                "{{phase}}",
                now=True,
            ),
            unit="s",
        ),
        levels(
            "From the fiftieth example to a verdict",
            "Half of them, and nine in ten, were there within this time, in the time range.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le, model, lane) "
                    f"(increase(ratchet_training_verdict_seconds_bucket{{{MODEL}}}[$__range])))",
                    f"{{{{model}}}} {{{{lane}}}} {name}",
                    now=True,
                )
                for share, name in ((0.5, "half"), (0.9, "nine in ten"))
            ),
            unit="s",
            steps=((None, BLUE), (1_800, ORANGE)),
        ),
        timeline(
            "Reward hacking suspected",
            "Raised when the newest candidates earn more reward and held-out answers do not "
            "get likelier. An operator may promote by hand.",
            Query(f"max by (model) (ratchet_training_reward_hacking{{{MODEL}}})", "{{model}}"),
            states=RAISED,
            width=24,
        ),
    ),
)

KEEPING = Row(
    "Would it survive its machine?",
    (
        bars(
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
        levels(
            "Disk in use",
            "Of what the trainer writes to. A run needs room for its checkpoints.",
            Query(
                f"1 - min by (folder, instance) (ratchet_disk_free_bytes{{{TRAINERS}}} / "
                f"ratchet_disk_size_bytes{{{TRAINERS}}})",
                "{{folder}} {{instance}}",
                now=True,
            ),
            unit="percentunit",
            steps=((None, GREEN), (0.8, ORANGE), (0.9, RED)),
        ),
        bars(
            "Object store errors",
            "Operations that the object store did not carry out, by service.",
            Query(
                "sum by (service, operation) "
                f"(increase(ratchet_object_store_errors_total{{{NAMESPACE}}}[$__rate_interval]))",
                "{{service}} {{operation}}",
            ),
        ),
        curve(
            "Batches that wait for the trainer",
            "Announced and not ended. More than one for long: training is slower than feedback.",
            Query(
                f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}, "
                'group="ratchet-trainer"})',
                "{{group}}",
            ),
            least=0,
            width=12,
        ),
        curve(
            "Memory",
            "Resident memory of each trainer, without its training process.",
            Query(f"process_resident_memory_bytes{{{TRAINERS}}}", "{{instance}}"),
            unit="bytes",
            least=0,
            width=12,
        ),
    ),
)


def training() -> Dashboard:
    """The trainer."""
    about = "The trainer: what runs, what the gate says and when, and what keeps a run going."
    return board("ratchet-training", "Ratchet / Training", about, (ANSWERS, RUN, VERDICTS, KEEPING))
