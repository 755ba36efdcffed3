"""Duration of a rollback, and failed requests while versions switch, on the embedded llama.cpp with
the real small model.

- `rollback_p95_seconds`: from the POST to the first answer of the old version, which is still in
  memory, over `--rollbacks` back and forth; `_busy` is the same under load. The baseline of the
  median is one such answer without a switch.
- `failed_requests_during_switch`: of five requests a second while versions are promoted (merged,
  transferred, verified, switched to) and rolled back; the baseline is the number of requests.
  `slowest_request_seconds` is the longest latency, and its baseline the median: the merge shares
  the machine's cores with the server.
- `monitor_false_alarm_share`, `monitor_delay_events`: see `monitor_simulation.py`.
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
"""Pause between rollbacks, until the deployer is idle."""


async def bench_switching(rollbacks: int, busy_rollbacks: int) -> list[Result]:
    async with start_stack() as bench:
        async with bench.steady_requests(REQUESTS_A_SECOND) as requests:
            for _ in range(PROMOTIONS):
                await bench.promote_new()
            busy = await _back_and_forth(bench, busy_rollbacks)
        quiet = await _back_and_forth(bench, rollbacks)
        answer = await _one_answer(bench)
    for failure in requests.failures:
        print(f"failed: {failure}")
    request_count = len(requests.seconds) + len(requests.failures)
    return [
        Result("rollback_p95_seconds", _p95(quiet), "s"),
        Result("rollback_median_seconds", median(quiet), "s", baseline=answer),
        Result("rollback_slowest_seconds", max(quiet), "s"),
        Result("rollback_p95_seconds_busy", _p95(busy), "s"),
        Result(
            "failed_requests_during_switch",
            float(len(requests.failures)),
            "requests",
            baseline=float(request_count),
        ),
        Result(
            "slowest_request_seconds", max(requests.seconds), "s", baseline=median(requests.seconds)
        ),
    ]


async def _back_and_forth(bench: VersionSwitching, rollbacks: int) -> list[float]:
    seconds = []
    for _ in range(rollbacks):
        seconds.append(await bench.roll_back())
        await asyncio.sleep(PAUSE_SECONDS)
    return seconds


async def _one_answer(bench: VersionSwitching, times: int = 10) -> float:
    """Return the seconds of one answer of the kind that ends a rollback: its lower limit."""
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
