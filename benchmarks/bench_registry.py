"""How fast a rollback is and whether anybody notices a switch, on the embedded llama.cpp with the
real small model.

- `rollback_p95_seconds`: from the POST to the first answer of the old version, which is still in
  memory, over `--rollbacks` back and forth; `_busy` is the same while requests come. The baseline
  of the median is one such answer with nothing to switch.
- `failed_requests_during_switch`: of five requests a second while versions are promoted (merged,
  brought, verified, switched to) and rolled back; the baseline is how many there were.
  `slowest_request_seconds` is the longest that one waited, and the baseline their median: the merge
  shares the machine's cores with whatever answers.
- `monitor_false_alarm_share`, `monitor_delay_events`: see `live_use.py`.
"""

import argparse
import asyncio
from collections.abc import Sequence
from math import ceil
from statistics import median

from benchmarks.registry import monitor_simulation as live_use
from benchmarks.registry.switching import CLOCK, VersionSwitching, start_stack
from benchmarks.results import Result, report

REQUESTS_A_SECOND = 5
PROMOTIONS = 2
PAUSE_SECONDS = 0.3
"""Between rollbacks, in which the deployer comes to rest."""


async def bench_switching(rollbacks: int, busy_rollbacks: int) -> list[Result]:
    async with start_stack() as bench:
        async with bench.steady_requests(REQUESTS_A_SECOND) as asked:
            for _ in range(PROMOTIONS):
                await bench.promote_new()
            busy = await _back_and_forth(bench, busy_rollbacks)
        quiet = await _back_and_forth(bench, rollbacks)
        answer = await _one_answer(bench)
    for failure in asked.failures:
        print(f"failed: {failure}")
    requests = len(asked.seconds) + len(asked.failures)
    return [
        Result("rollback_p95_seconds", _p95(quiet), "s"),
        Result("rollback_median_seconds", median(quiet), "s", baseline=answer),
        Result("rollback_slowest_seconds", max(quiet), "s"),
        Result("rollback_p95_seconds_busy", _p95(busy), "s"),
        Result(
            "failed_requests_during_switch",
            float(len(asked.failures)),
            "requests",
            baseline=float(requests),
        ),
        Result("slowest_request_seconds", max(asked.seconds), "s", baseline=median(asked.seconds)),
    ]


async def _back_and_forth(bench: VersionSwitching, rollbacks: int) -> list[float]:
    seconds = []
    for _ in range(rollbacks):
        seconds.append(await bench.roll_back())
        await asyncio.sleep(PAUSE_SECONDS)
    return seconds


async def _one_answer(bench: VersionSwitching, times: int = 10) -> float:
    """Seconds of an answer such as tells that a rollback is done: the least that one could take."""
    seconds = []
    for _ in range(times):
        began = CLOCK.monotonic()
        await bench.answering_version()
        seconds.append(CLOCK.monotonic() - began)
    return median(seconds)


def _p95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[ceil(0.95 * len(seconds)) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollbacks", type=int, default=40)
    parser.add_argument("--busy-rollbacks", type=int, default=20)
    arguments = parser.parse_args()
    results = asyncio.run(bench_switching(arguments.rollbacks, arguments.busy_rollbacks))
    report("registry", [*results, *live_use.simulate_monitor()])


if __name__ == "__main__":
    main()
