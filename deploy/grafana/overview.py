"""The first page: is it healthy, is it getting better, what changed last."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import MODEL, NAMESPACE, Row, board
from deploy.grafana.panels import (
    ANY_IS_BAD,
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
from deploy.grafana.shown import (
    OUTCOMES,
    READY,
    champion_now,
    last_moved,
    reward_of_feedback,
    rewards_in_use,
    verdicts,
)

FLAGS = "ratchet_training_reward_hacking|ratchet_dataset_feedback_jump|ratchet_registry_live_worse"

ANSWERS = Row(
    "Healthy? Learning? What changed last?",
    (
        tile(
            "Services ready",
            "Of the four services, those of which at least one instance takes work. Below 4: "
            "see `Healthy?` for which one, and its log "
            "for why.",
            Query(
                f"sum(max by (service) (ratchet_service_ready{{{NAMESPACE}}}))", "ready", now=True
            ),
            steps=((None, RED), (4, GREEN)),
            none="none",
            width=3,
        ),
        tile(
            "Stalled for",
            "The longest time without progress of an instance that has work to do. A run of "
            "training reports at least at every step; "
            "minutes mean that something hangs, and the instance's liveness probe is about "
            "to fail.",
            Query(f"max(ratchet_service_stalled_seconds{{{NAMESPACE}}})", "stalled", now=True),
            unit="s",
            steps=((None, GREEN), (60, ORANGE), (300, RED)),
            width=3,
        ),
        tile(
            "Alarms",
            "Suspicions that are raised now: reward hacking, a jump in the mix of feedback, "
            "a champion that does worse in live use. "
            "Which, for which model: `Training` and `Registry and serving`.",
            Query(
                f'sum(max by (__name__, model, shard, kind) ({{__name__=~"{FLAGS}", {MODEL}}}))',
                "alarms",
                now=True,
            ),
            steps=ANY_IS_BAD,
            width=3,
        ),
        tile(
            "Served as decided",
            "Whether every deploy target serves the champion's file, by its digest.",
            Query(f"min(ratchet_registry_serves_champion{{{MODEL}}})", "served", now=True),
            states={1: ("yes", GREEN), 0: ("no", RED)},
            none="no target",
            width=3,
        ),
        tile(
            "Verdicts",
            "Runs that ended in the time range, by what the gate said. Only `inconclusive` "
            "for long: there is little left to prove, or "
            "too few held-out examples. Only `rejected`: look at who sends the feedback.",
            verdicts(now=True),
            colours=OUTCOMES,
            none="none ended",
            width=6,
        ),
        tile(
            "Version that answers",
            "The number of each model's champion; 0 is the base.",
            champion_now(),
            width=3,
        ),
        tile(
            "Last change",
            "How long ago a champion moved, up or down, to the minute.",
            last_moved(),
            unit="s",
            none="none in range",
            width=3,
        ),
    ),
)

LEARNING = Row(
    "Is it getting better?",
    (
        curve(
            "Reward of feedback",
            "Mean reward of all feedback on a model's answers, from -1 to 1. It follows what "
            "people say of what is served now.",
            reward_of_feedback(),
            width=8,
        ),
        curve(
            "Champion against the version before it",
            "Mean reward in live use, over as many rewards of each. A champion that stays "
            "below for long is rolled back by the registry.",
            *rewards_in_use(),
            width=8,
        ),
        bars(
            "Verdicts over time",
            "Runs that ended, by what the gate said.",
            verdicts(),
            colours=OUTCOMES,
        ),
    ),
)

CHANGES = Row(
    "What changed last?",
    (
        timeline(
            "Version that answers, over time",
            "The number of each model's champion. A new band is a promotion or a rollback; "
            "why is in the registry's history of the model.",
            Query(f"max by (model) (ratchet_registry_champion_number{{{MODEL}}})", "{{model}}"),
            width=16,
        ),
        bars(
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
        levels(
            "Which build runs",
            "Instances by the version of Ratchet. Two of them for longer than an upgrade "
            "takes: one did not come up.",
            Query(
                f"count by (version) (ratchet_build_info{{{NAMESPACE}}})", "{{version}}", now=True
            ),
            width=6,
        ),
        levels(
            "Up for",
            "Time since the youngest instance of each service started. Short again and "
            "again: it restarts.",
            Query(
                f"min by (service) (time() - process_start_time_seconds{{{NAMESPACE}}} and "
                "on (instance) ratchet_build_info)",
                "{{service}}",
                now=True,
            ),
            unit="s",
            width=6,
        ),
        timeline(
            "On hold",
            "While a model is on hold, nothing but a person moves its champion.",
            Query(f"max by (model) (ratchet_registry_on_hold{{{MODEL}}})", "{{model}}"),
            states={0: ("free", GREEN), 1: ("on hold", ORANGE)},
            width=12,
        ),
    ),
)

HEALTH = Row(
    "Healthy?",
    (
        timeline(
            "Services",
            "Whether an instance of each service takes work. Nothing at all: Prometheus does "
            "not reach it.",
            Query(f"max by (service) (ratchet_service_ready{{{NAMESPACE}}})", "{{service}}"),
            states=READY,
            width=12,
        ),
        bars(
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
        curve(
            "Records that wait",
            "What each consumer group has not committed yet. Growing without end: too few "
            "instances, or one that is stuck.",
            Query(f"sum by (group) (ratchet_consumer_lag_records{{{NAMESPACE}}})", "{{group}}"),
            least=0,
        ),
        curve(
            "Feedback accepted",
            "Valid feedback per second, by model.",
            Query(
                f"sum by (model) (rate(ratchet_feedback_received_total{{{MODEL}}}[$__rate_interval]))",
                "{{model}}",
            ),
            unit="reqps",
            least=0,
        ),
        curve(
            "From the fiftieth example to a verdict",
            "The slowest tenth, over six hours. Long: the trainer waits for a window, for "
            "the machine, or for another model's run.",
            Query(
                "histogram_quantile(0.9, sum by (le, model) "
                f"(rate(ratchet_training_verdict_seconds_bucket{{{MODEL}}}[6h])))",
                "{{model}}",
            ),
            unit="s",
            least=0,
        ),
    ),
)


def overview() -> Dashboard:
    """Whether anything needs a person, in the first row; the other rows say more of each answer."""
    about = "Is it healthy, is it getting better, and what changed last."
    return board(
        "ratchet-overview", "Ratchet / Overview", about, (ANSWERS, LEARNING, CHANGES, HEALTH)
    )
