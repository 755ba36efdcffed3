"""Simulation of the live monitor: its false alarms on a steady champion, and its delay on a worse
one.
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
"""Share of the previous version's answers with a reward of +1; the others have -1, which is the
largest possible variance.
"""


def simulate_monitor() -> list[Result]:
    """Return, for the default rule, the false alarms over steady runs and the delay for a drop of
    0.2 in mean reward.
    """
    rule = MonitorSettings()
    steady = [_alarm(run, 0.0, rule) for run in range(RUNS)]
    alarms = [_alarm(RUNS + run, DROP, rule) for run in range(RUNS)]
    delays = [delay for delay in alarms if delay is not None]
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
    """Return the number of champion events until the alarm, or None without one."""
    random = np.random.default_rng(seed)
    champion = np.where(random.random(EVENTS) < LIKED - drop / 2, 1.0, -1.0).tolist()
    previous = np.where(random.random(EVENTS) < LIKED, 1.0, -1.0).tolist()
    if not is_worse(compute_evidence(champion, previous, rule), rule):
        return None
    # An alarm persists with more events, so bisection finds the first number that raises it.
    low, high = 1, EVENTS
    while low < high:
        middle = (low + high) // 2
        if is_worse(compute_evidence(champion[:middle], previous, rule), rule):
            high = middle
        else:
            low = middle + 1
    return low
