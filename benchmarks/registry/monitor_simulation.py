"""The monitor on simulated live use: how often it calls a steady champion worse, and after how many
events a worse one.
"""

from statistics import mean, quantiles

import numpy as np

from benchmarks.results import Result
from services.registry.rollout.sequential_test import compute_evidence, is_worse
from shared.config.monitor import MonitorSettings

RUNS = 200
EVENTS = 2000
DROP = 0.2
LIKED = 0.7
"""The share of answers of the version before that are liked: rewards of +1, else -1, which vary as
much as rewards can.
"""


def simulate_monitor() -> list[Result]:
    """At the default rule: false alarms over steady runs, and the delay for a drop of 0.2 in mean
    reward.
    """
    rule = MonitorSettings()
    steady = [_alarm(run, 0.0, rule) for run in range(RUNS)]
    found = [_alarm(RUNS + run, DROP, rule) for run in range(RUNS)]
    delays = [delay for delay in found if delay is not None]
    return [
        Result(
            "monitor_false_alarm_share",
            mean(alarm is not None for alarm in steady),
            f"of {RUNS} runs of {EVENTS} events",
        ),
        Result(
            "monitor_detected_share", len(delays) / RUNS, f"of {RUNS} runs with a drop of {DROP}"
        ),
        Result("monitor_delay_events", mean(delays), "events of the champion, mean"),
        Result("monitor_delay_events_p95", quantiles(delays, n=20)[-1], "events of the champion"),
    ]


def _alarm(seed: int, drop: float, rule: MonitorSettings) -> int | None:
    """After how many events of the champion it is called worse."""
    random = np.random.default_rng(seed)
    champion = np.where(random.random(EVENTS) < LIKED - drop / 2, 1.0, -1.0).tolist()
    previous = np.where(random.random(EVENTS) < LIKED, 1.0, -1.0).tolist()
    if not is_worse(compute_evidence(champion, previous, rule), rule):
        return None
    low, high = (
        1,
        EVENTS,
    )  # once enough it stays enough, so the first number of events that is can be found by halving
    while low < high:
        middle = (low + high) // 2
        if is_worse(compute_evidence(champion[:middle], previous, rule), rule):
            high = middle
        else:
            low = middle + 1
    return low
